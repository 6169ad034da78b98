"""Database: the SQLite file of a store. It is opened, migrated and locked only here."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlae_lab import locks
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paths
from mlae_lab.runs.schema import CHANGES, OLD_FILES, SCHEMA

TIMEOUT_SECONDS = 30.0  # seconds that a writer waits for another one


class StoreError(LabError):
    """A store that cannot be used, or a run that it does not have."""


class Database:
    """The database of a store; created if it is missing, migrated if an older version wrote it.

    Any number of processes may open it at once.

    Args:
        folder: Of the store; all its files are below it.
        recover: Create a missing database even beside the folders of runs, which `runs.recovery` then registers.

    Raises:
        StoreError: The folder cannot be written, or a newer version wrote the store.
    """

    def __init__(self, folder: Path, recover: bool = False) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._anchor: sqlite3.Connection | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not recover and self._is_missing():  # opening an empty database would discard its write-ahead log
                self._refuse_unknown_runs()
            version = self._version()
            if version < SCHEMA:
                with paths.making(self.folder).open("w") as lock:  # SQLite does not wait while the journal mode changes
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    version = self._version()
                    if version == 0 and not recover:
                        self._refuse_unknown_runs()
                    version = self._migrate(version)
            if version > SCHEMA:
                raise StoreError(
                    f"{self.folder} was written by a newer version (schema {version}, this one reads {SCHEMA}): "
                    "update MLAE Lab or choose another --store"
                )
            # An open connection that has read keeps SQLite's -wal and -shm files in existence. Without them, reading
            # would fail on a full disk, where they cannot be created.
            self._anchor = sqlite3.connect(
                paths.database(self.folder), timeout=TIMEOUT_SECONDS, check_same_thread=False
            )
            self._anchor.execute("SELECT COUNT(*) FROM runs").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.folder} cannot be used as a store ({error}): choose a writable folder") from None

    def __del__(self) -> None:
        if self._anchor is not None:
            self._anchor.close()

    def _is_missing(self) -> bool:
        try:
            return paths.database(self.folder).stat().st_size == 0
        except FileNotFoundError:
            return True

    def _refuse_unknown_runs(self) -> None:
        """Raise StoreError if there are folders of runs, which a new database would not know."""
        if lost := trained_runs(self.folder):
            raise StoreError(
                f"{paths.database(self.folder)} is missing or empty, and {self.folder / 'runs'} still holds "
                f"{len(lost)} trained run{'s' if len(lost) != 1 else ''}: restore the file from a backup, or register "
                f"the runs again with `{PROGRAM} doctor --recover --store {self.folder}`"
            )

    def _version(self) -> int:
        with self._connection() as db:
            return db.execute("PRAGMA user_version").fetchone()[0]

    def _migrate(self, version: int) -> int:
        """Migrate the tables from a version to `SCHEMA` in one transaction. Returns their version afterwards."""
        old = version
        if version == 0:
            with self._connection() as db:
                db.execute("PRAGMA journal_mode=WAL")
        with self._connection(write=True) as db:
            for number, statements in enumerate(CHANGES[version:], version + 1):
                if number == 6:
                    self._refuse_while_in_use(db)
                for statement in statements:
                    db.execute(statement)
                version = number
            db.execute(f"PRAGMA user_version={version}")
            if old < 6:  # last: a statement that fails leaves the files as the older version knows them
                self._rename_files()
        return version

    def _refuse_while_in_use(self, db: sqlite3.Connection) -> None:
        """Processes of the older version would continue to write under the old names."""
        active = [
            run for (run,) in db.execute("SELECT id FROM runs WHERE status IN ('starting', 'running', 'stopping')")
        ]
        busy = [run for run in active if locks.held(paths.RunPaths(self.folder, run).lock)]
        if busy or locks.held(paths.supervisor_lock(self.folder)):
            process = f"run {busy[0]}" if busy else "the supervisor"
            raise StoreError(
                f"{self.folder} is in use by {process} of an older version: wait until it has finished, or stop it "
                "with that version, and open the store again"
            )

    def _rename_files(self) -> None:
        for old, new in OLD_FILES.items():
            for file in self.folder.glob(f"runs/*/{old}"):
                file.rename(file.with_name(new))

    @contextmanager
    def _connection(
        self, write: bool = False, timeout: float = TIMEOUT_SECONDS, durable: bool = True
    ) -> Iterator[sqlite3.Connection]:
        """One transaction: committed on leaving, rolled back on an exception.

        Args:
            write: Lock the database from the start.
            timeout: Seconds to wait for another writer.
            durable: Wait until it is on the disk, so that it survives a power failure.
        """
        db = sqlite3.connect(paths.database(self.folder), timeout=timeout, isolation_level=None)
        db.text_factory = _text
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
        """Flush everything written so far to the disk. Raises OSError."""
        with suppress(FileNotFoundError):
            log = os.open(f"{paths.database(self.folder)}-wal", os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)

    def trouble(self) -> str | None:
        """SQLite's message about damage in the file, None if it is intact. Reads all of it."""
        try:
            with self._connection() as db:
                message = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return None if message == "ok" else message


def _text(raw: bytes) -> str:
    """A stored text. A damaged byte becomes "\ufffd", which the lab never stores, and hides no other row."""
    return raw.decode(errors="replace")


def trained_runs(folder: Path) -> list[str]:
    """The ids under which a store has a run's folder with an adapter or a checkpoint; links are not followed."""
    try:
        with os.scandir(folder / "runs") as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    runs = [paths.RunPaths(folder, name) for name in sorted(names) if paths.is_run_id(name)]
    return [files.run for files in runs if files.adapter.is_file() or files.checkpoints()]
