"""RunStore: the record of all runs, in one SQLite file. The only SQL of the lab.

    runs    one row per run: id, created, config (JSON, frozen), config_hash, status, reason,
            device ("cpu" or "cuda"), pid, started, ended (seconds since 1970)
    events  append-only: id (rises over all runs), run, kind, epoch, step, time, payload (JSON)

Who writes what: `enqueue` makes the row; after that only the run's own process appends events and
moves the status forward, with two exceptions: a person asks to stop (queued or running), and
`mark_gone` closes a run whose process is provably dead. A final status never changes. Readers
ask for events after the last id they saw.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.runs import paths
from mlae_lab.runs.status import ACTIVE, Status

SCHEMA = 1
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FINAL = tuple(s.value for s in Status if s.is_over)

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL,
    config TEXT NOT NULL, config_hash TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    device TEXT NOT NULL, pid INTEGER, started REAL, ended REAL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, kind TEXT NOT NULL, epoch INTEGER, step INTEGER,
    time REAL NOT NULL, payload TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_run ON events (run, id);
CREATE INDEX IF NOT EXISTS events_of_kind ON events (run, kind, id);
"""


class StoreError(RuntimeError):
    """A store that cannot be used, or a run that it does not hold; its text says what would work."""


@dataclass(frozen=True)
class Run:
    """One row. reason: one sentence for failed, lost and stopped. Times in seconds since 1970."""

    id: str
    created: float
    config: RunConfig
    config_hash: str
    status: Status
    reason: str
    device: str
    pid: int | None
    started: float | None
    ended: float | None


@dataclass(frozen=True)
class Stored:
    """An event with its place in the log. id: rises; time: seconds since 1970."""

    id: int
    time: float
    event: ev.Event


