"""Database: the one SQLite file of a store. It is opened, brought up to date and locked here and nowhere else."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlae_lab import locks
from mlae_lab.errors import LabError
from mlae_lab.runs import paths
from mlae_lab.runs.schema import CHANGES, OLD_FILES, SCHEMA

TIMEOUT_SECONDS = 30.0  # seconds that a writer waits for another one


class StoreError(LabError):
    """A store that cannot be used, or a run that it does not hold; its text says what would work."""


class Database:
    """Open the file of a store in a folder, made if it is missing; one of an older lab is brought up to date.

    folder: every file of the store lies below it. Any number of processes may open it at once.
    Raises StoreError if the folder cannot be written or a newer lab made the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._anchor: sqlite3.Connection | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            version = self._version()
            if version < SCHEMA:
                with paths.making(self.folder).open("w") as turn:  # SQLite does not wait while the journal mode changes
                    fcntl.flock(turn, fcntl.LOCK_EX)
                    version = self._changed(self._version())
            if version > SCHEMA:
                raise StoreError(
                    f"{self.folder} was written by a newer lab (schema {version}, this one knows {SCHEMA}): "
                    "update this lab or choose another --store"
                )
            # While one connection has read, SQLite's two files beside the database exist: without it the first who
            # looks on a full disk could not make them, and nothing could be read.
            self._anchor = sqlite3.connect(
                paths.database(self.folder), timeout=TIMEOUT_SECONDS, check_same_thread=False
            )
            self._anchor.execute("SELECT COUNT(*) FROM runs").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.folder} cannot be used as a store ({error}): choose a writable folder") from None

    def __del__(self) -> None:
        if self._anchor is not None:
            self._anchor.close()

    def _version(self) -> int:
        with self._connection() as db:
            return db.execute("PRAGMA user_version").fetchone()[0]

    def _changed(self, version: int) -> int:
        """Bring the tables from a version to this lab's, all of it or nothing. Returns the version they have then."""
        if version == 0:
            with self._connection() as db:
                db.execute("PRAGMA journal_mode=WAL")
        with self._connection(write=True) as db:
            for number, statements in enumerate(CHANGES[version:], version + 1):
                if number == 6:
                    self._refuse_while_in_use(db)
                    self._rename_files()
                for statement in statements:
                    db.execute(statement)
                version = number
            db.execute(f"PRAGMA user_version={version}")
        return version

    def _refuse_while_in_use(self, db: sqlite3.Connection) -> None:
        """A process of an older lab would go on writing under the old names."""
        active = [
            run for (run,) in db.execute("SELECT id FROM runs WHERE status IN ('starting', 'running', 'stopping')")
        ]
        busy = [run for run in active if locks.held(paths.RunPaths(self.folder, run).lock)]
        if busy or locks.held(paths.supervisor_lock(self.folder)):
            who = f"run {busy[0]} of an older lab is" if busy else "the supervisor of an older lab is"
            raise StoreError(
                f"{self.folder} is in use: {who} still running; wait until it has finished, or stop it with that lab, "
                "and open the store again"
            )

    def _rename_files(self) -> None:
        for old, new in OLD_FILES.items():
            for file in self.folder.glob(f"runs/*/{old}"):
                file.rename(file.with_name(new))

    @contextmanager
    def _connection(
        self, write: bool = False, timeout: float = TIMEOUT_SECONDS, durable: bool = True
    ) -> Iterator[sqlite3.Connection]:
        """One transaction: committed on leaving, rolled back on an exception. write: locked from its beginning.
        patience: seconds to wait for another writer. lasting: it outlives a power cut, which costs a wait for the disk."""
        db = sqlite3.connect(paths.database(self.folder), timeout=timeout, isolation_level=None)
        try:
            db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            if not write:
                yield db
                return
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()

    def sync(self) -> None:
        """Have everything that was written until now on the disk itself. Raises OSError."""
        with suppress(FileNotFoundError):
            log = os.open(f"{paths.database(self.folder)}-wal", os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)

    def trouble(self) -> str | None:
        """What SQLite finds wrong with the file, in its own words; None if it is whole. Reads all of it."""
        try:
            with self._connection() as db:
                said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return None if said == "ok" else said
