"""Database: the SQLite file of a store. It is opened, migrated and locked only here."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mlae_lab import locks
from mlae_lab.errors import LabError
from mlae_lab.file_locking import fcntl
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paths
from mlae_lab.runs.schema import CHANGES, OLD_FILES, SCHEMA

TIMEOUT_SECONDS = 30.0  # seconds that a writer waits for another one
_LONGEST_PATH = 493  # bytes of a store's folder: SQLite opens no file whose path is longer than 504
_FULL_BYTES = 100_000  # a disk with less free space is full: SQLite's shared memory alone takes 32 KB


class StoreError(LabError):
    """A store that cannot be used, or a run that it does not have."""


class Database:
    """The database of a store; created if it is missing, migrated if an older version wrote it.

    Any number of processes may open it at once. A store that this process must not write can be read.

    Args:
        folder: Of the store; all its files are below it.
        recover: Create a missing database even next to the folders of runs, which `runs.recovery` then registers.

    Raises:
        StoreError: The store cannot be opened, or a newer version wrote it; the message gives cause and cure.
    """

    def __init__(self, folder: Path, recover: bool = False) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._anchor: sqlite3.Connection | None = None
        self._is_full = False  # the disk had no space for SQLite's -shm file when the store was opened
        try:
            if not self.is_read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            if not recover and is_missing(self.folder):  # opening an empty database would discard its write-ahead log
                self._refuse_unknown_runs()
            version = self._version()
            if version < SCHEMA:
                if self.is_read_only:
                    if version == 0:
                        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                    raise StoreError(
                        f"{self.folder} was written by an earlier version and is read-only, so it cannot be migrated: "
                        "copy it to a writable folder and open the copy"
                    )
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
            anchor = self._connected(write=False)
            anchor.execute("SELECT COUNT(*) FROM runs").fetchone()
            self._anchor = anchor
        except (OSError, sqlite3.Error) as error:
            raise StoreError(_problem(self.folder, error)) from None

    @property
    def is_read_only(self) -> bool:
        """Whether the store exists and this process must not write its database."""
        file = paths.database(self.folder)
        try:
            exists = file.is_file()
        except OSError:
            return False
        return exists and not (_may_write(self.folder, os.W_OK | os.X_OK) and _may_write(file))

    def require_writable(self) -> None:
        """Raise StoreError for a store that can only be read."""
        if self.is_read_only:
            raise StoreError(
                f"{self.folder} is read-only: its runs can be read and exported; to start or change one, choose a "
                "writable --store"
            )

    def __del__(self) -> None:
        if self._anchor is not None:
            self._anchor.close()

    def _refuse_unknown_runs(self) -> None:
        """Raise StoreError if there are folders of runs, which a new database would not know."""
        if lost := trained_runs(self.folder):
            raise StoreError(
                f"{paths.database(self.folder)} is missing or empty, and {self.folder / 'runs'} still holds "
                f"{len(lost)} trained run{'s' if len(lost) != 1 else ''}: restore the file from a backup, or register "
                f"the runs again with `{PROGRAM} doctor --recover --store {self.folder}`"
            )

    def _version(self) -> int:
        def version() -> int:
            with closing(self._connected(write=False)) as db:
                return db.execute("PRAGMA user_version").fetchone()[0]

        try:
            return version()
        except sqlite3.OperationalError:
            if self._is_full or not _is_full(self.folder):
                raise
            self._is_full = True
            return version()

    def _migrate(self, version: int) -> int:
        """Migrate the tables from a version to `SCHEMA` in one transaction. Returns their version afterwards."""
        old, left = version, ()
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
            if 0 < old < 9:
                from mlae_lab.runs import preset_migration  # only here: it needs what is built on this module

                left = preset_migration.migrate(db)
            db.execute(f"PRAGMA user_version={version}")
            if old < 6:  # last: a statement that fails leaves the files as the older version knows them
                self._rename_files()
        if left:
            from mlae_lab.runs import preset_migration

            preset_migration.record(self.folder, left)
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
        if write:
            self.require_writable()
        db = self._connected(write, timeout)
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
            self._is_full = False
        except sqlite3.OperationalError as error:
            if "I/O error" in str(error) and _is_full(self.folder):  # SQLite could not create its -shm file
                raise sqlite3.OperationalError("database or disk is full") from None
            raise
        finally:
            db.close()

    def _connected(self, write: bool, timeout: float = TIMEOUT_SECONDS) -> sqlite3.Connection:
        """A new connection.

        In write-ahead mode SQLite writes even to read. Where that is impossible, an existing log is read with
        mode=ro, and without one the database is complete and nobody changes it: immutable.
        """
        file = paths.database(self.folder)
        if write or not (self._is_full or self.is_read_only):
            address = str(file)
        else:
            address = f"{file.as_uri()}?{'mode=ro' if _has_log(file) else 'immutable=1'}"
        db = sqlite3.connect(
            address, uri=address != str(file), timeout=timeout, isolation_level=None, check_same_thread=False
        )
        db.text_factory = _text
        return db

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


# ---------------------------------------------------------------- access to the files


def is_missing(folder: Path) -> bool:
    """Whether a folder has no database, or an empty file in its place. Raises OSError if that is not known."""
    try:
        return paths.database(folder).stat().st_size == 0
    except FileNotFoundError:
        return True


def _has_log(file: Path) -> bool:
    """Whether there are changes that are only in the write-ahead log."""
    try:
        return file.with_name(f"{file.name}-wal").stat().st_size > 0
    except OSError:
        return False


def _may_write(path: Path, how: int = os.W_OK) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES


# ---------------------------------------------------------------- causes and cures


def _problem(folder: Path, error: OSError | sqlite3.Error) -> str:
    """Why a store cannot be opened and what would work, in one sentence."""
    cause, cure = _cause(folder, error)
    return f"{folder} cannot be used as a store ({cause}): {cure}"


def _cause(folder: Path, error: OSError | sqlite3.Error) -> tuple[str, str]:
    file, text = paths.database(folder), str(error) if isinstance(error, sqlite3.Error) else ""
    number = error.errno if isinstance(error, OSError) else None
    length = len(os.fsencode(folder))
    if number == errno.ENAMETOOLONG or length > _LONGEST_PATH:
        return f"its path is too long, {length:,} bytes", "choose a shorter path"
    if any(words in text for words in ("malformed", "not a database", "no such table", "no such column")):
        return (
            f"{file.name} is damaged or another program's: {text}",
            f"restore a backup of it, or move it away and register the runs again with `{PROGRAM} doctor --recover "
            f"--store {folder}`",
        )
    if "locked" in text:
        return f"another program has locked {file.name}", "try again when that program has finished"
    if number in (errno.ENOSPC, errno.EDQUOT) or "full" in text:
        return "its disk is full", "free some space there"
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        return f"{nearest} is not a folder", "choose a folder"
    if os.path.lexists(file) and not file.is_file():
        return f"{file.name} in it is not a file", "choose another folder"
    if _has_log(file) and not _may_write(folder):
        return (
            f"it is read-only, and its last changes are in {file.name}-wal, which can only be read together with "
            f"{file.name}-shm",
            "copy the folder to a writable place and open the copy",
        )
    if number == errno.EROFS or (not _may_write(nearest) and os.statvfs(nearest).f_flag & os.ST_RDONLY):
        return "its file system is read-only, and there is no store on it", "choose a folder on another disk"
    if number in (errno.EACCES, errno.EPERM) or not _may_write(nearest, os.W_OK | os.X_OK):
        return f"no permission to write in {nearest}", "choose a folder of yours, or change its permissions"
    if file.exists() and not os.access(file, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"no permission to read {file.name}", "change its permissions, or choose another store"
    if _is_full(nearest):
        return "its disk is full", "free some space there"
    return str(error), f"run `{PROGRAM} doctor` to find the cause, or choose another store"


# ---------------------------------------------------------------- content


def _text(raw: bytes) -> str:
    """A stored text. A damaged byte becomes "\ufffd", which the lab never stores, and hides no other row."""
    return raw.decode(errors="replace")


def require_intact(text: object) -> str:
    """A stored text of JSON, in which the lab writes no "\ufffd". Raises ValueError for another value."""
    if not isinstance(text, str):
        raise ValueError("it is not a text")
    if "\ufffd" in text:
        raise ValueError("it has a byte that is not UTF-8")
    return text


def trained_runs(folder: Path) -> list[str]:
    """The ids under which a store has a run's folder with an adapter or a checkpoint; links are not followed."""
    try:
        with os.scandir(folder / "runs") as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    runs = [paths.RunPaths(folder, name) for name in sorted(names) if paths.is_run_id(name)]
    return [files.run for files in runs if files.adapter.is_file() or files.checkpoints()]
