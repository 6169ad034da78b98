"""Archive files: a run as one file, safe to open whatever its source; export, import, archive and restore.

An archive file (`.mlae`) is a zip with these members, each at most once, and nothing else:

    run.json                   the run's row (`archive_writing`), its config as `RunConfig.to_dict` gives it
    events.jsonl               one event per line: {"kind": ..., "time": ..., "payload": {...}}
    log.txt                    the end of its log
    images.json.gz             which images it was trained and evaluated on (`data.image_record`), without their names
                               in an export
    adapter.safetensors, best.safetensors            not compressed, so that no small file expands to a large one
    checkpoint.safetensors                           the same
    start.safetensors, epoch-00004.safetensors       the same, in the file of an archived run

Nothing in a file is trusted: no member's name becomes a path, sizes are limited before and while a member is read,
every value is checked, and folders of another machine are dropped.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core.sanitize import one_line
from mlae_lab.files import remove_leftovers
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paths
from mlae_lab.runs.archive_checks import Header, checked_images, checked_tensors, header_of
from mlae_lab.runs.archive_events import events_of
from mlae_lab.runs.archive_writing import write
from mlae_lab.runs.archive_zip import EPOCH, EVENTS, LOG, RUN, SUFFIX, ArchiveError, Packed, opened
from mlae_lab.runs.paths import IMAGES, RunPaths, is_run_id
from mlae_lab.runs.run_location import RunLocation, keep_location, location_of, read_location
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError

_REASON = 4000  # characters of an imported run's reason
_NOTES = 10  # of an imported run about its images
RELATIONS = ("retry", "duplicate", "study", "lesson", "branched", "imported")


@dataclass(frozen=True)
class ArchiveFile:
    """The checked content of an archive file.

    Attributes:
        run: As `import_run` would insert it into a store.
        events: Their number.
        skipped: Number of events of a kind that only a newer version knows.
        files: Name to bytes of each member.
    """

    run: Run
    events: int
    skipped: int
    files: Mapping[str, int]


@dataclass(frozen=True)
class Archived:
    """An archived run.

    Attributes:
        id: Of the run.
        time: When it was archived, in seconds since 1970.
        bytes: Of its file.
        owner: As of a run.
        task: Of the catalog, or `own:<folder>`.
        status: Of the run.
        trouble: Why its file cannot be read, "" if it can be; task is then "" and status None.
    """

    id: str
    time: float
    bytes: int
    owner: str = ""
    task: str = ""
    status: Status | None = None
    trouble: str = ""


# ---------------------------------------------------------------- export


def export(store: RunStore, run_id: str, file: Path) -> int:
    """Write a run that is over as an archive file, completely or not at all.

    Two exports of the same run have the same bytes. What a killed export left next to the file, the next one removes.

    Returns:
        Its size in bytes.

    Raises:
        StoreError: The run is unknown, not over, or was resumed meanwhile.
        ArchiveError: The file cannot be written, or the run is too large.
    """
    run = _ended(store, run_id, "exported")
    files = store.paths(run.id)
    members = {path.name: path for path in (files.adapter, files.best, files.checkpoint)} | _images_without_names(files)
    remove_leftovers(Path(file))
    write(store, run, Path(file), members, {})
    return Path(file).stat().st_size


def _images_without_names(files: RunPaths) -> dict[str, bytes]:
    """The member with the run's list of images, without the names of files, {} if it has none."""
    from mlae_lab.data.bundled import DataError
    from mlae_lab.data.image_record import packed, read_record

    try:
        record = read_record(files.images)
    except DataError as error:
        raise ArchiveError(f"{error}, or delete it to export the run without the list") from None
    return {} if record is None else {IMAGES: packed(record, with_paths=False)}


def _ended(store: RunStore, run_id: str, action: str) -> Run:
    run = store.run(run_id)
    if not run.status.is_over:
        raise StoreError(f"run {run.id} is {run.status.value}: it can be {action} when it is over")
    return run


# ---------------------------------------------------------------- import


def inspect(file: Path) -> ArchiveFile:
    """Read and check a whole archive file; nothing is written. Raises ArchiveError."""
    with opened(file) as packed:
        header = header_of(packed)
        for _ in _unpacked(packed, None, True):
            pass
        skipped = [event is None for event in events_of(packed, header)]
        return ArchiveFile(_foreign(header.run, ""), skipped.count(False), skipped.count(True), packed.sizes)