class RunStore:
    """Open the store in a folder, made if it is missing.

    folder: every file of the store lies below it. Any number of processes may open it at once.
    Raises StoreError if the folder cannot be written or a newer lab made the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            version = self._version()
            if version < SCHEMA:
                with paths.making(self.folder).open("w") as turn:  # SQLite does not wait while the journal mode changes
                    fcntl.flock(turn, fcntl.LOCK_EX)
                    version = self._version() or self._make()
            if version > SCHEMA:
                raise StoreError(
                    f"{self.folder} was written by a newer lab (schema {version}, this one knows {SCHEMA}): "
                    "update this lab or choose another --store"
                )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.folder} cannot be used as a store ({error}): choose a writable folder") from None

    def _version(self) -> int:
        with self._connection() as db:
            return db.execute("PRAGMA user_version").fetchone()[0]

    def _make(self) -> int:
        with self._connection() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_TABLES)
            db.execute(f"PRAGMA user_version={SCHEMA}")
        return SCHEMA

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed on leaving, rolled back on an exception."""
        db = sqlite3.connect(paths.database(self.folder), timeout=30)
        try:
            db.execute("PRAGMA synchronous=NORMAL")
            with db:
                yield db
        finally:
            db.close()

    def paths(self, run: str) -> paths.RunPaths:
        return paths.RunPaths(self.folder, run)

    # ------------------------------------------------------------ writing

    def reserve(self) -> str:
        """A new run's name and folder, before the run itself exists."""
        run = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        self.paths(run).folder.mkdir(parents=True)
        return run

    def enqueue(self, config: RunConfig, device: str, run: str | None = None) -> Run:
        """Record a run as queued, its config frozen.

        device: "cpu" or "cuda". run: a reserved name, by default a new one. Returns the run.
        """
        run = run or self.reserve()
        with self._connection() as db:
            db.execute(
                "INSERT INTO runs (id, created, config, config_hash, status, device) VALUES (?, ?, ?, ?, ?, ?)",
                (run, time.time(), json.dumps(config.to_dict()), config.hash, Status.QUEUED.value, device),
            )
        return self.run(run)

    def claim(self, run: str, pid: int) -> bool:
        """Move a queued run to starting if it is first in its device's queue and the device is free.

        One statement, so of any number of callers one wins. Called by the run's own process.
        """
        busy = ", ".join(f"'{s.value}'" for s in ACTIVE)
        with self._connection() as db:
            won = db.execute(
                f"""UPDATE runs SET status = 'starting', pid = :pid, started = (julianday('now') - 2440587.5) * 86400
                    WHERE id = :run AND status = 'queued'
                    AND NOT EXISTS (SELECT 1 FROM runs AS o WHERE o.device = runs.device AND o.status IN ({busy}))
                    AND number = (SELECT MIN(number) FROM runs AS o WHERE o.device = runs.device AND o.status = 'queued')
                """,
                {
                    "pid": pid,
                    "run": run,
                },  # the clock is SQLite's, read when the lock is held: starts are in queue order
            )
            return won.rowcount == 1

    def move(self, run: str, to: Status, reason: str = "", only_from: Sequence[Status] = ()) -> bool:
        """Change a status that is not final. only_from: the states from which this move is meant.

        Returns whether the run moved.
        """
        allowed = [s.value for s in (only_from or tuple(s for s in Status if not s.is_over)) if not s.is_over]
        marks = ", ".join("?" * len(allowed))
        with self._connection() as db:
            moved = db.execute(
                f"UPDATE runs SET status = ?, reason = ?, ended = ? WHERE id = ? AND status IN ({marks})",
                (to.value, reason, time.time() if to.is_over else None, run, *allowed),
            )
            return moved.rowcount == 1

    def append(self, run: str, events: Sequence[ev.Event]) -> None:
        """Write events in one transaction."""
        now = time.time()
        rows = [(run, e.kind, getattr(e, "epoch", None), getattr(e, "step", None), now, ev.to_json(e)) for e in events]
        with self._connection() as db:
            db.executemany("INSERT INTO events (run, kind, epoch, step, time, payload) VALUES (?, ?, ?, ?, ?, ?)", rows)

    def delete(self, run: str) -> None:
        """Forget a run that is over: its row, its events and its folder. Raises StoreError if it is not over."""
        found = self.run(run)
        if not found.status.is_over:
            raise StoreError(f"run {run} is {found.status.value}: stop it before you delete it")
        with self._connection() as db:
            db.execute("DELETE FROM events WHERE run = ?", (run,))
            db.execute("DELETE FROM runs WHERE id = ?", (run,))
        shutil.rmtree(self.paths(run).folder, ignore_errors=True)

    # ------------------------------------------------------------ reading

    def run(self, run: str) -> Run:
        """One run. Raises StoreError, with what would work, for a name that is not in the store."""
        if not paths.is_run_id(run):
            raise StoreError(f"{run!r} is not the name of a run: it has eight letters a-z or digits 2-7")
        with self._connection() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise StoreError(f"run {run} is not in {self.folder}: it was deleted, or it lies in another store")
        return _run(row)

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        with self._connection() as db:
            return [_run(row) for row in db.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number DESC")]

    def events(self, run: str, after: int = 0, kinds: Sequence[str] = ()) -> list[Stored]:
        """Events of a run in order, only those with an id above `after` and, if given, of these kinds."""
        chosen = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        with self._connection() as db:
            rows = db.execute(
                f"SELECT id, time, kind, payload FROM events WHERE run = ? AND id > ?{chosen} ORDER BY id",
                (run, after, *kinds),
            )
            return [Stored(number, at, ev.from_json(kind, payload)) for number, at, kind, payload in rows]

    def last(self, run: str, kind: str) -> ev.Event | None:
        """The newest event of one kind, None if there is none."""
        with self._connection() as db:
            row = db.execute(
                "SELECT payload FROM events WHERE run = ? AND kind = ? ORDER BY id DESC LIMIT 1", (run, kind)
            ).fetchone()
        return None if row is None else ev.from_json(kind, row[0])


_COLUMNS = "id, created, config, config_hash, status, reason, device, pid, started, ended"


def _run(row: tuple) -> Run:
    number, created, config, config_hash, status, *rest = row
    return Run(number, created, RunConfig.from_dict(json.loads(config)), config_hash, Status(status), *rest)
