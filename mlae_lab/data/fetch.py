"""Fetch a task's images or a backbone's weights: download, check, unpack, and put in place in one move.

Below the data folder, `.fetch/_parts/<what>/` gathers the downloaded files (kept for the next try), and a hidden
folder beside the target is unpacked into and then renamed. So an interrupted fetch leaves nothing that looks ready.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.core.units import format_bytes
from mlae_lab.data import hub
from mlae_lab.data.download import ask, download, missing_bytes, partial_file
from mlae_lab.data.progress import Cancelled, FetchError, Meter, Progress, Worthless
from mlae_lab.data.unpack import unpack

__all__ = ["Cancelled", "FetchError", "Progress", "fetch", "ready_folder"]

_UNPACKED = 1.1  # images hardly shrink in an archive; file system blocks cost some more


def ready_folder(remote: Remote, into: Path) -> Path | None:
    """Where the remote's things lie complete below the data folder, or None. For VTAB-1k the task's own folder."""
    target = into / remote.subfolder
    places = [target / part for part in remote.parts] or [target]
    return next((place for place in places if place.is_dir()), None)


def fetch(
    remote: Remote,
    into: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Bring a remote below the data folder `into` and return its folder; at once if it is there already.

    on_progress: told at most four times a second. should_stop: asked at least ten times a second; once true,
    Cancelled is raised within a second and what is downloaded is kept. Two processes may fetch the same: one waits.
    Raises FetchError, one sentence with what to do, for everything that can go wrong outside the program.
    """
    into = into.expanduser().absolute()
    meter = Meter(on_progress, should_stop)
    parts = into / ".fetch" / "_parts" / remote.subfolder.replace("/", "__")
    target = into / remote.subfolder
    if (found := ready_folder(remote, into)) is not None:
        return found
    with _disk_sentences(into):
        parts.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(parts.with_name(parts.name + ".lock"), meter):
            if (found := ready_folder(remote, into)) is None:
                staging = target.with_name(f".{target.name}.unpacking")
                _remove(staging)  # of a process that was killed
                try:
                    _fill(staging, _gather(remote, parts, meter), remote, meter)
                    _install(staging, target, remote)
                finally:
                    _remove(staging)
                _remove(parts)
                found = ready_folder(remote, into)
    assert found is not None
    return found


