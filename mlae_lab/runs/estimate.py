"""How long a run would take, from what runs of this store took on this machine. Nothing is guessed: where no run is
near enough, there is no number.

    seconds = loading + steps · s + measurements · m

s is the median time from one step to the next of a past run, m what the rest of its time was for each of its
measurements (statistics and checkpoints included), so that the three add up to what that run took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget
from mlae_lab.core.config import RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Evaluation, Started, TrainStep
from mlae_lab.runs import devices
from mlae_lab.runs.store import Run, RunStore

MAX_RUNS = 3  # the newest that are near enough
MIN_STEPS = 8  # fewer say too little about the next
MAX_LOOKED_AT = 60


@dataclass(frozen=True)
class Pace:
    """What a past run took. loading, step, measurement: seconds, the last for one image measured; precision: as
    its device computed; train, evaluated: images."""

    loading: float
    step: float
    measurement: float
    precision: str
    train: int
    evaluated: int


@dataclass(frozen=True)
class Estimate:
    """seconds: of the whole run, None where nothing near enough was measured; low, high: over the runs that it rests
    on. runs: their names. steps: of the run, None where its images are not counted yet. reason: what the number
    rests on, or why there is none, as one sentence."""

    seconds: float | None
    low: float | None
    high: float | None
    runs: tuple[str, ...]
    steps: int | None
    reason: str


def pace(store: RunStore, run: Run) -> Pace | None:
    """What a run took for a step and for a measurement; None for one that trained elsewhere or hardly at all."""
    if run.slot is None or run.relation == "imported":  # its seconds are another machine's
        return None
    if run.relation == "branched":  # its clock went on from its parent's
        return None
    started = store.last(run.id, Started)
    at: list[tuple[float, int, bool]] = []  # seconds, step, is a measurement
    for stored in store.events(run.id, TrainStep, Evaluation):
        at.append((stored.event.seconds, stored.event.step, isinstance(stored.event, Evaluation)))
    between = [b[0] - a[0] for a, b in pairwise(at) if not a[2] and not b[2] and b[1] == a[1] + 1]
    if started is None or len(between) < MIN_STEPS:
        return None
    step, measured = median(between), sum(entry[2] for entry in at)
    steps = sum(not entry[2] for entry in at)
    rest = max(0.0, at[-1][0] - steps * step)
    images = max(1, measured * started.evaluation_images)
    return Pace(
        started.seconds,
        step,
        rest / images if measured else 0.0,
        started.precision,
        started.train_images,
        started.evaluation_images,
    )


def estimate(store: RunStore, config: RunConfig, paced: Callable[[RunStore, Run], Pace | None] = pace) -> Estimate:
    """How long a run would take on this machine.

    paced: `pace`, or one that remembers. Taken are finished and stopped runs of the same backbone, method, device
    and preprocessing. Best of the same precision and batch size; else the nearest, and the reason says which.
    """
    known = _near(store, config, paced)
    train, evaluated = _images(config, known)
    steps = None if train is None else config.epochs * steps_per_epoch(train, config.batch_size)
    if steps is None:
        return Estimate(None, None, None, (), None, "The folder's images are counted when a run has begun: no estimate yet.")  # fmt: skip
    if not known:
        backbone = catalog.backbone(config.backbone).title
        what = f"{'run' if config.method == 'mlae' else 'linear probe'} with {backbone}"
        where = {"cpu": "CPU", "cuda": "GPU"}[devices.kind(config.device)]
        return Estimate(None, None, None, (), steps, f"No {what} has been timed on this machine's {where} yet: no estimate.")  # fmt: skip
    auto = next((p.precision for run, p in known if run.config.precision == "auto"), None)
    wanted = auto if config.precision == "auto" else config.precision
    same_precision = [(run, p) for run, p in known if p.precision == wanted] if wanted else []
    same = [(run, p) for run, p in same_precision if run.config.batch_size == config.batch_size]
    chosen = (same or same_precision or known)[:MAX_RUNS]
    batch = chosen[0][0].config.batch_size
    if not same:  # one other kind of run, not a mixture
        chosen = [(run, p) for run, p in chosen if run.config.batch_size == batch]
    seconds = [
        p.loading
        + steps * p.step * config.batch_size / run.config.batch_size
        + len(config.evaluated_epochs) * p.measurement * evaluated
        for run, p in chosen
    ]
    count = "the last run" if len(chosen) == 1 else f"the last {len(chosen)} runs"
    if same:
        reason = f"From {count} with this backbone, device, precision and batch size on this machine."
    elif same_precision:
        reason = (
            f"From {count} with batches of {batch} on this machine, as if time grew with the images in a batch: no run "
            f"with batches of {config.batch_size} has been timed yet."
        )
    else:
        other = chosen[0][1].precision
        reason = (
            f"From {count} in {other} with batches of {batch} on this machine: none in "
            f"{wanted or 'the precision that auto will choose'} has been timed yet, and it may be slower or faster."
        )
    if config.max_seconds is not None:
        limit = config.max_seconds + median(p.loading for _, p in chosen)
        if limit < median(seconds):
            return Estimate(limit, limit, limit, tuple(r.id for r, _ in chosen), steps, f"Training stops after {config.max_seconds:g} s; loading as in {count}.")  # fmt: skip
    return Estimate(median(seconds), min(seconds), max(seconds), tuple(run.id for run, _ in chosen), steps, reason)


def least_memory(config: RunConfig) -> int:
    """Bytes that the run needs at the very least: the frozen weights, and value, gradient and two moments of every
    number that the experts learn, all in float32. Head and activations come on top."""
    backbone = catalog.backbone(config.backbone)
    learned = budget(config.plan, backbone.shapes(config.plan.targets)).parameters if config.method == "mlae" else 0
    return 4 * backbone.parameters + 16 * learned


def _near(store: RunStore, config: RunConfig, paced: Callable[[RunStore, Run], Pace | None]) -> list[tuple[Run, Pace]]:
    """Timed runs that differ in nothing that makes another network or machine, those most like it first, then newest."""
    alike = [
        run
        for run in store.runs()
        if run.status.is_over
        and run.config.backbone == config.backbone
        and run.config.method == config.method
        and run.device == devices.kind(config.device)
        and run.config.prepared == config.prepared
    ]

    def unlike(run: Run) -> tuple:
        other = run.config
        experts = abs(other.plan.experts - config.plan.experts) if config.method == "mlae" else 0
        return other.batch_size != config.batch_size, other.task != config.task, experts

    alike.sort(key=unlike)  # of equals the newest stays first
    found = []
    for run in alike[:MAX_LOOKED_AT]:
        timed = paced(store, run)
        if timed is not None:
            found.append((run, timed))
        if len(found) >= 4 * MAX_RUNS:
            break
    return found


def _images(config: RunConfig, known: list[tuple[Run, Pace]]) -> tuple[int | None, int]:
    """Images to train on and to measure with; of a folder of one's own those that an earlier run found."""
    task = catalog.task(config.task)
    if task.train:
        return (task.train, task.val) if config.protocol == "val" else (task.train + task.val, task.test)
    for run, timed in known:
        if (run.config.task, run.config.protocol) == (config.task, config.protocol):
            return timed.train, timed.evaluated
    return None, 0
