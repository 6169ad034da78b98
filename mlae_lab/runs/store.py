"""RunStore: the record of all runs, in one SQLite file (`runs.schema`, `runs.database`).

Who writes what: `enqueue` makes the row; the store's supervisor gives it its turn; after that only the run's own
process appends events and moves the status forward, with three exceptions: a person asks to stop or to resume,
and the supervisor closes a run whose process is provably dead. Readers ask for events after the last id they saw.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice
from typing import Generic, TypeVar, overload

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.errors import LabError
from mlae_lab.runs import paths
from mlae_lab.runs.database import TIMEOUT_SECONDS, StoreError
from mlae_lab.runs.fair_queue import fair_order
from mlae_lab.runs.library import MaskLibrary
from mlae_lab.runs.status import ACTIVE, RESUMABLE, Status

_AT_ONCE = 2000  # events of a run from elsewhere
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FINAL = tuple(s.value for s in Status if s.is_over)


@dataclass(frozen=True)
class Origin:
    """Where a run comes from. parent: the run that it was made from, "" for none; relation: "retry", "duplicate",
    "paired", "repeat", "race", "diversity", "branched" or "imported"; source: for "branched" the parent's checkpoint, as
    `RunPaths.checkpoints` names it, for "race" and "paired" a mark that the runs of one start share."""

    parent: str = ""
    relation: str = ""
    source: str = ""


NO_ORIGIN = Origin()


@dataclass(frozen=True)
class Run:
    """One row. config: as enqueued, with the label and notes of the images that training found where these had changed
    meanwhile; config_hash: as enqueued. reason: one sentence for failed, lost and stopped. Times in seconds since 1970. slot: the device it
    has or had. attempt: how often it was started. owner: a visitor's id, "cli:NAME", or "" where nobody knows."""

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
    position: float = 0.0
    owner: str = ""
    slot: str | None = None
    turn: int = 0
    attempt: int = 0
    parent: str = ""
    relation: str = ""
    source: str = ""
    data_folder: str = ""
    dataset: str = ""


E_co = TypeVar("E_co", bound=ev.Event, covariant=True)


@dataclass(frozen=True)
class Stored(Generic[E_co]):
    """An event with its place in the log. id: rises; time: seconds since 1970."""

    id: int
    time: float
    event: E_co


@dataclass(frozen=True)
class Visitor:
    """A browser. draft: JSON of its draft, "" for none. seen: seconds since 1970."""

    id: str
    nickname: str = ""
    draft: str = ""
    seen: float = 0.0


