"""EventWriter: how a run's process writes its events."""

from __future__ import annotations

import sqlite3
import time

from mlae_lab.core.events import OF_EVALUATION, Evaluation, Event, SampleImages, SearchGeneration, Started, TrainStep
from mlae_lab.runs import pending_events
from mlae_lab.runs.store import RunStore

FLUSH_SECONDS = 0.5  # step events are written in batches, delayed by at most this time


class EventWriter:
    """Collects events and writes them in batches, those of an evaluation together.

    Events that a resumed run reports again are skipped. Training does not wait for a store that another process has
    locked: the events are written with the next batch.
    """

    def __init__(self, store: RunStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self.waiting: list[Event] = []
        self.is_kept = False  # whether there is a file of pending events
        self.held_back: list[Event] = []  # events of an evaluation, until the Evaluation itself
        self.last = time.monotonic()
        step = store.last(run_id, TrainStep)
        self.recorded_step = step.step if step else 0
        self.recorded_evaluations = {stored.event.step for stored in store.events(run_id, Evaluation)}
        search = store.last(run_id, SearchGeneration)
        self.recorded_generation = search.generation if search else 0
        self.recorded_start = store.last(run_id, Started) is not None

    def add(self, event: Event) -> None:
        if isinstance(event, OF_EVALUATION):
            self.held_back.append(event)
            return
        if isinstance(event, Evaluation):
            is_new = event.step not in self.recorded_evaluations
            self.waiting += [*self.held_back, event] if is_new else []
            self.held_back = []
        elif not (
            (isinstance(event, (Started, SampleImages)) and self.recorded_start)
            or (isinstance(event, TrainStep) and event.step <= self.recorded_step)
            or (isinstance(event, SearchGeneration) and event.generation <= self.recorded_generation)
        ):
            self.waiting.append(event)
        if not isinstance(event, TrainStep) or time.monotonic() - self.last >= FLUSH_SECONDS:
            self.flush()

    def flush(self, timeout: float = 0.2) -> None:
        """Write the collected events.

        Args:
            timeout: Seconds to wait for a locked store, after which the events stay collected. Other errors, such as a
                full disk, are raised.
        """
        self.last = time.monotonic()
        if not self.waiting:
            return
        try:
            self.store.append(self.run_id, self.waiting, timeout)
            self.waiting = []
            if self.is_kept:
                self.store.sync()  # until then only the file survives a power failure
                self.store.paths(self.run_id).pending_events.unlink(missing_ok=True)
                self.is_kept = False
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise

    def keep(self) -> None:
        """Write the collected events durably; those that a locked store does not take go to `pending_events`."""
        self.flush()
        self.store.sync()
        if self.waiting:
            pending_events.keep(self.store.paths(self.run_id), self.store.event_ids(self.run_id)[1], self.waiting)
            self.is_kept = True
