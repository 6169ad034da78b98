"""RunStore: the record of all runs, in one SQLite file (`runs.schema`, `runs.database`).

Who writes what: `enqueue` inserts the row; the store's supervisor starts the run; from then on only the run's process
appends events and changes the status, with three exceptions: a request to stop, a request to resume, and the
supervisor, which sets the final status of a run whose process has exited.
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

from mlae_lab import environment
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import paths
from mlae_lab.runs.annotations import RunAnnotations, tags_of
from mlae_lab.runs.database import TIMEOUT_SECONDS, StoreError, require_intact
from mlae_lab.runs.event_log import EventLog, insert_events
from mlae_lab.runs.fair_queue import fair_order
from mlae_lab.runs.lesson_predictions import LessonPredictions
from mlae_lab.runs.library import MaskLibrary
from mlae_lab.runs.status import ACTIVE, RESUMABLE, Status
from mlae_lab.runs.study_table import StudyTable
from mlae_lab.runs.visitors import Visitors

_BATCH = 2000  # events of an imported run per transaction
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_FINAL = tuple(s.value for s in Status if s.is_over)


@dataclass(frozen=True)
class Origin:
    """Where a run comes from.

    Attributes:
        parent: The run from which it was launched, "" for none.
        relation: "retry", "duplicate", "study", "lesson", "branched" or "imported".
        source: For "branched" the parent's checkpoint, as `RunPaths.checkpoints` names it; for "study" its
            id; for "lesson" its name.
    """

    parent: str = ""
    relation: str = ""
    source: str = ""


NO_ORIGIN = Origin()


@dataclass(frozen=True)
class Run:
    """One row of the table of runs. Times are in seconds since 1970.

    Attributes:
        id: Eight of a-z and 2-7.
        created: Time of its launch.
        config: As enqueued; if the images had changed when it started, with their new label, notes and fingerprint.
        config_hash: As enqueued.
        status: As in its row; `liveness.derived` gives the actual one.
        reason: One sentence if it failed, was lost or was stopped.
        device: "cpu" or "cuda", its queue.
        pid: Of its process.
        started: Time of its last start.
        ended: Time of its end.
        position: In the queue.
        owner: A visitor's id, "cli:NAME", or "" if unknown.
        slot: The device that it has or had.
        turn: Number of its last start; rises over all runs.
        attempt: Number of times it was started.
        parent: As in `Origin`.
        relation: As in `Origin`.
        source: As in `Origin`.
        data_folder: Where its process looks for images, "" for the default.
        dataset: JSON, see `runs.schema`.
        name: Given by a person, "" for none.
        notes: Given by people, "" for none.
        tags: Given by people, sorted.
        mask_name: Of its mask in the library when it was enqueued, "" for none.
    """

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
    name: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    mask_name: str = ""


class RunStore(EventLog, MaskLibrary, RunAnnotations, StudyTable, LessonPredictions, Visitors):
    """Runs and their queue, and what the bases know of the store. See `Database` for opening one."""

    def paths(self, run: str) -> paths.RunPaths:
        return paths.RunPaths(self.folder, run)

    # ------------------------------------------------------------ runs

    def reserve(self) -> str:
        """Create the folder of a run before the run itself. Returns its id.

        Raises:
            LabError: The store is read-only, or an environment variable has a value with which no run starts.
        """
        environment.check()
        self.require_writable()
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
        """Insert a run at the end of the queue.

        Args:
            config: Its settings, stored with their hash.
            device: "cpu" or "cuda".
            owner: As in `Run`.
            origin: Where it comes from.
            data_folder: Where its process looks for images, "" for the default.
            run: A reserved id, by default a new one.
        """
        run = run or self.reserve()
        with self._connection(write=True) as db:
            mask_name = _mask_name(db, config, origin.parent)
            db.execute(
                f"""INSERT INTO runs (id, created, config, config_hash, status, device, owner, parent, relation, source,
                    data_folder, mask_name, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_END_OF_QUEUE})""",
                (run, time.time(), json.dumps(config.to_dict()), config.hash, Status.QUEUED.value, device, owner,
                 origin.parent, origin.relation, origin.source, data_folder, mask_name),
            )  # fmt: skip
        return self.run(run)

    def insert(self, run: Run, events: Iterable[tuple[float, ev.Event]]) -> None:
        """Insert a run that is over, with its events, as when it is imported.

        Events are written in batches, so that other writers do not wait for all of them; the run becomes visible last.

        Args:
            run: The run.
            events: (time, event).

        Raises:
            StoreError: The store has a run of this id.
        """
        columns = [name for name in _NAMES if name not in ("position", "pid", "turn", "slot", "dataset")]
        values = {name: getattr(run, name) for name in columns}
        values |= {"config": json.dumps(run.config.to_dict()), "status": run.status.value}
        values |= {"tags": json.dumps(run.tags, ensure_ascii=False)}
        self.without_events(run.id)  # left by an import whose process was killed
        try:
            rest = iter(events)
            while batch := list(islice(rest, _BATCH)):
                with self._connection(write=True) as db:
                    insert_events(db, run.id, batch)
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
        """Delete events whose run is not in the store. Raises StoreError if it is."""
        with self._connection(write=True) as db:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone():
                raise StoreError(f"run {run} is in {self.folder} already")
            db.execute("DELETE FROM events WHERE run = ?", (run,))

    def run(self, run: str) -> Run:
        """A run by its id. Raises StoreError if it is not in the store."""
        if not paths.is_run_id(run):
            raise StoreError(f"{run!r} is not a run id: it must have eight letters a-z or digits 2-7")
        with self._connection() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (run,)).fetchone()
            gone = None if row else db.execute("SELECT time, how FROM gone WHERE id = ?", (run,)).fetchone()
        if gone is not None:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(gone[0]))
            remedy = (
                f": restore it with `{PROGRAM} restore {run}`" if gone[1] == "archived" else " and cannot be restored"
            )
            raise StoreError(f"run {run} was {gone[1]} on {when}{remedy}")
        if row is None:
            raise StoreError(f"run {run} is not in {self.folder}: check its id, or choose another store")
        try:
            return _run(row)
        except _DamagedConfig as error:
            raise StoreError(
                f"run {run} cannot be read, {error}: `{PROGRAM} doctor` says what is still intact"
            ) from None
        except _UNREADABLE as error:
            cause = " ".join(str(error).split())[:300]
            raise StoreError(
                f"run {run} is of a newer version or damaged and cannot be read ({cause}): update MLAE Lab"
            ) from None

    def holds(self, run: str) -> bool:
        """Whether the store has a run of this id, including one that only a newer version can read."""
        with self._connection() as db:
            return db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is not None

    def runs(self) -> list[Run]:
        """All runs, newest first, without those that cannot be read (`unread`)."""
        with self._connection() as db:
            return _readable(db.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number DESC"))

    def unread(self, statuses: Sequence[Status] = ()) -> list[str]:
        """The ids of runs that are damaged or of a newer version; with `statuses`, only those with one of them."""
        chosen = f" WHERE status IN ({', '.join('?' * len(statuses))})" if statuses else ""
        with self._connection() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM runs{chosen}", [s.value for s in statuses]).fetchall()
        known = {run.id for run in _readable(rows)}
        return [name for row in rows if (name := row[_NAMES.index("id")]) not in known]

    def damaged_runs(self) -> dict[str, str]:
        """The runs of `unread` whose settings are damaged: id to what is wrong, a clause."""
        damaged = {}
        with self._connection() as db:
            for row in db.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number DESC").fetchall():
                try:
                    _run(row)
                except _DamagedConfig as error:
                    damaged[row[_NAMES.index("id")]] = str(error)
                except _UNREADABLE:
                    continue
        return damaged

    def open_runs(self) -> list[Run]:
        """The runs that are not over, oldest first, without those that cannot be read or that wait for a method."""
        ends = ", ".join("?" * len(_FINAL))
        with self._connection() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM runs WHERE status NOT IN ({ends}) ORDER BY number", _FINAL)
            return [run for run in _readable(rows) if run.status is not Status.QUEUED or not run.config.unavailable]

    def delete(self, run: str, how: str = "deleted") -> None:
        """Delete the row, the events and the folder of a run that is over, and record its id as gone.

        Args:
            run: Its id.
            how: "deleted" or "archived".

        Raises:
            StoreError: It is not over, or not in the store.
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
        """Record an archived run as deleted."""
        with self._connection(write=True) as db:
            db.execute("INSERT OR REPLACE INTO gone (id, time, how) VALUES (?, ?, 'deleted')", (run, time.time()))

    def is_gone(self, run: str) -> bool:
        """Whether a run of this id was deleted or archived here."""
        with self._connection() as db:
            return db.execute("SELECT 1 FROM gone WHERE id = ?", (run,)).fetchone() is not None

    def owner_of_gone(self, run: str) -> str:
        """The owner of a deleted or archived run, "" if unknown."""
        with self._connection() as db:
            row = db.execute("SELECT owner FROM gone WHERE id = ?", (run,)).fetchone()
        return row[0] if row else ""

    # ------------------------------------------------------------ the queue

    def queue(self) -> list[Run]:
        """The queued runs in the order in which they will start (`fair_queue`), device by device.

        A run whose method is not installed here is left out: it waits until it is cancelled, or the method is back.
        """
        with self._connection() as db:
            rows = _readable(
                db.execute(f"SELECT {_COLUMNS} FROM runs WHERE status = 'queued' ORDER BY device, position, number")
            )
            served = db.execute("SELECT device, owner, turn FROM served").fetchall()
        order: list[Run] = []
        rows = [run for run in rows if not run.config.unavailable]
        for device in dict.fromkeys(run.device for run in rows):
            queued = [(run.owner, run) for run in rows if run.device == device]
            order += fair_order(queued, {owner: turn for name, owner, turn in served if name == device})
        return order

    def queue_positions(self) -> dict[str, tuple[int, int]]:
        """For each queued run (position in the queue of its device, from 1; length of that queue)."""
        queued = self.queue()
        by_device = {
            device: [run.id for run in queued if run.device == device] for device in {r.device for r in queued}
        }
        return {run: (position, len(runs)) for runs in by_device.values() for position, run in enumerate(runs, 1)}

    def reorder(self, run: str, to: str) -> bool:
        """Move a queued run among its owner's runs. Returns whether it moved.

        Args:
            run: Its id.
            to: "up", "down", "first" or "last".
        """
        row = self.run(run)
        with self._connection(write=True) as db:
            rows = db.execute(
                "SELECT id, position FROM runs WHERE status = 'queued' AND device = ? AND owner = ? ORDER BY position, "
                "number",
                (row.device, row.owner),
            ).fetchall()
            names = [name for name, _ in rows]
            if run not in names:
                return False
            old, last = names.index(run), len(names) - 1
            new = {"up": max(0, old - 1), "down": min(last, old + 1), "first": 0, "last": last}[to]
            names.insert(new, names.pop(old))
            db.executemany(
                "UPDATE runs SET position = ? WHERE id = ?",
                [(position, name) for name, (_, position) in zip(names, rows, strict=True)],
            )
        return new != old

    def claim(self, run: str, slot: str) -> bool:
        """Assign a free slot to a queued run, whose status becomes starting.

        Of any number of callers one succeeds. Called by the supervisor, which holds the run's lock.

        Args:
            run: Its id.
            slot: As `devices.slots` names it.

        Returns:
            Whether the run got the slot.
        """
        busy = ", ".join(f"'{s.value}'" for s in ACTIVE)
        with self._connection(write=True) as db:
            won = db.execute(
                f"""UPDATE runs SET status = 'starting', reason = '', slot = :slot, pid = NULL, started = :now,
                    ended = NULL, attempt = attempt + 1, turn = (SELECT COALESCE(MAX(turn), 0) + 1 FROM served)
                    WHERE id = :run AND status = 'queued'
                    AND NOT EXISTS (SELECT 1 FROM runs AS o WHERE o.slot = :slot AND o.status IN ({busy}))""",
                {"run": run, "slot": slot, "now": time.time()},
            )
            if won.rowcount == 1:
                db.execute(
                    """INSERT INTO served (device, owner, turn, before)
                       SELECT device, owner, turn, 0 FROM runs WHERE id = ?
                       ON CONFLICT (device, owner) DO UPDATE SET before = turn, turn = excluded.turn""",
                    (run,),
                )
            return won.rowcount == 1

    def began(self, run: str, pid: int) -> bool:
        """Record the pid of a run's process. Returns False if the run has no slot, so the process must exit."""
        with self._connection(write=True) as db:
            updated = db.execute(
                "UPDATE runs SET pid = ? WHERE id = ? AND status IN ('starting', 'stopping')", (pid, run)
            )
            return updated.rowcount == 1

    def move(
        self,
        run: str,
        to: Status,
        reason: str = "",
        only_from: Sequence[Status] = (),
        timeout: float = TIMEOUT_SECONDS,
    ) -> bool:
        """Change the status of a run that is not over.

        Args:
            run: Its id.
            to: The new status.
            reason: One sentence.
            only_from: Statuses to which the change is limited, by default all that are not final.
            timeout: Seconds to wait for another writer.

        Returns:
            Whether it changed.
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
        """Record that a run's images have changed since it was enqueued.

        The stored config and its hash stay; `Run.config` and the run's badge have the label, the notes and the
        fingerprint of `config` from now on.
        """
        names = ("data_label", "data_notes", "data_fingerprint")
        with self._connection(write=True) as db:
            dataset = json.dumps({name: getattr(config, name) for name in names})
            db.execute("UPDATE runs SET dataset = ? WHERE id = ?", (dataset, run))

    def requeue(self, run: str) -> bool:
        """Move a stopped, failed or lost run to the end of the queue. Returns whether this call did so."""
        marks = ", ".join("?" * len(RESUMABLE))
        with self._connection(write=True) as db:
            moved = db.execute(
                f"""UPDATE runs SET status = 'queued', reason = '', pid = NULL, ended = NULL, position = {_END_OF_QUEUE}
                    WHERE id = ? AND status IN ({marks})""",
                (run, *(s.value for s in RESUMABLE)),
            )
            return moved.rowcount == 1

    def unclaim(self, run: str) -> bool:
        """Put a starting run whose process never ran back to its position in the queue. Returns whether it was one."""
        with self._connection(write=True) as db:
            moved = db.execute(
                """UPDATE runs SET status = 'queued', reason = '', pid = NULL, attempt = MAX(attempt - 1, 0)
                   WHERE id = ? AND status = 'starting'""",
                (run,),
            )
            if moved.rowcount == 1:  # undo the owner's entry, too
                db.execute(
                    """UPDATE served SET turn = before
                       WHERE (device, owner, turn) = (SELECT device, owner, turn FROM runs WHERE id = ?)""",
                    (run,),
                )
            return moved.rowcount == 1


def _mask_name(db: sqlite3.Connection, config: RunConfig, parent: str) -> str:
    """The name of a run's mask: as in the library, else as its parent with the same mask has it; "" for none."""
    if not config.has_mask:
        return ""
    plan = config.plan.to_json()
    row = (
        db.execute("SELECT name FROM plans WHERE plan = ?", (plan,)).fetchone()
        or db.execute(
            """SELECT mask_name FROM runs WHERE id = ?
           AND CASE WHEN JSON_VALID(config) THEN JSON_EXTRACT(config, '$.plan') = JSON(?) END""",
            (parent, plan),
        ).fetchone()
    )
    return row[0] if row else ""


