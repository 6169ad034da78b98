"""The section Store: whether its folder is usable and its database intact, and how to repair it."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core.units import format_bytes
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, trouble
from mlae_lab.doctor.folders import bytes_of, database_files, write_problem
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.database import is_missing, trained_runs
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.store import RunStore, StoreError

LARGE_WAL = 100_000_000  # bytes
LARGE_DATABASE = 300_000_000  # bytes; a larger one is read completely only by a deep examination
_OTHER_STORE = "name a folder of yours with `MLAE_LAB_STORE` or `--store`"
_NO_STORE = "no store yet: the first run creates it"


def section(context: Context) -> Iterator[Finding]:
    """The folder, its locks, the schema and the health of the database. Opens the store for the section Runs."""
    folder = context.folder
    if problem := write_problem(folder):
        yield trouble("folder", f"{folder} {problem}", _OTHER_STORE)
    else:
        chosen = " (MLAE_LAB_STORE)" if context.requested is None and os.environ.get("MLAE_LAB_STORE") else ""
        yield good("folder", f"{folder}{chosen}")
    if not folder.is_dir():
        if not problem:
            yield good("store", _NO_STORE)
        return
    if not problem:
        if supports_locks(folder):
            yield good("locks", "supported by the file system")
        else:
            yield trouble(
                "locks",
                "this file system does not support locks, so the lab cannot tell whether a run is alive",
                "put the store on a local disk with `MLAE_LAB_STORE`",
            )
    file, wal, _ = database_files(folder)
    missing = is_missing(folder)
    if missing and not trained_runs(folder):  # else opening it says what is wrong
        yield good("store", _NO_STORE)
        return
    version = 0 if missing else _version(file, wal)
    if 0 < version < SCHEMA:
        context.outdated = True
        yield note(
            "schema", f"{version}: this version migrates it when it opens it", f"`{PROGRAM} runs` opens and migrates it"
        )
        return
    try:
        context.store = RunStore(folder)
    except StoreError as error:
        context.damaged = True
        problem, _, cure = str(error).rpartition(": ")
        unreadable = re.search("malformed|not a database|disk image", problem)
        yield trouble("store", problem, _start_over(folder) if unreadable else cure)
        return
    yield good("schema", f"{SCHEMA}, the current one")
    yield _health(context, bytes_of(file, wal))
    if bytes_of(wal) > LARGE_WAL:
        yield note(
            "write-ahead log",
            f"{wal.name} has {format_bytes(bytes_of(wal))}",
            "it is emptied when the last process of the lab closes the store: let the runs finish and stop the server",
        )


def _version(file: Path, wal: Path) -> int:
    """The version of the tables, 0 if it cannot be read. Changes nothing, unlike opening the store."""
    mode = "mode=ro" if bytes_of(wal) else "immutable=1"  # without a log, mode=ro would leave an empty one behind
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True)) as db:
            return db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error:
        return 0  # the store says what is wrong when it is opened


def _health(context: Context, size: int) -> Finding:
    assert context.store is not None
    if size > LARGE_DATABASE and not context.deep:
        return note(
            "health",
            f"not read: the database has {format_bytes(size)}",
            f"`{PROGRAM} doctor --deep` reads all of it",
        )
    problem = context.store.trouble()
    if problem is None:
        return good("health", "the database is intact")
    context.damaged = True
    return trouble("health", f"the database is damaged: {problem[:300]}", _rescue(context.folder))


# .recover of sqlite3 3.40 fails on these tables; .dump reads past damaged pages, but ends with ROLLBACK and
# omits the version
RESCUE = (
    "(sqlite3 lab.sqlite .dump | sed 's/^ROLLBACK.*/COMMIT;/'; "
    f"echo 'PRAGMA user_version={SCHEMA}; PRAGMA journal_mode=WAL;') | sqlite3 new.sqlite"
)


def _rescue(folder: Path) -> str:
    return (
        f"stop the server and all runs, copy lab.sqlite, lab.sqlite-wal and lab.sqlite-shm in {folder} elsewhere, type "
        f"`{RESCUE}` there, and replace the three files with new.sqlite"
    )


def _start_over(folder: Path) -> str:
    """The cure for a file whose first page is lost: without it no table can be read."""
    return (
        f"restore a backup if you have one; else stop the server and all runs and move lab.sqlite, lab.sqlite-wal and "
        f"lab.sqlite-shm out of {folder}; then `{PROGRAM} doctor --recover --store {folder}` registers the runs again "
        "that have a checkpoint"
    )


def supports_locks(folder: Path) -> bool:
    """Whether a lock that is held in this folder is visible to a second opening of the file."""
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
