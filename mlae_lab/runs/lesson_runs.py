"""The runs of lessons: those that train for a guess, and the recordings of a lesson.

A run of a lesson is an ordinary run. A class shares it: while a run with the same settings is there or on its way, no
second one is started.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mlae_lab.core.config import RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Evaluation, SimilarityStats, Started, TrainStep
from mlae_lab.core.expert_state import Cell, existing, off_text
from mlae_lab.core.machine import processor
from mlae_lab.lessons.lesson import SEEDS, Arm, Lesson
from mlae_lab.lessons.recording import RecordedRun, Recording, needed
from mlae_lab.locations import ROOT
from mlae_lab.runs import commands, outcomes, probe
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

RELATION = "lesson"
TRAIN_POINTS = 40  # of the curve of training batches that are kept
IMAGES = 200  # of a what-if
RANDOM_SETS, HALF_SAMPLES = 20, 20
_KEEP = 1 - 1 / 8  # decay of the running mean per step
_starting = threading.Lock()
_recent: dict[tuple[Path, str], str] = {}  # (folder of a store, hash of a config) to the id of a run


@dataclass(frozen=True)
class LessonRun:
    """A run of a lesson. run: None where the store has none."""

    arm: Arm
    seed: int
    run: Run | None


def existing_runs(store: RunStore, wanted: Sequence[tuple[Arm, int]]) -> list[LessonRun]:
    """For each arm and seed the run of the store that is finished or on its way."""
    by_config = outcomes.candidates(store, [arm.run(seed) for arm, seed in wanted])
    return [LessonRun(arm, seed, next(iter(runs), None)) for (arm, seed), runs in zip(wanted, by_config, strict=True)]


def start(store: RunStore, lesson: Lesson, wanted: Sequence[tuple[Arm, int]], owner: str = "") -> list[LessonRun]:
    """Start the runs that are neither finished nor on their way; return all.

    Raises:
        LabError: A run cannot be started.
    """
    with _starting:  # forty students click at once: the second one must see the run of the first
        entries = [LessonRun(arm, seed, _recent_run(store, arm.run(seed))) for arm, seed in wanted]
        if any(entry.run is None for entry in entries):
            entries = existing_runs(store, wanted)
        started = []
        for entry in entries:
            config, run = entry.arm.run(entry.seed), entry.run
            if run is None:
                run = commands.launch(store, config, owner, Origin(relation=RELATION, source=lesson.name))
            _recent[store.folder, config.hash] = run.id
            started.append(LessonRun(entry.arm, entry.seed, run))
        return started


def _recent_run(store: RunStore, config: RunConfig) -> Run | None:
    """The run that this process used last for a config, if it is still good: a search reads all runs of the store."""
    name = _recent.get((store.folder, config.hash))
    if name is None or not store.holds(name):
        return None
    run = derived(store, store.run(name))
    return run if run.status is Status.FINISHED or not run.status.is_over else None


# ---------------------------------------------------------------- recordings


def recorded_run(store: RunStore, entry: LessonRun) -> RecordedRun:
    """What a recording keeps of a finished run. Raises StoreError if it was not trained to its end."""
    run = entry.run
    if run is None or run.status is not Status.FINISHED:
        reason = f": {run.reason}" if run and run.reason else ""
        state = run.status.value if run else "missing"
        raise StoreError(f"the run of {entry.arm.label}, seed {entry.seed}, is {state}{reason}")
    started = store.last(run.id, Started)
    evaluations = [stored.event for stored in store.events(run.id, Evaluation)]
    steps = [stored.event for stored in store.events(run.id, TrainStep)]
    outcome = Outcome(run.config, started, evaluations, steps[-1])
    assert started is not None
    last = evaluations[-1]
    similarity = mean_similarity(store.last(run.id, SimilarityStats))
    per_epoch = steps_per_epoch(started.train_images, run.config.batch_size)
    return RecordedRun(
        entry.arm.task, entry.arm.name, entry.seed, entry.arm.run(entry.seed).hash, round(last.accuracy, 3),
        round(last.loss, 4), None if similarity is None else round(similarity, 5),
        tuple((epoch, round(accuracy, 2)) for epoch, accuracy in outcome.curve), train_curve(steps, per_epoch),
        round(outcome.seconds or 0.0, 1),
    )  # fmt: skip


def mean_similarity(statistics: SimilarityStats | None) -> float | None:
    """Mean |cosine| of experts within a layer, mean over layers; None without experts."""
    per_row = [value for value in statistics.absolute if value is not None] if statistics else []
    return sum(per_row) / len(per_row) if per_row else None


def train_curve(steps: Sequence[TrainStep], per_epoch: int) -> tuple[tuple[float, float], ...]:
    """The running mean of the accuracy on training batches, at most `TRAIN_POINTS` points (epochs, percent)."""
    total = weight = 0.0
    curve = []
    for step in steps:
        total, weight = _KEEP * total + step.accuracy, _KEEP * weight + 1
        curve.append((round(step.step / per_epoch, 3), round(total / weight, 2)))
    stride = -(-len(curve) // TRAIN_POINTS) or 1
    return tuple(curve[stride - 1 :: stride])


def record(
    store: RunStore,
    lesson: Lesson,
    seeds: Sequence[int] = SEEDS,
    owner: str = "",
    wait: Callable[[list[Run]], None] = lambda runs: None,
) -> Recording:
    """Train the runs of a lesson that the store lacks, and collect what they gave.

    Args:
        store: Of the runs.
        lesson: The lesson.
        seeds: Of each arm.
        owner: As in `Run`.
        wait: Returns when the runs are over.

    Raises:
        StoreError: A run failed or was stopped.
        LabError: A run cannot be started, or a query of it failed.
    """
    wanted = needed(lesson, seeds)
    entries = start(store, lesson, wanted, owner)
    wait([entry.run for entry in entries if entry.run is not None])
    entries = [LessonRun(e.arm, e.seed, store.run(e.run.id) if e.run else None) for e in entries]
    runs = tuple(recorded_run(store, entry) for entry in entries)
    return Recording(
        lesson.name, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), _commit(),
        f"{processor()[0]}, {os.cpu_count()} cores",
        {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "timm")},
        runs, _whatif(store, lesson, entries, seeds[0]) if lesson.whatif else {},
    )  # fmt: skip


def _commit() -> str:
    command = ("git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _whatif(store: RunStore, lesson: Lesson, entries: Sequence[LessonRun], seed: int) -> dict[str, Any]:
    """Losses of a run without each expert, without random sets and without those that first order puts on top."""
    runs = {entry.arm.name: entry.run for entry in entries if entry.seed == seed and entry.run is not None}
    run = runs[lesson.whatif]
    plan = run.config.plan
    cells, count = existing(plan), getattr(lesson.guess, "count", 5)
    importance = _query(store, run, "importance", {"images": IMAGES})
    estimate = importance["experts"]["estimate"]
    draw = random.Random(f"lesson {lesson.name} {seed}")
    sets = [sorted(draw.sample(cells, count)) for _ in range(RANDOM_SETS)]
    top = sorted(sorted(cells, key=lambda cell: -estimate[cell[0]][cell[1]])[:count])
    halves = [off_text(plan, sorted(draw.sample(cells, len(cells) // 2))) for _ in range(HALF_SAMPLES)]
    return {
        "seed": seed, "images": importance["images"], "trained": _numbers(importance["trained"]),
        "loss": importance["experts"]["loss"], "estimate": estimate,
        "top": without(store, run, top), "random": [without(store, run, chosen) for chosen in sets],
        "half_off": [
            {
                "arm": name, "trained": _query(store, other, "whatif", {"images": IMAGES})["before"]["accuracy"],
                "accuracies": [
                    _query(store, other, "whatif", {"off": half, "images": IMAGES})["now"]["accuracy"]
                    for half in halves
                ],
            }
            for name, other in runs.items()
        ],
    }  # fmt: skip


def without(store: RunStore, run: Run, cells: Sequence[Cell]) -> dict[str, Any]:
    """Loss and accuracy of a run without some of its experts."""
    arguments = {"off": off_text(run.config.plan, cells), "images": IMAGES}
    return {"cells": [list(cell) for cell in cells], **_numbers(_query(store, run, "whatif", arguments)["now"])}


def _numbers(values: dict) -> dict[str, float]:
    return {"loss": round(values["loss"], 4), "accuracy": round(values["accuracy"], 2)}


def _query(store: RunStore, run: Run, query: str, arguments: dict[str, Any]) -> dict:
    answer = probe.wait(store, run.id, query, arguments)
    if answer.value is None:
        raise StoreError(f"the query {query} of run {run.id} failed: {answer.reason}")
    return answer.value
