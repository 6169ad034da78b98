"""EventLog: the events of the runs of a store. Damaged ones are left out and named."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from mlae_lab.core import events as ev
from mlae_lab.runs.database import TIMEOUT_SECONDS, Database, require_intact

E_co = TypeVar("E_co", bound=ev.Event, covariant=True)


@dataclass(frozen=True)
class Stored(Generic[E_co]):
    """An event of the store. id: rises; time: seconds since 1970."""

    id: int
    time: float
    event: E_co


@dataclass(frozen=True)
class DamagedEvent:
    """An event that cannot be read. run, id, kind: as in its row; cause: why, a clause."""

    run: str
    id: int
    kind: str
    cause: str


class EventLog(Database):
    """The events of a store. Readers query those after the last id they have."""

    def append(self, run: str, events: Sequence[ev.Event], timeout: float = TIMEOUT_SECONDS) -> None:
        """Write events in one transaction; they survive a power failure only after `sync`."""
        now = time.time()
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            insert_events(db, run, [(now, event) for event in events])

    @overload
    def events(
        self, run: str, *, after: int = 0, damaged: dict[int, DamagedEvent] | None = None
    ) -> list[Stored[ev.Event]]: ...

    @overload
    def events(
        self, run: str, *kinds: type[ev.E], after: int = 0, damaged: dict[int, DamagedEvent] | None = None
    ) -> list[Stored[ev.E]]: ...

    def events(
        self, run: str, *kinds: type[ev.Event], after: int = 0, damaged: dict[int, DamagedEvent] | None = None
    ) -> list[Stored[ev.Event]]:
        """Events of a run in order, without damaged ones (`damaged_events`) and those of a newer version.

        Args:
            run: Its id.
            kinds: Classes of the events wanted, by default all that this version knows.
            after: Only events with a greater id.
            damaged: Takes the events that cannot be read, by id.
        """
        names = [kind.kind for kind in kinds]
        chosen = f" AND kind IN ({', '.join('?' * len(names))})" if names else ""
        with self._connection() as db:
            rows = db.execute(
                f"SELECT id, time, kind, payload FROM events WHERE run = ? AND id > ?{chosen} ORDER BY id",
                (run, after, *names),
            )
            events = []
            for number, at, kind, payload in rows:
                if kind not in ev.KINDS:
                    continue
                try:
                    events.append(Stored(number, at, _event(ev.KINDS[kind], payload)))
                except ev.EventError as error:
                    if damaged is not None:
                        damaged[number] = DamagedEvent(run, number, kind, str(error))
            return events

    def damaged_events(self, run: str = "") -> list[DamagedEvent]:
        """The events that cannot be read, of a run or of all. Reads every event."""
        chosen, arguments = (" WHERE run = ?", (run,)) if run else ("", ())
        damaged = []
        with self._connection() as db:
            for name, number, kind, payload in db.execute(
                f"SELECT run, id, kind, payload FROM events{chosen} ORDER BY id", arguments
            ):
                try:
                    if kind in ev.KINDS:
                        _event(ev.KINDS[kind], payload)
                except ev.EventError as error:
                    damaged.append(DamagedEvent(name, number, kind, str(error)))
        return damaged

    def orphaned_events(self) -> list[str]:
        """The ids under which there are events but no run, left by a killed import."""
        with self._connection() as db:
            rows = db.execute("SELECT DISTINCT run FROM events WHERE run NOT IN (SELECT id FROM runs)")
            return [name for (name,) in rows]

    def last(self, run: str, kind: type[ev.E]) -> ev.E | None:
        """The newest event of a class that can be read, None if there is none."""
        return self.last_of_each([run], kind).get(run)

    def last_of_each(self, runs: Iterable[str], kind: type[ev.E]) -> dict[str, ev.E]:
        """As `last` for many runs, over one connection; runs without such an event are left out."""
        newest: dict[str, ev.E] = {}
        with self._connection() as db:
            for run in runs:
                for (payload,) in db.execute(
                    "SELECT payload FROM events WHERE run = ? AND kind = ? ORDER BY id DESC", (run, kind.kind)
                ):
                    with suppress(ev.EventError):
                        newest[run] = _event(kind, payload)
                        break
        return newest

    def with_event(self, runs: Iterable[str], kind: type[ev.Event]) -> set[str]:
        """Those of the runs that have an event of a class; none is parsed."""
        query = "SELECT 1 FROM events WHERE run = ? AND kind = ? LIMIT 1"
        with self._connection() as db:
            return {run for run in runs if db.execute(query, (run, kind.kind)).fetchone()}

    def event_ids(self, run: str) -> tuple[int, int]:
        """The ids of a run's first and newest event, 0 and 0 if it has none. They change when a run is archived and
        restored."""
        with self._connection() as db:
            return db.execute(
                "SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM events WHERE run = ?", (run,)
            ).fetchone()

    def event_bytes(self, runs: Iterable[str]) -> dict[str, int]:
        """Bytes that the events of each of these runs take in the database."""
        query = "SELECT COALESCE(SUM(LENGTH(payload) + 60), 0) FROM events WHERE run = ?"
        with self._connection() as db:
            return {run: db.execute(query, (run,)).fetchone()[0] for run in runs}


def _event(kind: type[ev.E], payload: object) -> ev.E:
    """A stored event. Raises EventError for a damaged one."""
    try:
        return ev.from_json(kind, require_intact(payload))
    except ev.EventError:
        raise
    except ValueError as error:
        raise ev.EventError(str(error)) from None


def insert_events(db: sqlite3.Connection, run: str, events: Sequence[tuple[float, ev.Event]]) -> None:
    """Insert events of a run in the transaction of a connection. events: (time, event)."""
    rows = [(run, e.kind, getattr(e, "epoch", None), getattr(e, "step", None), at, ev.to_json(e)) for at, e in events]
    db.executemany("INSERT INTO events (run, kind, epoch, step, time, payload) VALUES (?, ?, ?, ?, ?, ?)", rows)