@contextmanager
def _turn(lock: Path, meter: Meter) -> Iterator[None]:
    """Only one process at a time gathers and unpacks the same; the kernel lets go of the lock on any death."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if meter.phase != "waiting":
                    meter.start("waiting")
                meter.tick()
                time.sleep(0.1)
        yield
    finally:
        os.close(held)


def _gather(remote: Remote, parts: Path, meter: Meter) -> list[tuple[RemoteFile, Path, bool]]:
    """Every file of the remote, complete, with whether it is ours to move and delete."""
    copies = [hub.cached(remote, file) for file in remote.files]
    if all(copies):
        return [(file, copy, False) for file, copy in zip(remote.files, copies, strict=True) if copy]
    if hub.is_offline():
        raise hub.offline_sentence(remote)
    meter.start("asking")
    files = ask(lambda: hub.listed(remote), remote, meter)
    located = [ask(lambda file=file: hub.locate(remote, file), remote, meter) for file in files]
    wanted = {partial_file(parts, file, where) for file, where in zip(files, located, strict=True)}
    for old in set(parts.glob("*.partial")) - wanted:  # of a version that the host has replaced
        old.unlink()
    missing = sum(missing_bytes(parts, file, where) for file, where in zip(files, located, strict=True))
    sizes = [where.size or file.size_bytes for file, where in zip(files, located, strict=True)]
    packed = sum(size or 0 for file, size in zip(files, sizes, strict=True) if file.unpack)
    _require_room(parts, missing + int(packed * _UNPACKED))
    have = sum(path.stat().st_size for path in wanted if path.exists())
    meter.start("downloading", files[0].path, have, None if None in sizes else sum(size or 0 for size in sizes))
    gathered = []
    for file, where in zip(files, located, strict=True):
        meter.file = file.path
        gathered.append((file, download(remote, file, where, parts, meter), True))
    return gathered


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        data_folder = folder.parents[2]
        raise FetchError(
            f"{data_folder} has {format_bytes(free)} free and {format_bytes(needed)} are needed: make room there or choose "
            f"another folder with --into or MLAE_LAB_DATA"
        )


def _fill(staging: Path, gathered: list[tuple[RemoteFile, Path, bool]], remote: Remote, meter: Meter) -> None:
    """Unpack everything into the staging folder; an archive that is worth nothing is deleted."""
    staging.mkdir()
    for file, path, ours in gathered:
        if file.unpack in ("zip", "tar"):
            with _deleting([path], ours, remote):
                unpack(path, file.unpack, staging / file.into, meter, file.path)
    tables = {file.path: path for file, path, _ in gathered if file.unpack == "parquet"}
    if tables:
        from mlae_lab.data.parquet_task import unpack_parquet

        with _deleting(list(tables.values()), True, remote):
            unpack_parquet(tables, staging, catalog.task(remote.task or remote.name), meter)
    for file, path, ours in gathered:  # after what can still fail, since moving takes them from the next try
        if file.unpack is None:
            kept = staging / file.into / Path(file.path).name
            path.rename(kept) if ours else shutil.copyfile(path, kept)


@contextmanager
def _deleting(files: list[Path], ours: bool, remote: Remote) -> Iterator[None]:
    """What turns out to be worth nothing is not kept for the next try."""
    try:
        yield
    except Worthless as error:
        if not ours:
            raise FetchError(f"{error}: delete {files[0]} in the Hugging Face cache and try again") from None
        for file in files:
            file.unlink()
        raise FetchError(
            f"{error}: it was deleted; try again, and if it happens twice tell the hosts on {remote.page}"
        ) from None


def _install(staging: Path, target: Path, remote: Remote) -> None:
    """Rename the staging folder into place; beside what is there already, folder by folder."""
    _lift(staging, target.name)
    _lift_splits(staging, remote)
    if remote.parts and not any((staging / part).is_dir() for part in remote.parts):
        have = ", ".join(sorted(path.name for path in staging.iterdir())[:8])
        raise FetchError(f"{remote.repo} holds no {remote.parts[0]} but {have}: it has changed, see {remote.page}")
    unlisted = (staging / "json").exists() and not (staging / "train.json").exists()
    if not target.exists():
        staging.rename(target)
        if unlisted:
            raise FetchError(
                f"the images are in {target}, but json.zip holds no train.json with "
                f"{catalog.task(remote.task or remote.name).classes} classes: put train.json, val.json and test.json "
                f"there by hand, {remote.page} may say where they are now"
            )
        return
    for child in sorted(staging.iterdir()):
        if not (target / child.name).exists():
            child.rename(target / child.name)


def _lift(staging: Path, name: str) -> None:
    """`vtab-1k/` inside an archive that is unpacked as vtab-1k/: its content goes up by one."""
    inner = next((path for path in staging.iterdir() if path.is_dir() and _same(path.name, name)), None)
    if inner is not None:
        moved = inner.rename(staging / ".lifted")
        for child in moved.iterdir():
            if not (staging / child.name).exists():
                child.rename(staging / child.name)
        _remove(moved)


def _lift_splits(staging: Path, remote: Remote) -> None:
    """One archive holds the splits of all five FGVC sets: this set's lists are put beside its images.

    They are found by the folder's name, else by the number of classes, which differs among the five.
    """
    lists = sorted((staging / "json").rglob("train.json"))
    if not lists or (staging / "train.json").exists():
        return
    task = catalog.task(remote.task or remote.name)
    names = (task.name, *task.aliases)
    found = next((one for one in lists if any(_same(one.parent.name, name) for name in names)), None)
    found = found or next((one for one in lists if _classes(one) == task.classes), None)
    for one in found.parent.glob("*.json") if found else ():
        shutil.copyfile(one, staging / one.name)


def _classes(file: Path) -> int:
    try:
        return len(set(map(str, json.loads(file.read_bytes()).values())))
    except (ValueError, AttributeError):
        return 0


def _same(one: str, other: str) -> bool:
    plain = [text.lower().replace("-", "").replace("_", "") for text in (one, other)]
    return plain[0] == plain[1]


@contextmanager
def _disk_sentences(folder: Path) -> Iterator[None]:
    """A full disk and a folder that is not ours, as sentences."""
    try:
        yield
    except (Cancelled, FetchError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FetchError(
                f"the disk of {folder} is full: make room or choose another folder with --into; "
                f"what was fetched is kept, the same command goes on"
            ) from None
        raise FetchError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder with --into or "
            f"MLAE_LAB_DATA"
        ) from None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