_NAMES = tuple(field.name for field in fields(Run))
_COLUMNS = ", ".join(_NAMES)
_END_OF_QUEUE = "(SELECT COALESCE(MAX(position), 0) + 1 FROM runs)"


@lru_cache(maxsize=8192)
def _run(row: tuple) -> Run:
    """The run of a row. Pages read all rows again and again, and most do not change any more."""
    values = dict(zip(_NAMES, row, strict=True))
    values |= {"config": _config(values["config"], values["dataset"]), "status": Status(values["status"])}
    values |= {"tags": tags_of(values["tags"])}
    return Run(**values)


def _readable(rows: Iterable[tuple]) -> list[Run]:
    runs = []
    for row in rows:
        with suppress(*_UNREADABLE):
            runs.append(_run(row))
    return runs


@lru_cache(maxsize=8192)
def _config(text: str, dataset: str) -> RunConfig:
    """A stored config, validated once: the supervisor reads all open runs four times a second."""
    try:
        require_intact(text)
        data = json.loads(text) | json.loads(dataset or "{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise _DamagedConfig(f"its settings are damaged ({str(error)[:200]})") from None
    if isinstance(data.get("plan"), dict):
        data["plan"] = _plan(json.dumps(data["plan"]))
    return RunConfig.stored(data)


@lru_cache(maxsize=1024)
def _plan(text: str) -> MaskPlan:
    """A stored mask; many runs share one."""
    return MaskPlan.from_dict(json.loads(text))


class _DamagedConfig(Exception):
    """The settings of a run are not a JSON object."""


# What `_run` raises: for damage, and for a setting or a status that only a newer version knows.
_UNREADABLE = (_DamagedConfig, LabError, ValueError, TypeError, KeyError, AttributeError)
