"""A run as one file that is safe to open from strangers, and runs put away as such files.

A parcel (`.mlae`) is a zip with these members, each at most once, and nothing else:

    run.json                   the run's row (`archive_writing`), its config as `RunConfig.to_dict` gives it
    events.jsonl               one event per line: {"kind": ..., "time": ..., "payload": {...}}
    log.txt                    the end of its log
    adapter.safetensors, checkpoint.safetensors      stored plainly, so that a small file stays a small one
    start.safetensors, epoch-00004.safetensors       the same, in the parcel of a run that was put away

Whoever opens one trusts nothing in it: no member's name becomes a path, sizes are limited before and while a member is
read, every value is checked, and folders of another machine are left behind.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.sanitize import one_line
from mlae_lab.runs import paths
from mlae_lab.runs.archive_checks import checked_tensors, events_of, header_of
from mlae_lab.runs.archive_writing import write
from mlae_lab.runs.archive_zip import EPOCH, EVENTS, LOG, RUN, SUFFIX, ArchiveError, Packed, opened
from mlae_lab.runs.paths import RunPaths, is_run_id
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError

_REASON = 4000  # characters of a stranger's reason
_NOTES = 10  # sentences of a stranger about the images
RELATIONS = ("retry", "duplicate", "paired", "repeat", "race", "diversity", "branched", "imported")


@dataclass(frozen=True)
class ArchiveFile:
    """What a parcel holds, all of it checked. run: as `import_run` would put it into a store; events: their number;
    skipped: events of a kind that only a newer lab knows; files: its members, name to bytes."""

    run: Run
    events: int
    skipped: int
    files: Mapping[str, int]


@dataclass(frozen=True)
class Archived:
    """A run that was put away. time: when, in seconds since 1970; bytes: of its file; owner: as of a run; task: of the
    catalog, or `own:<folder>`; trouble: why its file cannot be read, "" where it can; task is then "" and status None."""

    id: str
    time: float
    bytes: int
    owner: str = ""
    task: str = ""
    status: Status | None = None
    trouble: str = ""


# ---------------------------------------------------------------- a run becomes a file


def export(store: RunStore, run_id: str, file: Path) -> int:
    """Write a run that is over as a parcel; it appears whole or not at all. Returns its size in bytes.

    Two exports of the same run have the same bytes. Raises StoreError for a run that is unknown, not over or goes on
    meanwhile, ParcelError where the file cannot be written or the run is larger than a parcel may be.
    """
    run = _ended(store, run_id, "exported")
    files = store.paths(run.id)
    write(store, run, Path(file), {path.name: path for path in (files.adapter, files.checkpoint)}, {})
    return Path(file).stat().st_size


def _ended(store: RunStore, run_id: str, what: str) -> Run:
    run = store.run(run_id)
    if not run.status.is_over:
        raise StoreError(f"run {run.id} is {run.status.value}: it can be {what} when it is over")
    return run


# ---------------------------------------------------------------- a file becomes a run


def inspect(file: Path) -> ArchiveFile:
    """Read all of a parcel and check it; nothing is written. Raises ParcelError."""
    with opened(file) as packed:
        run, _ = header_of(packed)
        for _ in _unpacked(packed, None):
            pass
        told = [found is None for found in events_of(packed, run.config)]
        return ArchiveFile(_foreign(run, ""), told.count(False), told.count(True), packed.sizes)


def import_run(store: RunStore, file: Path, owner: str = "") -> Run:
    """Put the run in a parcel into the store, under its own name; its settings lose the folders of another machine.

    owner: a visitor's id, as in `Run`. A run that came from none is "imported". Raises ParcelError for the file,
    StoreError if the run is here already, was put away here, or cannot be written; nothing of it is left then.
    """
    sweep(store)
    with opened(file) as packed:
        run, _ = header_of(packed)
        if not store.holds(run.id) and paths.archived(store.folder, run.id).exists():
            raise StoreError(f"run {run.id} was put away here: `mlae_lab restore {run.id}` brings it back")
        with _arriving(store, run.id) as files:
            _fill(store, files, packed, _foreign(run, owner), run.config)
    return store.run(run.id)


def _foreign(run: Run, owner: str) -> Run:
    """A stranger's run as it may come into a store of ours."""
    weights = one_line(run.config.weights.replace("\\", "/").rsplit("/", 1)[-1])
    config = replace(
        run.config,
        data="",
        data_label=one_line(run.config.data_label),
        data_notes=tuple(one_line(note)[:_REASON] for note in run.config.data_notes[:_NOTES]),
        data_fingerprint="",
        weights="" if weights in (".", "..") else weights,
    )
    return replace(
        run,
        config=config,
        reason=one_line(run.reason)[:_REASON],
        owner=owner,
        parent=run.parent if is_run_id(run.parent) else "",
        relation=run.relation if run.relation in RELATIONS else "imported",
    )


def _fill(store: RunStore, files: RunPaths, packed: Packed, run: Run, config: RunConfig) -> None:
    """Write a parcel's files, then its row and events: nobody sees a run before all of it is there."""
    for path, chunks in _unpacked(packed, files):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as target:
            target.writelines(chunks)
    for _ in events_of(packed, config):
        pass  # every line is checked before the first is written
    store.insert(run, (found for found in events_of(packed, config) if found is not None))