def _events_in(file: Path) -> int:
    """Number of events in an archive file of this store, which is read and checked whole."""
    with opened(file) as packed:
        header = header_of(packed, is_foreign=False)
        for _ in _unpacked(packed, None, False):
            pass
        return sum(event is not None for event in events_of(packed, header))


def import_run(store: RunStore, file: Path, owner: str = "") -> Run:
    """Import the run of an archive file into the store, under its own id and without the folders of another machine.

    Args:
        store: To import into.
        file: The archive file.
        owner: A visitor's id, as in `Run`.

    Returns:
        The run; its relation is "imported" if it had none.

    Raises:
        ArchiveError: The file breaks a rule. Nothing is imported.
        StoreError: The store has the run already, or archived, or cannot be written to. Nothing is imported.
    """
    sweep(store)
    with opened(file) as packed:
        header = header_of(packed)
        run = header.run
        if not store.holds(run.id) and paths.archived(store.folder, run.id).exists():
            raise StoreError(f"run {run.id} is archived here: restore it with `{PROGRAM} restore {run.id}`")
        with _incoming(store, run.id) as files:
            _fill(store, files, packed, header, _foreign(run, owner), True)
    return store.run(run.id)


def _foreign(run: Run, owner: str) -> Run:
    """An imported run with texts sanitised and shortened, and without paths of another machine."""
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


def _fill(store: RunStore, files: RunPaths, packed: Packed, header: Header, run: Run, is_foreign: bool) -> None:
    """Write the files, then the events and the row `run`, so that a run becomes visible when it is complete."""
    for path, chunks in _unpacked(packed, files, is_foreign):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as target:
            target.writelines(chunks)
    for _ in events_of(packed, header):
        pass  # every line is checked before the first is written
    store.insert(run, (event for event in events_of(packed, header) if event is not None))


@contextmanager
def _incoming(store: RunStore, run_id: str) -> Iterator[RunPaths]:
    """The empty, locked folder of a run that is about to be inserted; removed if that fails."""
    files = store.paths(run_id)
    _require_free(store, run_id)
    lock = _take_lock(files)
    try:
        _require_free(store, run_id)
        for path in files.folder.iterdir():  # left by an import whose process was killed
            if path != files.lock:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield files
    except BaseException as error:
        if not store.holds(run_id):
            shutil.rmtree(files.folder, ignore_errors=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise StoreError(
                f"run {run_id} could not be written to {store.folder} ({error}): free some disk space and try again"
            ) from None
        raise
    finally:
        os.close(lock)


def _take_lock(files: RunPaths) -> int:
    """The run's lock: while it is held, the run cannot start and nobody else can archive or restore it."""
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
            f"the folder of run {files.run} cannot be written ({error}): make {files.folder.parent} writable"
        ) from None
    raise StoreError(f"run {files.run} is in use by another process: try again in a moment")


def _require_free(store: RunStore, run_id: str) -> None:
    if store.holds(run_id):
        raise StoreError(f"run {run_id} is in the store already: delete it before you import it again")


def sweep(store: RunStore) -> None:
    """Remove what a killed import, restore or archive left: events and files of a run without a row, parts of files."""
    _sweep_parts(store)
    for run_id in store.orphaned_events():
        with suppress(StoreError):  # it is being imported at this moment
            files = store.paths(run_id)
            lock = _take_lock(files)
            try:
                store.without_events(run_id)
                shutil.rmtree(files.folder, ignore_errors=True)
            finally:
                os.close(lock)


def _sweep_parts(store: RunStore) -> None:
    """Remove the incomplete files of killed calls of `archive`, which hold the lock of their run while they write."""
    for part in paths.archive(store.folder).glob(f"*{SUFFIX}.*.part"):
        run_id = part.name.partition(".")[0]
        with suppress(OSError):
            if is_run_id(run_id) and not locks.held(store.paths(run_id).lock):
                part.unlink()


# ---------------------------------------------------------------- archive and restore


