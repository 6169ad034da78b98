"""Fetch a task's images or a backbone's weights: download, check, unpack, and rename into place.

Below the data folder, `.fetch/_parts/<what>/` collects the downloaded files (kept for the next attempt); archives are
unpacked into a hidden folder next to the target, which is then renamed. So an interrupted fetch leaves nothing that
looks complete.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core import catalog
from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.core.units import format_bytes
from mlae_lab.data import hub
from mlae_lab.data.download import download, missing_bytes, partial_file, request
from mlae_lab.data.progress import Cancelled, CorruptFile, FetchError, Meter, Progress
from mlae_lab.data.unpack import unpack

__all__ = ["Cancelled", "FetchError", "Progress", "fetch", "ready_folder"]

_UNPACKED = 1.1  # images hardly shrink in an archive; file system blocks take some more


def ready_folder(remote: Remote, into: Path) -> Path | None:
    """The folder below the data folder where a remote is complete, or None. For VTAB-1k the task's own folder."""
    target = into / remote.subfolder
    folders = [target / part for part in remote.parts] or [target]
    return next((folder for folder in folders if folder.is_dir()), None)


def fetch(
    remote: Remote,
    into: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Fetch a remote below the data folder `into` and return its folder; at once if it is complete already.

    Two processes may fetch the same remote: one waits for the other.

    Args:
        remote: to fetch.
        into: the data folder.
        on_progress: called at most four times a second.
        should_stop: called at least ten times a second; once it returns True, Cancelled is raised within a second and
            the downloaded bytes are kept.

    Raises:
        FetchError: anything outside the program went wrong; one sentence with what to do.
        Cancelled: the fetch was asked to stop.
    """
    into = into.expanduser().absolute()
    meter = Meter(on_progress, should_stop)
    parts = into / ".fetch" / "_parts" / remote.subfolder.replace("/", "__")
    target = into / remote.subfolder
    if (ready := ready_folder(remote, into)) is not None:
        return ready
    with _disk_errors(into):
        parts.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(parts.with_name(parts.name + ".lock"), meter):
            if (ready := ready_folder(remote, into)) is None:
                staging = target.with_name(f".{target.name}.unpacking")
                _remove(staging)  # of a process that was killed
                try:
                    _fill(staging, gather(remote, parts, meter), remote, meter)
                    _install(staging, target, remote)
                finally:
                    _remove(staging)
                _remove(parts)
                ready = ready_folder(remote, into)
    assert ready is not None
    return ready


@contextmanager
def _turn(lock: Path, meter: Meter) -> Iterator[None]:
    """Only one process at a time downloads and unpacks a remote; the kernel releases the lock when it dies."""
    while (held := locks.take(lock)) is None:
        if meter.phase != "waiting":
            meter.start("waiting")
        meter.tick()
    try:
        yield
    finally:
        os.close(held)


def gather(remote: Remote, parts: Path, meter: Meter) -> list[tuple[RemoteFile, Path, bool]]:
    """Every file of the remote, complete, with whether the lab owns it and may move and delete it.

    Args:
        remote: To download.
        parts: Folder of the downloaded files, three levels below the data folder; kept for the next attempt.
        meter: Counts bytes; may raise Cancelled.
    """
    copies = [hub.cached(remote, file) for file in remote.files]
    if all(copies):
        return [(file, copy, False) for file, copy in zip(remote.files, copies, strict=True) if copy]
    if hub.is_offline():
        raise hub.offline_sentence(remote)
    meter.start("asking")
    files = request(lambda: hub.listed(remote), remote, meter)
    located = [request(lambda file=file: hub.locate(remote, file), remote, meter) for file in files]
    partial = {partial_file(parts, file, at_host) for file, at_host in zip(files, located, strict=True)}
    for old in set(parts.glob("*.partial")) - partial:  # of a version that the host has replaced
        old.unlink()
    missing = sum(missing_bytes(parts, file, at_host) for file, at_host in zip(files, located, strict=True))
    sizes = [at_host.size or file.size_bytes for file, at_host in zip(files, located, strict=True)]
    packed = sum(size or 0 for file, size in zip(files, sizes, strict=True) if file.unpack)
    _require_space(parts, missing + int(packed * _UNPACKED))
    received = sum(path.stat().st_size for path in partial if path.exists())
    meter.start("downloading", files[0].path, received, None if None in sizes else sum(size or 0 for size in sizes))
    gathered = []
    for file, at_host in zip(files, located, strict=True):
        meter.file = file.path
        gathered.append((file, download(remote, file, at_host, parts, meter), True))
    return gathered


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        data_folder = folder.parents[2]
        raise FetchError(
            f"{data_folder} has {format_bytes(free)} free and {format_bytes(needed)} are needed: free some space there "
            f"or choose another folder with --into or MLAE_LAB_DATA"
        )


def _fill(staging: Path, gathered: list[tuple[RemoteFile, Path, bool]], remote: Remote, meter: Meter) -> None:
    """Unpack everything into the staging folder; a corrupt archive is deleted."""
    staging.mkdir()
    for file, path, owned in gathered:
        if file.unpack in ("zip", "tar"):
            with _deleting([path], owned, remote):
                unpack(path, file.unpack, staging / file.into, meter, file.path)
    tables = {file.path: path for file, path, _ in gathered if file.unpack == "parquet"}
    if tables:
        from mlae_lab.data.parquet_task import unpack_parquet

        with _deleting(list(tables.values()), True, remote):
            unpack_parquet(tables, staging, catalog.task(remote.task or remote.name), meter)
    for file, path, owned in gathered:  # last, since moving a file takes it from the next attempt
        if file.unpack is None:
            kept = staging / file.into / Path(file.path).name
            path.rename(kept) if owned else shutil.copyfile(path, kept)


@contextmanager
def _deleting(files: list[Path], owned: bool, remote: Remote) -> Iterator[None]:
    """Delete corrupt files instead of keeping them for the next attempt."""
    try:
        yield
    except CorruptFile as error:
        if not owned:
            raise FetchError(f"{error}: delete {files[0]} in the Hugging Face cache and try again") from None
        for file in files:
            file.unlink()
        raise FetchError(
            f"{error}: it was deleted; try again, and if it happens twice report it on {remote.page}"
        ) from None


def _install(staging: Path, target: Path, remote: Remote) -> None:
    """Rename the staging folder into place; into an existing folder it is moved folder by folder."""
    _lift(staging, target.name)
    _lift_splits(staging, remote)
    if remote.parts and not any((staging / part).is_dir() for part in remote.parts):
        names = ", ".join(sorted(path.name for path in staging.iterdir())[:8])
        raise FetchError(f"{remote.repo} holds no {remote.parts[0]} but {names}: it has changed, see {remote.page}")
    unlisted = (staging / "json").exists() and not (staging / "train.json").exists()
    if not target.exists():
        staging.rename(target)
        if unlisted:
            raise FetchError(
                f"the images are in {target}, but json.zip holds no train.json with "
                f"{catalog.task(remote.task or remote.name).classes} classes: put train.json, val.json and test.json "
                f"there yourself; {remote.page} may say where to get them"
            )
        return
    for child in sorted(staging.iterdir()):
        if not (target / child.name).exists():
            child.rename(target / child.name)


def _lift(staging: Path, name: str) -> None:
    """Move the content of `vtab-1k/` up by one level in an archive that is unpacked as vtab-1k/."""
    inner = next((path for path in staging.iterdir() if path.is_dir() and _same(path.name, name)), None)
    if inner is not None:
        moved = inner.rename(staging / ".lifted")
        for child in moved.iterdir():
            if not (staging / child.name).exists():
                child.rename(staging / child.name)
        _remove(moved)


def _lift_splits(staging: Path, remote: Remote) -> None:
    """Copy the dataset's own lists next to its images: one archive holds the splits of all five FGVC datasets.

    They are found by the folder's name, else by the number of classes, which differs among the five.
    """
    lists = sorted((staging / "json").rglob("train.json"))
    if not lists or (staging / "train.json").exists():
        return
    task = catalog.task(remote.task or remote.name)
    names = (task.name, *task.aliases)
    train = next((file for file in lists if any(_same(file.parent.name, name) for name in names)), None)
    train = train or next((file for file in lists if _classes(file) == task.classes), None)
    for file in train.parent.glob("*.json") if train else ():
        shutil.copyfile(file, staging / file.name)


def _classes(file: Path) -> int:
    try:
        return len(set(map(str, json.loads(file.read_bytes()).values())))
    except (ValueError, AttributeError):
        return 0


def _same(name: str, other: str) -> bool:
    plain = [text.lower().replace("-", "").replace("_", "") for text in (name, other)]
    return plain[0] == plain[1]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise FetchError with a sentence for a full disk and a folder without permission."""
    try:
        yield
    except (Cancelled, FetchError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FetchError(
                f"the disk of {folder} is full: free some space or choose another folder with --into; "
                f"what was fetched is kept, run the same command to continue"
            ) from None
        raise FetchError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder with --into or "
            f"MLAE_LAB_DATA"
        ) from None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