@contextmanager
def _arriving(store: RunStore, run_id: str) -> Iterator[RunPaths]:
    """The empty folder of a run that is about to come into the store, held by its lock; removed if it does not come."""
    files = store.paths(run_id)
    _require_free(store, run_id)
    lock = _taken(files)
    try:
        _require_free(store, run_id)
        for path in files.folder.iterdir():  # left by a process that was killed while it did the same
            if path != files.lock:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield files
    except BaseException as error:
        if not store.holds(run_id):
            shutil.rmtree(files.folder, ignore_errors=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise StoreError(
                f"run {run_id} could not be written into {store.folder} ({error}): make room there and try again"
            ) from None
        raise
    finally:
        os.close(lock)


def _taken(files: RunPaths) -> int:
    """The run's lock: its process cannot start while it is held, and nobody else puts it away or brings it back."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = locks.take(files.lock)
        if lock is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(files.lock)):
                    return lock
            os.close(lock)  # its folder was deleted in between
    except OSError as error:
        raise StoreError(
            f"run {files.run} has no folder that can be written ({error}): make {files.folder.parent} writable"
        ) from None
    raise StoreError(f"somebody else is busy with run {files.run} at this moment: try again when that is over")


def _require_free(store: RunStore, run_id: str) -> None:
    if store.holds(run_id):
        raise StoreError(f"run {run_id} is here already: delete it before you take it in once more")


def sweep(store: RunStore) -> None:
    """Clear away what an import or a return left that was killed: events and files of a run that never came."""
    for run_id in store.events_of_nobody():
        with suppress(StoreError):  # somebody takes it in at this moment
            files = store.paths(run_id)
            lock = _taken(files)
            try:
                store.without_events(run_id)
                shutil.rmtree(files.folder, ignore_errors=True)
            finally:
                os.close(lock)


# ---------------------------------------------------------------- put away and brought back


def archive(store: RunStore, run_id: str) -> Path:
    """Put away a run that is over: a checked parcel takes the place of its row, events and folder.

    Its checkpoints go with it. Raises StoreError if it is not over or its process is still there, ParcelError if it
    cannot be written; the run is then as it was.
    """
    _ended(store, run_id, "put away")
    files = store.paths(run_id)
    file = paths.archived(store.folder, run_id)
    lock = _taken(files)
    try:
        run = _ended(store, run_id, "put away")
        here = {"owner": run.owner, "attempt": run.attempt, "source": run.source, "data_folder": run.data_folder}
        tensors = {path.name: path for path in (files.adapter, files.checkpoint, files.start)}
        tensors |= {path.name: path for name, path in files.checkpoints().items() if name != paths.LAST}
        with suppress(FileExistsError):
            file.parent.mkdir()
        written = write(store, run, file, tensors, here)
        try:
            if inspect(file).events != written:
                raise ArchiveError(f"{file} does not hold every event of run {run.id}: the run stays where it is")
            store.delete(run.id, how="archived")
        except Exception:
            file.unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)
    return file


def restore(store: RunStore, run_id: str) -> Run:
    """Bring back a run that was put away, as it was; its file goes.

    Raises StoreError if it was not put away or is here, ParcelError for a damaged file, which then stays.
    """
    if not is_run_id(run_id):
        raise StoreError(f"{run_id!r} is not the name of a run: it has eight letters a-z or digits 2-7")
    file = paths.archived(store.folder, run_id)
    if not file.is_file() and not store.holds(run_id):
        raise StoreError(f"run {run_id} was not put away in {store.folder}: there is no {file.name} in its archive")
    with _arriving(store, run_id) as files, opened(file) as packed:
        run, here = header_of(packed)
        if run.id != run_id:
            raise ArchiveError(f"{file} holds run {run.id}, not {run_id}: import it as a file instead")
        _fill(store, files, packed, replace(run, **here), run.config)
        file.unlink()
    return store.run(run_id)


def discard(store: RunStore, run_id: str) -> None:
    """Delete a run that was put away, be its file damaged. Raises StoreError if it was not put away here."""
    if not is_run_id(run_id) or store.holds(run_id) or not paths.archived(store.folder, run_id).is_file():
        raise StoreError(f"run {run_id} was not put away in {store.folder}: there is nothing to delete")
    paths.archived(store.folder, run_id).unlink(missing_ok=True)
    store.forget(run_id)


def archived(store: RunStore) -> list[Archived]:
    """The runs that are put away, the latest first; of each only run.json is read."""
    found = []
    for file in paths.archived(store.folder, "a" * 8).parent.glob(f"*{SUFFIX}"):
        if not is_run_id(file.stem) or store.holds(file.stem):
            continue
        try:
            about = file.stat()
        except FileNotFoundError:  # brought back in this moment
            continue
        entry = Archived(file.stem, about.st_mtime, about.st_size, store.owner_of_gone(file.stem))
        try:
            with opened(file) as packed:
                run, here = header_of(packed)
        except ArchiveError as error:
            found.append(replace(entry, trouble=str(error)))
        else:
            owner = entry.owner or here.get("owner", "")
            found.append(replace(entry, owner=owner, task=run.config.task, status=run.status))
    return sorted(found, key=lambda entry: entry.time, reverse=True)


def _unpacked(packed: Packed, files: RunPaths | None) -> Iterator[tuple[Path, Iterable[bytes]]]:
    """Log and tensors: where each belongs in a run's folder, and its bytes, checked as they are taken. files: None to
    check them only."""
    for name, size in packed.sizes.items():
        if name in (RUN, EVENTS):
            continue
        chunks = packed.chunks(name)
        checked = chunks if name == LOG else checked_tensors(name, size, chunks)
        if files is None:
            for _ in checked:
                pass
        else:
            yield _place(files, name), checked


def _place(files: RunPaths, name: str) -> Path:
    if epoch := EPOCH.fullmatch(name):
        return files.checkpoint_after(int(epoch[1]))
    own = {path.name: path for path in (files.log, files.adapter, files.checkpoint, files.start)}
    return own[name]
