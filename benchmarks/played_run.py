"""A simulated live run, so that a benchmark of pages measures the pages alone.

A process that holds the run's lock, as a worker does, writes events of the shape and size of a real run's at the pace
of the default run. Their numbers are random, from a fixed seed, and mean nothing.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
from PIL import Image

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.locations import ASSETS
from mlae_lab.runs import paths
from mlae_lab.runs.liveness import HeartbeatWriter
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

STEPS_A_SECOND = 7.0
STEPS_AN_EPOCH = 13
EPOCHS_BEFORE = 48  # already trained when the first viewer comes, so that the curves have all their points
CONFIG = RunConfig("digits", uniform(0.3), epochs=4000, evaluations=2000, device="cpu")


def opening(config: RunConfig) -> list[ev.Event]:
    """The events of a run before its first step."""
    steps = config.epochs * STEPS_AN_EPOCH
    return [ev.Started(49_248, 1290, 2_400_000, 800, 200, steps, "cpu", "bfloat16", 2.0), _sample_images()]


def played(config: RunConfig) -> Iterator[list[ev.Event]]:
    """The events of one step after the other, with an evaluation in every second epoch; without an end."""
    rng, plan = random.Random(config.seed), config.plan
    has_experts = config.has_mask

    def canvas(low: float, high: float) -> ev.Canvas:
        return tuple(tuple(rng.uniform(low, high) if k else None for k in row) for row in plan.keep)

    for step in itertools.count(1):
        epoch, seconds = 1 + (step - 1) // STEPS_AN_EPOCH, step / STEPS_A_SECOND
        mask = [
            k and rng.random() > p
            for keep, rates in zip(plan.keep, plan.drop_rate, strict=True)
            for k, p in zip(keep, rates, strict=True)
        ]
        loss, accuracy = 2.3 * 0.97**epoch + 0.2 * rng.random(), 100 - 80 * 0.95**epoch - 9 * rng.random()
        packed = ev.packed(mask) if has_experts else ""
        events: list[ev.Event] = [ev.TrainStep(step, epoch, loss, accuracy, 5e-3, sum(mask), seconds, packed)]
        if step % (2 * STEPS_AN_EPOCH) == 0:
            matrices = tuple(
                tuple(tuple(rng.uniform(-0.4, 0.4) for _ in range(kept)) for _ in range(kept)) for kept in plan.kept
            )
            means = tuple(rng.uniform(0, 0.3) if kept > 1 else None for kept in plan.kept)
            names = tuple(rng.choice("0123456789") for _ in range(12))
            drift = 0.2 * (1 - 0.97**epoch)
            if has_experts:
                events += [
                    ev.ExpertStats(
                        epoch, canvas(0.6, 0.8), canvas(0, 0.1), canvas(1 - drift, 1 + drift), canvas(0, 0.01)
                    ),
                    ev.SimilarityStats(epoch, means, means, matrices),
                    ev.Statistics(
                        epoch,
                        step,
                        {
                            "update_norm": tuple(
                                drift * (row + 1) if kept else None for row, kept in enumerate(plan.kept)
                            )
                        },
                        {"update_norm": ("Norm of ΔW", "Frobenius")},
                    ),
                ]
            events += [
                ev.Predictions(epoch, step, names, tuple(round(rng.random(), 3) for _ in names)),
                ev.Evaluation(epoch, step, "val", accuracy, loss, seconds),
            ]
        yield events


class PlayedRun:
    """A simulated run that trains until `close`.

    Args:
        store: where it is written.
        epochs_before: trained at once, before its clock starts.
        config: of the run.
    """

    def __init__(self, store: RunStore, epochs_before: int = EPOCHS_BEFORE, config: RunConfig = CONFIG) -> None:
        self._store = store
        # holding the supervisor's lock keeps a real one from starting a process for the queued run
        self._supervisor = locks.take(paths.supervisor_lock(store.folder))
        self.id = store.enqueue(config, "cpu").id
        self._lock = locks.take(store.paths(self.id).lock)
        assert store.claim(self.id, "cpu")
        assert store.began(self.id, os.getpid())
        self._heartbeat = HeartbeatWriter(store.paths(self.id))
        store.append(self.id, opening(config))
        store.move(self.id, Status.RUNNING)
        self._events = played(config)
        store.append(self.id, [e for _ in range(epochs_before * STEPS_AN_EPOCH) for e in next(self._events)])
        self._closed, self._silent = threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def _write(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + 1 / STEPS_A_SECOND, time.monotonic())
            if self._closed.wait(due - time.monotonic()):
                return
            if not self._silent.is_set():
                self._store.append(self.id, next(self._events))
                self._heartbeat.beat()

    @contextmanager
    def silent(self, yes: bool = True) -> Iterator[None]:
        """Write no events within the block, unless `yes` is False."""
        if yes:
            self._silent.set()
        try:
            yield
        finally:
            self._silent.clear()

    def close(self) -> None:
        """Stop the run."""
        self._closed.set()
        self._writer.join()
        self._store.move(self.id, Status.STOPPED)
        self._heartbeat.close()
        for lock in (self._lock, self._supervisor):
            if lock is not None:
                os.close(lock)


def _sample_images() -> ev.SampleImages:
    with numpy.load(ASSETS / "digits.npz") as digits:
        images, labels = 15 * digits["images"][:12], digits["labels"][:12]
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).resize((48, 48)).save(file, "PNG")
        encoded.append(base64.b64encode(file.getvalue()).decode())
    return ev.SampleImages(tuple(encoded), tuple(map(str, labels)))
