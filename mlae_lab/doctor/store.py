"""The section Store: whether its folder can be used, whether its database is whole, and how to mend it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core.units import format_bytes
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, trouble
from mlae_lab.doctor.folders import bytes_of, database_files, write_problem
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.store import RunStore, StoreError

LARGE_WAL = 100_000_000  # bytes
LARGE_DATABASE = 300_000_000  # bytes; reading all of a larger one takes longer than a quick look may
_OTHER_STORE = "name a folder of yours with `MLAE_LAB_STORE` or `--store`"
_NO_STORE = "no store yet: the first run makes it"


def section(context: Context) -> Iterator[Finding]:
    """The folder, its locks, the schema and the health of the database. Opens the store, which the runs need."""
    folder = context.folder
    if problem := write_problem(folder):
        yield trouble("folder", f"{folder} {problem}", _OTHER_STORE)
    else:
        chosen = " (MLAE_LAB_STORE)" if context.asked is None and os.environ.get("MLAE_LAB_STORE") else ""
        yield good("folder", f"{folder}{chosen}")
    if not folder.is_dir():
        if not problem:
            yield good("store", _NO_STORE)
        return
    if not problem:
        if knows_locks(folder):
            yield good("locks", "the file system knows them")
        else:
            yield trouble(
                "locks",
                "this file system knows no locks, so a run that lives cannot be told from one that is dead",
                "put the store on a local disk with `MLAE_LAB_STORE`",
            )
    file, wal, _ = database_files(folder)
    if not file.exists():
        yield good("store", _NO_STORE)
        return
    try:
        context.store = RunStore(folder)
    except StoreError as error:
        context.damaged = True
        said, _, cure = str(error).rpartition(": ")
        hurt = re.search("malformed|not a database|disk image", said)
        yield trouble("store", said, _begin_anew(folder) if hurt else cure)
        return
    yield good("schema", f"{SCHEMA}, the one that this lab writes")
    yield _health(context, bytes_of(file, wal))
    if bytes_of(wal) > LARGE_WAL:
        yield note(
            "write-ahead log",
            f"{wal.name} has {format_bytes(bytes_of(wal))}",
            "it empties itself when the last process of the lab has closed the store: let runs end and stop the server",
        )


def _health(context: Context, size: int) -> Finding:
    assert context.store is not None
    if size > LARGE_DATABASE and not context.deep:
        return note(
            "health",
            f"not read: the database has {format_bytes(size)}",
            "`mlae_lab doctor --deep` reads all of it",
        )
    wrong = context.store.trouble()
    if wrong is None:
        return good("health", "the database is whole")
    context.damaged = True
    return trouble("health", f"the database is damaged: {wrong[:300]}", _rescue(context.folder))


# .recover of sqlite3 3.40 gives up on our tables; .dump reads past damaged pages, ends in ROLLBACK and
# forgets the version
RESCUE = (
    "(sqlite3 lab.sqlite .dump | sed 's/^ROLLBACK.*/COMMIT;/'; "
    f"echo 'PRAGMA user_version={SCHEMA}; PRAGMA journal_mode=WAL;') | sqlite3 new.sqlite"
)


def _rescue(folder: Path) -> str:
    return (
        f"stop the server and all runs, copy lab.sqlite, lab.sqlite-wal and lab.sqlite-shm in {folder} away, type "
        f"`{RESCUE}` there, and put new.sqlite in the place of the three"
    )


def _begin_anew(folder: Path) -> str:
    """For a file whose first page is gone: without it no table can be found."""
    return (
        f"put a copy back if you have one; else stop the server and all runs and move lab.sqlite, lab.sqlite-wal and "
        f"lab.sqlite-shm out of {folder}: the lab begins an empty list of runs, and what they saved stays in "
        f"{folder / 'runs'}"
    )


def knows_locks(folder: Path) -> bool:
    """Whether a lock that is held in this folder is seen by who opens the file anew."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".locks-") as file:
        try:
            lock = locks.take(Path(file.name))
            if lock is None:
                return False
            try:
                return locks.held(Path(file.name))
            finally:
                os.close(lock)
        except OSError:
            return False