def archive(store: RunStore, run_id: str) -> Path:
    """Archive a run that is over: a checked archive file, checkpoints included, replaces its row, events and folder.

    Raises:
        StoreError: It is not over, or its process still runs.
        ArchiveError: The file cannot be written; the run stays as it was.
    """
    _ended(store, run_id, "archived")
    _sweep_parts(store)
    files = store.paths(run_id)
    file = paths.archived(store.folder, run_id)
    lock = _take_lock(files)
    try:
        run = _ended(store, run_id, "archived")
        local = {
            "owner": run.owner, "attempt": run.attempt, "source": run.source, "data_folder": run.data_folder,
            "location": asdict(read_location(files)),
        }  # fmt: skip
        members = {path.name: path for path in (files.images, *_tensors(files))}
        members |= {path.name: path for name, path in files.checkpoints().items() if name != paths.LAST}
        with suppress(FileExistsError):
            file.parent.mkdir()
        written = write(store, run, file, members, local)
        try:
            if _events_in(file) != written:
                raise ArchiveError(f"{file} lacks events of run {run.id}: the run stays in the store; try again")
            store.delete(run.id, how="archived")
        except Exception:
            file.unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)
    return file


def restore(store: RunStore, run_id: str) -> Run:
    """Restore an archived run as it was, and remove its archive file.

    Raises:
        StoreError: It is not archived, or it is in the store.
        ArchiveError: The file is damaged; it is kept.
    """
    if not is_run_id(run_id):
        raise StoreError(f"{run_id!r} is not a run id: it must have eight letters a-z or digits 2-7")
    file = paths.archived(store.folder, run_id)
    if not file.is_file() and not store.holds(run_id):
        raise StoreError(
            f"run {run_id} is not archived in {store.folder}: `{PROGRAM} runs --archived` lists those that are"
        )
    with _incoming(store, run_id) as files, opened(file) as packed:
        header = header_of(packed, is_foreign=False)
        run = header.run
        if run.id != run_id:
            raise ArchiveError(f"{file} holds run {run.id}, not {run_id}: import the file instead")
        local = dict(header.local)
        location = location_of(local.pop("location", None))
        if location != RunLocation():
            keep_location(files, location)
        _fill(store, files, packed, header, replace(run, **local), False)
        file.unlink()
    return store.run(run_id)


def discard(store: RunStore, run_id: str) -> None:
    """Delete an archived run, even if its file is damaged. Raises StoreError if it is not archived here."""
    if not is_run_id(run_id) or store.holds(run_id) or not paths.archived(store.folder, run_id).is_file():
        raise StoreError(f"run {run_id} is not archived in {store.folder}: there is nothing to delete")
    paths.archived(store.folder, run_id).unlink(missing_ok=True)
    store.forget(run_id)


def archived(store: RunStore) -> list[Archived]:
    """The archived runs, the latest first; of each file only run.json is read."""
    entries = []
    for file in paths.archive(store.folder).glob(f"*{SUFFIX}"):
        if not is_run_id(file.stem) or store.holds(file.stem):
            continue
        try:
            file_stat = file.stat()
        except FileNotFoundError:  # restored at this moment
            continue
        entry = Archived(file.stem, file_stat.st_mtime, file_stat.st_size, store.owner_of_gone(file.stem))
        try:
            with opened(file) as packed:
                run, local, _ = header_of(packed, is_foreign=False)
        except ArchiveError as error:
            entries.append(replace(entry, trouble=str(error)))
        else:
            owner = entry.owner or local.get("owner", "")
            entries.append(replace(entry, owner=owner, task=run.config.task, status=run.status))
    return sorted(entries, key=lambda entry: entry.time, reverse=True)


def _unpacked(packed: Packed, files: RunPaths | None, is_foreign: bool) -> Iterator[tuple[Path, Iterable[bytes]]]:
    """The path in a run's folder of each member that is a file there, with its bytes, checked while they are read.

    Args:
        packed: The open archive file.
        files: Of the run, None to only check the content.
        is_foreign: The run comes from another store.
    """
    for name, size in packed.sizes.items():
        if name in (RUN, EVENTS):
            continue
        checked: Iterable[bytes]
        if name == IMAGES:
            checked = [checked_images(packed, is_foreign)]
        else:
            chunks = packed.chunks(name)
            checked = chunks if name == LOG else checked_tensors(name, size, chunks)
        if files is None:
            for _ in checked:
                pass
        else:
            yield _path_of(files, name), checked


def _path_of(files: RunPaths, name: str) -> Path:
    if epoch := EPOCH.fullmatch(name):
        return files.checkpoint_after(int(epoch[1]))
    return {path.name: path for path in (files.log, files.images, *_tensors(files))}[name]


def _tensors(files: RunPaths) -> tuple[Path, ...]:
    return files.adapter, files.best, files.checkpoint, files.start