class RunStore(MaskLibrary):
    """What a lab remembers: runs, their queue and events, people and, as `MaskLibrary`, the saved masks.

    folder: every file of the store lies below it. Any number of processes may open it at once. Raises as `Database`.
    """

    def paths(self, run: str) -> paths.RunPaths:
        return paths.RunPaths(self.folder, run)

    # ------------------------------------------------------------ runs

    def reserve(self) -> str:
        """A new run's name and folder, before the run itself exists."""
        run = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        self.paths(run).folder.mkdir(parents=True)
        return run

    def enqueue(
        self,
        config: RunConfig,
        device: str,
        owner: str = "",
        origin: Origin = NO_ORIGIN,
        data_folder: str = "",
        run: str | None = None,
    ) -> Run:
        """Record a run as queued, its config frozen, behind all that wait.

        device: "cpu" or "cuda". data_folder: where its process looks for images, "" for the usual place. run: a
        reserved name, by default a new one.
        """
        run = run or self.reserve()
        with self._connection(write=True) as db:
            db.execute(
                f"""INSERT INTO runs (id, created, config, config_hash, status, device, owner, parent, relation, source,
                    data_folder, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_BEHIND_ALL})""",
                (run, time.time(), json.dumps(config.to_dict()), config.hash, Status.QUEUED.value, device, owner,
                 origin.parent, origin.relation, origin.source, data_folder),
            )  # fmt: skip
        return self.run(run)

    def insert(self, run: Run, events: Iterable[tuple[float, ev.Event]]) -> None:
        """Put a run that is over, with its past, into the store: one that comes from elsewhere. events: (time, event),
        read a few at a time; no other writer waits for all of them, and nobody sees the run before they are there.

        Raises StoreError if its name is taken.
        """
        columns = [name for name in _NAMES if name not in ("position", "pid", "turn", "slot", "dataset")]
        values = {name: getattr(run, name) for name in columns}
        values |= {"config": json.dumps(run.config.to_dict()), "status": run.status.value}
        self.without_events(run.id)  # of a process that was killed while it did the same
        try:
            rest = iter(events)
            while some := list(islice(rest, _AT_ONCE)):
                with self._connection(write=True) as db:
                    _insert_events(db, run.id, some)
            with self._connection(write=True) as db:
                db.execute(
                    f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)})", values
                )
                db.execute("DELETE FROM gone WHERE id = ?", (run.id,))
        except BaseException:
            with suppress(StoreError, sqlite3.Error):
                self.without_events(run.id)
            raise

    def without_events(self, run: str) -> None:
        """Drop the events of a run that is not in the store. Raises StoreError if it is."""
        with self._connection(write=True) as db:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone():
                raise StoreError(f"run {run} is in {self.folder} already")
            db.execute("DELETE FROM events WHERE run = ?", (run,))

    def run(self, run: str) -> Run:
        """One run. Raises StoreError, with what would work, for a name that is not in the store."""
        if not paths.is_run_id(run):
            raise StoreError(f"{run!r} is not the name of a run: it has eight letters a-z or digits 2-7")
        with self._connection() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (run,)).fetchone()
            gone = None if row else db.execute("SELECT time, how FROM gone WHERE id = ?", (run,)).fetchone()
        if gone is not None:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(gone[0]))
            back = (
                f": `mlae_lab restore {run}` brings it back" if gone[1] == "archived" else " and cannot be brought back"
            )
            raise StoreError(f"run {run} was {gone[1]} on {when}{back}")
        if row is None:
            raise StoreError(f"run {run} is not in {self.folder}: it was never there, or it lies in another store")
        try:
            return _run(row)
        except (LabError, ValueError) as error:
            raise StoreError(
                f"run {run} cannot be read by this lab ({error}): the lab that made it can, update this one"
            ) from None

    def holds(self, run: str) -> bool:
        """Whether the store has a run of that name, be it one that only a newer lab can read."""
        with self._connection() as db:
            return db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is not None

    def runs(self) -> list[Run]:
        """All runs, newest first; one that only a newer lab can read is passed over (`unread`)."""
        with self._connection() as db:
            return _readable(db.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number DESC"))

    def unread(self, statuses: Sequence[Status] = ()) -> list[str]:
        """The names of runs that only a newer lab can read. statuses: only those of them, if given."""
        chosen = f" WHERE status IN ({', '.join('?' * len(statuses))})" if statuses else ""
        with self._connection() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM runs{chosen}", [s.value for s in statuses]).fetchall()
        known = {run.id for run in _readable(rows)}
        return [name for row in rows if (name := row[_NAMES.index("id")]) not in known]

    def open_runs(self) -> list[Run]:
        """The runs that are not over, oldest first; passed over as in `runs`."""
        ends = ", ".join("?" * len(_FINAL))
        with self._connection() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE status NOT IN ({ends}) ORDER BY number", _FINAL)
            return _readable(rows)

    def delete(self, run: str, how: str = "deleted") -> None:
        """Forget a run that is over: its row, its events and its folder; its name is remembered as gone.

        how: "deleted" or "archived". Raises StoreError if it is not over.
        """
        self.run(run)
        with self._connection(write=True) as db:
            row = db.execute("SELECT status, owner FROM runs WHERE id = ?", (run,)).fetchone()
            if row is not None and row[0] not in _FINAL:
                raise StoreError(f"run {run} is {row[0]}: stop it before you delete it")
            db.execute(
                "INSERT OR REPLACE INTO gone (id, time, how, owner) VALUES (?, ?, ?, ?)",
                (run, time.time(), how, row[1] if row else ""),
            )
            db.execute("DELETE FROM events WHERE run = ?", (run,))
            db.execute("DELETE FROM runs WHERE id = ?", (run,))
        shutil.rmtree(self.paths(run).folder, ignore_errors=True)

    def forget(self, run: str) -> None:
        """Remember that a run which was put away is deleted now."""
        with self._connection(write=True) as db:
            db.execute("INSERT OR REPLACE INTO gone (id, time, how) VALUES (?, ?, 'deleted')", (run, time.time()))

    def owner_of_gone(self, run: str) -> str:
        """Whose a run was that is not here any more, "" where nobody knows."""
        with self._connection() as db:
            row = db.execute("SELECT owner FROM gone WHERE id = ?", (run,)).fetchone()
        return row[0] if row else ""

    # ------------------------------------------------------------ the queue

    def queue(self) -> list[Run]:
        """The waiting runs in the order in which they will start, if nobody changes it: device by device, people in turn."""
        with self._connection() as db:
            rows = _readable(
                db.execute(f"SELECT {_COLUMNS} FROM runs WHERE status = 'queued' ORDER BY device, position, number")
            )
            served = db.execute("SELECT device, owner, turn FROM served").fetchall()
        order: list[Run] = []
        for device in dict.fromkeys(run.device for run in rows):
            waiting = [(run.owner, run) for run in rows if run.device == device]
            order += fair_order(waiting, {owner: turn for at, owner, turn in served if at == device})
        return order

    def queue_positions(self) -> dict[str, tuple[int, int]]:
        """For each waiting run its position among those that wait for the same device, from 1, and how many these are."""
        waiting = self.queue()
        by_device = {
            device: [run.id for run in waiting if run.device == device] for device in {r.device for r in waiting}
        }
        return {name: (at, len(names)) for names in by_device.values() for at, name in enumerate(names, 1)}

    def reorder(self, run: str, to: str) -> bool:
        """Move a waiting run among its owner's: "up", "down", "first" or "last". Returns whether it moved."""
        found = self.run(run)
        with self._connection(write=True) as db:
            rows = db.execute(
                "SELECT id, position FROM runs WHERE status = 'queued' AND device = ? AND owner = ? ORDER BY position, number",
                (found.device, found.owner),
            ).fetchall()
            names = [name for name, _ in rows]
            if run not in names:
                return False
            now = names.index(run)
            goal = {"up": max(0, now - 1), "down": min(len(names) - 1, now + 1), "first": 0, "last": len(names) - 1}[to]
            names.insert(goal, names.pop(now))
            db.executemany(
                "UPDATE runs SET position = ? WHERE id = ?",
                [(position, name) for name, (_, position) in zip(names, rows, strict=False)],
            )
        return goal != now

    def claim(self, run: str, slot: str) -> bool:
        """Give a waiting run its turn on a device that no other run has: it is starting then.

        Of any number of callers one wins. Called by the supervisor, which holds the run's lock.
        """
        busy = ", ".join(f"'{s.value}'" for s in ACTIVE)
        with self._connection(write=True) as db:
            won = db.execute(
                f"""UPDATE runs SET status = 'starting', reason = '', slot = :slot, pid = NULL, started = :now, ended = NULL,
                    attempt = attempt + 1, turn = (SELECT COALESCE(MAX(turn), 0) + 1 FROM served)
                    WHERE id = :run AND status = 'queued'
                    AND NOT EXISTS (SELECT 1 FROM runs AS o WHERE o.slot = :slot AND o.status IN ({busy}))""",
                {"run": run, "slot": slot, "now": time.time()},
            )
            if won.rowcount == 1:
                db.execute(
                    """INSERT INTO served (device, owner, turn, before) SELECT device, owner, turn, 0 FROM runs WHERE id = ?
                       ON CONFLICT (device, owner) DO UPDATE SET before = turn, turn = excluded.turn""",
                    (run,),
                )
            return won.rowcount == 1

    def began(self, run: str, pid: int) -> bool:
        """The run's own process says that it is here. Returns False if it was not given its turn."""
        with self._connection(write=True) as db:
            found = db.execute(
                "UPDATE runs SET pid = ? WHERE id = ? AND status IN ('starting', 'stopping')", (pid, run)
            )
            return found.rowcount == 1

    def move(self, run: str, to: Status, reason: str = "", only_from: Sequence[Status] = (), timeout: float = TIMEOUT_SECONDS) -> bool:  # fmt: skip
        """Change a status that is not an end. only_from: the states from which this move is meant.

        Returns whether the run moved.
        """
        allowed = [s.value for s in (only_from or tuple(s for s in Status if not s.is_over)) if not s.is_over]
        marks = ", ".join("?" * len(allowed))
        with self._connection(write=True, timeout=timeout) as db:
            moved = db.execute(
                f"UPDATE runs SET status = ?, reason = ?, ended = ? WHERE id = ? AND status IN ({marks})",
                (to.value, reason, time.time() if to.is_over else None, run, *allowed),
            )
            return moved.rowcount == 1

    def record_dataset(self, run: str, config: RunConfig) -> None:
        """Record that a run's images are no longer those that it was enqueued with.

        The stored config and its hash stay as they are; `Run.config` has the label, the notes and the fingerprint of
        `config` from now on, and so has the run's badge.
        """
        names = ("data_label", "data_notes", "data_fingerprint")
        with self._connection(write=True) as db:
            found = json.dumps({name: getattr(config, name) for name in names})
            db.execute("UPDATE runs SET dataset = ? WHERE id = ?", (found, run))

    def requeue(self, run: str) -> bool:
        """Put a run that ended before its end behind all that wait. Returns whether it waits now because of this call."""
        marks = ", ".join("?" * len(RESUMABLE))
        with self._connection(write=True) as db:
            moved = db.execute(
                f"""UPDATE runs SET status = 'queued', reason = '', pid = NULL, ended = NULL, position = {_BEHIND_ALL}
                    WHERE id = ? AND status IN ({marks})""",
                (run, *(s.value for s in RESUMABLE)),
            )
            return moved.rowcount == 1

    def unclaim(self, run: str) -> bool:
        """Take a turn back from a run that never began: it waits where it stood. Returns whether it was starting."""
        with self._connection(write=True) as db:
            moved = db.execute(
                """UPDATE runs SET status = 'queued', reason = '', pid = NULL, attempt = MAX(attempt - 1, 0)
                   WHERE id = ? AND status = 'starting'""",
                (run,),
            )
            if moved.rowcount == 1:  # as if its owner had not been served with it
                db.execute(
                    """UPDATE served SET turn = before
                       WHERE (device, owner, turn) = (SELECT device, owner, turn FROM runs WHERE id = ?)""",
                    (run,),
                )
            return moved.rowcount == 1

    # ------------------------------------------------------------ events

    def append(self, run: str, events: Sequence[ev.Event], timeout: float = TIMEOUT_SECONDS) -> None:
        """Write events in one transaction; only `sync` says that they outlive a power cut."""
        now = time.time()
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            _insert_events(db, run, [(now, event) for event in events])

    @overload
    def events(self, run: str, *, after: int = 0) -> list[Stored[ev.Event]]: ...

    @overload
    def events(self, run: str, *kinds: type[ev.E], after: int = 0) -> list[Stored[ev.E]]: ...

    def events(self, run: str, *kinds: type[ev.Event], after: int = 0) -> list[Stored[ev.Event]]:
        """Events of a run in order.

        Args:
            run: Its name.
            kinds: Classes of the events wanted, by default all that this lab knows.
            after: Only events with a greater id.
        """
        names = [kind.kind for kind in kinds]
        chosen = f" AND kind IN ({', '.join('?' * len(names))})" if names else ""
        with self._connection() as db:
            rows = db.execute(
                f"SELECT id, time, kind, payload FROM events WHERE run = ? AND id > ?{chosen} ORDER BY id",
                (run, after, *names),
            )
            return [  # a kind that only a newer lab knows is left out
                Stored(number, at, ev.from_json(ev.KINDS[kind], payload))
                for number, at, kind, payload in rows
                if kind in ev.KINDS
            ]

    def events_of_nobody(self) -> list[str]:
        """The names under which there are events and no run: what an import left that was killed."""
        with self._connection() as db:
            found = db.execute("SELECT DISTINCT run FROM events WHERE run NOT IN (SELECT id FROM runs)")
            return [name for (name,) in found]

    def last(self, run: str, kind: type[ev.E]) -> ev.E | None:
        """The newest event of one class, None if there is none."""
        with self._connection() as db:
            row = db.execute(
                "SELECT payload FROM events WHERE run = ? AND kind = ? ORDER BY id DESC LIMIT 1", (run, kind.kind)
            ).fetchone()
        return None if row is None else ev.from_json(kind, row[0])

    def event_ids(self, run: str) -> tuple[int, int]:
        """The ids of a run's first and newest event, 0 and 0 if it has none. One that was put away and came back has
        others than before."""
        with self._connection() as db:
            return db.execute(
                "SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM events WHERE run = ?", (run,)
            ).fetchone()

    def event_bytes(self) -> dict[str, int]:
        """What the events of each run take in the database, in bytes."""
        with self._connection() as db:
            return dict(db.execute("SELECT run, SUM(LENGTH(payload) + 60) FROM events GROUP BY run").fetchall())

    # ------------------------------------------------------------ people

    def visitor(self, visitor: str) -> Visitor:
        """What is known about a browser; one that was never here has no nickname and no draft."""
        with self._connection() as db:
            row = db.execute("SELECT id, nickname, draft, seen FROM visitors WHERE id = ?", (visitor,)).fetchone()
        return Visitor(*row) if row else Visitor(visitor)

    def keep_visitor(self, visitor: str, timeout: float = TIMEOUT_SECONDS, **changes: str) -> None:
        """Write down a browser's nickname or draft. changes: nickname, draft. patience: seconds to wait for another
        writer; then sqlite3.OperationalError."""
        unknown = set(changes) - {"nickname", "draft"}
        if unknown:
            raise TypeError(f"a visitor has no {', '.join(sorted(unknown))}")
        changed = ", ".join(f"{name} = :{name}" for name in (*changes, "seen"))  # two tabs may change different things
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            db.execute(
                f"""INSERT INTO visitors (id, nickname, draft, seen) VALUES (:id, :nickname, :draft, :seen)
                    ON CONFLICT (id) DO UPDATE SET {changed}""",
                {"nickname": "", "draft": "", **changes, "id": visitor, "seen": time.time()},
            )

    def nicknames(self) -> dict[str, str]:
        """The nicknames that people gave themselves, by the id of their browser."""
        with self._connection() as db:
            return dict(db.execute("SELECT id, nickname FROM visitors WHERE nickname != ''").fetchall())


_NAMES = tuple(field.name for field in fields(Run))
_COLUMNS = ", ".join(_NAMES)
_BEHIND_ALL = "(SELECT COALESCE(MAX(position), 0) + 1 FROM runs)"


def _run(row: tuple) -> Run:
    values = dict(zip(_NAMES, row, strict=False))
    values |= {"config": _config(values["config"], values["dataset"]), "status": Status(values["status"])}
    return Run(**values)


def _readable(rows: Iterable[tuple]) -> list[Run]:
    found = []
    for row in rows:
        with suppress(LabError, ValueError):  # a setting or a status that only a newer lab knows
            found.append(_run(row))
    return found


@lru_cache(maxsize=1024)
def _config(text: str, dataset: str) -> RunConfig:
    """A frozen config, checked once: the supervisor looks at all open runs four times a second."""
    return RunConfig.from_dict(json.loads(text) | json.loads(dataset or "{}"))


def _insert_events(db: sqlite3.Connection, run: str, events: Sequence[tuple[float, ev.Event]]) -> None:
    rows = [(run, e.kind, getattr(e, "epoch", None), getattr(e, "step", None), at, ev.to_json(e)) for at, e in events]
    db.executemany("INSERT INTO events (run, kind, epoch, step, time, payload) VALUES (?, ?, ?, ?, ?, ?)", rows)
