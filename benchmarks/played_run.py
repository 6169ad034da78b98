"""A live run without its cost: a real, short training is recorded, and its events are written again and again at the
pace of the lab's first run, by a process that holds the run's lock as a worker does. So a benchmark of pages measures
pages.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.runs import paths
from mlae_lab.runs.liveness import PulseWriter
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

STEPS_A_SECOND = 7.0
ROUNDS_BEFORE = 12  # of the recording lie behind the run when the first viewer comes: its curves have all their points
CONFIG = RunConfig("digits", uniform(0.3), epochs=4, evaluations=4, seed=0, device="cpu")


class PlayedRun:
    """A run of this store that goes on until `close`. id: its name."""

    def __init__(self, store: RunStore) -> None:
        from mlae_lab.training.setup import prepare
        from mlae_lab.training.trainer import fit

        recorded = list(fit(prepare(CONFIG)))
        self._head = [e for e in recorded if isinstance(e, ev.Started | ev.Watched)]
        self._body = [e for e in recorded if not isinstance(e, ev.Started | ev.Watched | ev.Preparing | ev.Saved)]
        self._steps = sum(isinstance(e, ev.TrainStep) for e in self._body)
        self._store = store
        # the supervisor's place is taken, so none starts a process for what stands in the queue
        self._supervisor = locks.take(paths.supervisor_lock(store.folder))
        self.id = store.enqueue(replace(CONFIG, epochs=4000, evaluations=4000), "cpu").id
        self._lock = locks.take(store.paths(self.id).lock)
        assert store.claim(self.id, "cpu") and store.began(self.id, os.getpid())
        self._pulse = PulseWriter(store.paths(self.id))
        started = next(e for e in self._head if isinstance(e, ev.Started))
        store.append(self.id, [replace(started, steps=self._steps * 1000), *self._head[1:]])
        store.move(self.id, Status.RUNNING)
        for number in range(ROUNDS_BEFORE):
            store.append(self.id, [self._moved(event, number) for event in self._body])
        self._over, self._silent = threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def _moved(self, event: ev.Event, number: int) -> ev.Event:
        """An event of the recording as of its `number`th repetition."""
        changes = {}
        if hasattr(event, "step"):
            changes["step"] = event.step + number * self._steps
        if hasattr(event, "epoch"):
            changes["epoch"] = event.epoch + number * CONFIG.epochs
        if hasattr(event, "seconds"):
            changes["seconds"] = changes["step"] / STEPS_A_SECOND
        return replace(event, **changes)

    def _write(self) -> None:
        number, began, told = ROUNDS_BEFORE, time.monotonic(), 0
        while not self._over.is_set():
            waiting: list[ev.Event] = []
            for event in self._body:
                waiting.append(self._moved(event, number))
                if isinstance(event, ev.TrainStep):
                    while self._silent.is_set() and not self._over.is_set():
                        time.sleep(0.05)
                        began += 0.05
                    told += 1
                    if self._over.wait(max(0.0, began + told / STEPS_A_SECOND - time.monotonic())):
                        break
                    self._store.append(self.id, waiting)
                    self._pulse.beat(told)
                    waiting = []
            self._store.append(self.id, waiting)
            number += 1

    @contextmanager
    def silent(self, yes: bool = True) -> Iterator[None]:
        """Let the run say nothing within the block."""
        if yes:
            self._silent.set()
        try:
            yield
        finally:
            self._silent.clear()

    def close(self) -> None:
        """Stop the run."""
        self._over.set()
        self._writer.join()
        self._store.move(self.id, Status.STOPPED)
        self._pulse.close()
        for lock in (self._lock, self._supervisor):
            if lock is not None:
                os.close(lock)
