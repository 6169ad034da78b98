"""Estimated time of a run, from the times of similar runs of this store on this machine; None if there is none.

    seconds = loading + steps · s + evaluated images · m        those of a search included

s is the median time from one step to the next of a past run. m is the rest of its training time per evaluated image,
statistics and checkpoints included, so that the terms add up to the time of that run. Where only runs with images of
another size were timed, both grow with the multiply-adds of an image.

`rough_estimate` is for the first run of a kind: its multiply-adds at the speed of a run of another kind, or of a matrix
product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from mlae_lab.core import catalog, image_labels, machine, memory
from mlae_lab.core.budget import forward_cost
from mlae_lab.core.config import RunConfig
from mlae_lab.core.epochs import steps_per_epoch
from mlae_lab.core.events import Evaluation, SearchGeneration, Started, TrainStep
from mlae_lab.core.search import HELD_OUT, held_out
from mlae_lab.core.units import format_bytes
from mlae_lab.runs import devices
from mlae_lab.runs.store import Run, RunStore

MAX_RUNS = 3  # similar runs that an estimate uses, the newest
MIN_STEPS = 8  # of a run, for a median
MAX_CANDIDATES = 60
REACHED = 0.5  # of the speed of a large matrix product, in training; see LOG.md, 2026-11-28


@dataclass(frozen=True)
class Pace:
    """Times of a past run.

    Attributes:
        loading: Seconds.
        step: Seconds per step.
        evaluation: Seconds per evaluated image.
        precision: That its device computed in.
        train: Number of training images.
        evaluated: Number of images of one evaluation.
    """

    loading: float
    step: float
    evaluation: float
    precision: str
    train: int
    evaluated: int


@dataclass(frozen=True)
class Estimate:
    """The estimated time of a run.

    Attributes:
        seconds: Median over the similar runs, None if there are none.
        low: The lowest of them.
        high: The highest of them.
        runs: Their ids.
        steps: Of the run, None if the number of its images is unknown.
        reason: What the estimate is based on, or why there is none, as one sentence.
    """

    seconds: float | None
    low: float | None
    high: float | None
    runs: tuple[str, ...]
    steps: int | None
    reason: str


def pace(store: RunStore, run: Run) -> Pace | None:
    """The times of a run; None for one that trained on another machine or for fewer than `MIN_STEPS` steps."""
    if run.slot is None or run.relation == "imported":  # its seconds are those of another machine
        return None
    if run.relation == "branched":  # its seconds include those of its parent
        return None
    started = store.last(run.id, Started)
    log: list[tuple[float, int, bool]] = []  # seconds, step, is an evaluation
    for stored in store.events(run.id, TrainStep, Evaluation):
        log.append((stored.event.seconds, stored.event.step, isinstance(stored.event, Evaluation)))
    between = [b[0] - a[0] for a, b in pairwise(log) if not a[2] and not b[2] and b[1] == a[1] + 1]
    if started is None or len(between) < MIN_STEPS:
        return None
    step, evaluations = median(between), sum(entry[2] for entry in log)
    steps = sum(not entry[2] for entry in log)
    rest = max(0.0, log[-1][0] - steps * step)
    search = store.last(run.id, SearchGeneration)
    images = evaluations * started.evaluation_images + (search.candidates * search.images if search else 0)
    return Pace(
        started.seconds,
        step,
        rest / images if images else 0.0,
        started.precision,
        started.train_images,
        started.evaluation_images,
    )


def estimate(
    store: RunStore,
    config: RunConfig,
    pace_of: Callable[[RunStore, Run], Pace | None] = pace,
    runs: Sequence[Run] | None = None,
) -> Estimate:
    """Estimate the time of a run on this machine from runs of the same backbone, method, device and preprocessing.

    Runs of the same precision and batch size are preferred; if others are used, the reason says so.

    Args:
        store: With the past runs.
        config: Of the run to estimate.
        pace_of: `pace`, or a cached version of it.
        runs: All runs of the store, if they are read already.
    """
    known = _similar(store, config, pace_of, store.runs() if runs is None else runs)
    train, evaluated, searched = _images(config, known)
    steps = None if train is None else config.epochs * steps_per_epoch(train, config.batch_size)
    if steps is None:
        reason = "The folder's images are counted when a run starts."
        return Estimate(None, None, None, (), None, reason)
    if not known:
        kind = f"{'run' if config.has_mask else config.what} with {catalog.backbone(config.backbone).title}"
        device = {"cpu": "CPU", "cuda": "GPU"}[devices.kind(config.device)]
        reason = f"No {kind} has been timed on this machine's {device} yet."
        return Estimate(None, None, None, (), steps, reason)
    size = known[0][0].config.network.image_size  # the most similar
    known = [(run, p) for run, p in known if run.config.network.image_size == size]
    growth = forward_cost(config.network) / forward_cost(known[0][0].config.network)
    growth_of_step = (
        1.0 if config.tuning.trains_only_head and not _recomputes(config) else growth
    )  # its features are computed once
    of_equal_passes = [(run, p) for run, p in known if _passes(run.config) == _passes(config)]
    known = of_equal_passes or known
    auto = next((p.precision for run, p in known if run.config.precision == "auto"), None)
    wanted = auto if config.precision == "auto" else config.precision
    same_precision = [(run, p) for run, p in known if p.precision == wanted] if wanted else []
    same = [(run, p) for run, p in same_precision if run.config.batch_size == config.batch_size]
    chosen = (same or same_precision or known)[:MAX_RUNS]
    batch = chosen[0][0].config.batch_size
    if not same:  # all of one batch size
        chosen = [(run, p) for run, p in chosen if run.config.batch_size == batch]
    seconds = [
        p.loading
        + steps
        * growth_of_step
        * p.step
        * config.batch_size
        / run.config.batch_size
        * _passes(config)
        / _passes(run.config)
        + (len(config.evaluated_epochs) * evaluated + searched) * growth * p.evaluation
        for run, p in chosen
    ]
    count = "the last run" if len(chosen) == 1 else f"the last {len(chosen)} runs"
    if same:
        reason = f"From {count} with this backbone, device, precision and batch size on this machine."
    elif same_precision:
        reason = (
            f"From {count} with batch size {batch} on this machine, assuming a time proportional to the batch size: no "
            f"run with batch size {config.batch_size} has been timed yet."
        )
    else:
        other = chosen[0][1].precision
        reason = (
            f"From {count} in {other} with batch size {batch} on this machine: no run in "
            f"{wanted or 'the precision that auto will choose'} has been timed yet, which may be slower or faster."
        )
    if size != config.network.image_size:
        reason += (
            f" They had images of {size} pixels: the time is assumed to grow with the multiply-adds of an image, "
            f"{growth:.2g} times as many."
        )
    if not of_equal_passes:
        reason += " A step with a consistency loss is assumed to take twice as long as one without."
    if config.max_seconds is not None:
        limit = config.max_seconds + median(p.loading for _, p in chosen)
        if limit < median(seconds):
            reason = f"Training stops after {config.max_seconds:g} s; loading takes as long as in {count}."
            return Estimate(limit, limit, limit, tuple(run.id for run, _ in chosen), steps, reason)
    return Estimate(median(seconds), min(seconds), max(seconds), tuple(run.id for run, _ in chosen), steps, reason)


def rough_estimate(
    store: RunStore | None, config: RunConfig, pace_of: Callable[[RunStore, Run], Pace | None] = pace
) -> Estimate:
    """The order of magnitude of a run's time before any like it was timed: its multiply-adds at a known speed.

    The speed is that of the run on this device with the most multiply-adds per image. Without any it is, on a CPU, that
    of a matrix product (`core.machine`), of which training reaches about `REACHED`.

    Args:
        store: With the past runs; None without a store.
        config: Of the run.
        pace_of: As of `estimate`.
    """
    train, evaluated, searched = _images(config, [])
    if train is None:
        return Estimate(None, None, None, (), None, "The folder's images are counted when a run starts.")
    steps = config.epochs * steps_per_epoch(train, config.batch_size)
    if config.tuning.trains_only_head and not _recomputes(config):
        total = forward_cost(config.network) * (train + evaluated)  # the features of each image, once
    else:
        trained = config.epochs * train * _passes(config) * _step_work(config)
        total = trained + forward_cost(config.network) * (len(config.evaluated_epochs) * evaluated + searched)
    donor = _fastest_known(store, config, pace_of) if store else None
    if donor is None and devices.kind(config.device) != "cpu":
        return Estimate(None, None, None, (), steps, "No run has been timed on this machine's GPU yet.")
    if donor is None:
        seconds, runs = total / (REACHED * machine.multiply_adds_per_second()), ()
        source = "the speed of this machine's matrix products, measured just now"
    else:
        run, timed = donor
        per = timed.step / (run.config.batch_size * _passes(run.config) * _step_work(run.config))
        seconds, runs = timed.loading + total * per, (run.id,)
        source = f"the speed of run {run.id} with {catalog.backbone(run.config.backbone).title}"
    if config.max_seconds is not None:
        seconds = min(seconds, config.max_seconds)
    reason = (
        f"No run like this one has been timed on this machine yet. Rough, perhaps half or twice as long: "
        f"{total / 1e12:.2g} trillion multiply-adds at {source}."
    )
    return Estimate(seconds, seconds / 2, 2 * seconds, runs, steps, reason)


def _step_work(config: RunConfig) -> float:
    """Multiply-adds of one image in one pass of a training step.

    Those of a forward and a backward pass behind the first trained block, with full fine-tuning also of the gradients
    of the weights, and of a forward pass alone where only the head is trained.
    """
    network = config.network
    first = config.tuning.first_block(network.layers)
    share = 1 - min(max(0, first), network.layers) / network.layers
    again = (1 - share) if share and _recomputes(config) else 0.0  # of the frozen blocks before it
    return forward_cost(network) * (2 * share + (first < 0) + again if share else 1)


def _fastest_known(
    store: RunStore, config: RunConfig, pace_of: Callable[[RunStore, Run], Pace | None]
) -> tuple[Run, Pace] | None:
    """The timed run on the same device with the most multiply-adds per image, the newest of equal ones."""
    runs = [
        run
        for run in store.runs()
        if run.status.is_over
        and run.device == devices.kind(config.device)
        and not run.config.unavailable
        and not run.config.tuning.trains_only_head
    ]
    runs.sort(key=lambda run: -_step_work(run.config))  # stable: the newest first
    timed = ((run, pace_of(store, run)) for run in runs[:MAX_CANDIDATES])
    return next(((run, times) for run, times in timed if times is not None and times.step), None)


@dataclass(frozen=True)
class Memory:
    """Estimated memory of a run in bytes, all in float32.

    Attributes:
        fixed: The frozen weights, and value, gradient and moments (two of AdamW, one of SGD) of what is trained,
            with a weight average two copies more.
        step: The activations of one batch in a training step, of one part of it with gradient accumulation, of both
            passes with a consistency loss.
        evaluation: The activations of one piece of an evaluation.
    """

    fixed: int
    step: int
    evaluation: int

    @property
    def total(self) -> int:
        return self.fixed + max(self.step, self.evaluation)


def estimated_memory(config: RunConfig) -> Memory:
    """Estimate the memory of a run, without its images and PyTorch itself; formulas in `core.memory`."""
    backbone = config.network
    learned = config.tuning.parameters(backbone)
    fused = memory.attention_is_fused(backbone, devices.kind(config.device))
    image = memory.evaluation_bytes(backbone, fused)
    return Memory(
        fixed=4 * backbone.parameters
        + 4 * ((3 if config.optimizer == "sgd" else 4) + (2 if config.weight_average else 0)) * learned,
        step=_passes(config)
        * -(-config.batch_size // config.accumulation)
        * memory.training_bytes(backbone, config.tuning.first_block(backbone.layers), fused),
        evaluation=image * memory.images_at_once(image),
    )


def memory_warning(config: RunConfig) -> str:
    """A sentence if a run on a CPU needs more memory than this machine has, else ""."""
    needed, have = estimated_memory(config), memory.machine_bytes()
    if have is None or needed.total <= have or devices.kind(config.device) != "cpu":
        return ""
    remedy = "a smaller batch size, fewer experts or " if needed.step > needed.evaluation else ""
    return (
        f"This machine has {format_bytes(have)} of memory, less than the estimate: choose {remedy}a smaller image size."
    )


def _similar(
    store: RunStore, config: RunConfig, pace_of: Callable[[RunStore, Run], Pace | None], runs: Sequence[Run]
) -> list[tuple[Run, Pace]]:
    """Timed runs with the same network and device, the most similar first, then the newest."""
    candidates = [
        run
        for run in runs
        if run.status.is_over
        and run.config.backbone == config.backbone
        and run.config.method == config.method
        and run.device == devices.kind(config.device)
        and run.config.prepared == config.prepared
        and _recomputes(run.config) == _recomputes(config)
    ]

    def dissimilarity(run: Run) -> tuple:
        other = run.config
        experts = abs(other.plan.experts - config.plan.experts) if config.has_mask else 0
        other_passes = _passes(other) != _passes(config)
        size = abs(math.log(other.network.image_size / config.network.image_size))
        return size, other_passes, other.batch_size != config.batch_size, other.task != config.task, experts

    candidates.sort(key=dissimilarity)  # stable: the newest first
    timed: list[tuple[Run, Pace]] = []
    for run in candidates[:MAX_CANDIDATES]:
        if (times := pace_of(store, run)) is not None:
            timed.append((run, times))
        if len(timed) >= 4 * MAX_RUNS:
            break
    return timed


def _passes(config: RunConfig) -> int:
    """Forward passes of a training step."""
    return 2 if config.tuning.consistency_weight else 1


def _recomputes(config: RunConfig) -> bool:
    """Whether drop paths or changing pixels keep a run from computing the features of its frozen blocks once."""
    changes = config.drop_path or config.mixup or config.augmentation != "off"
    return bool(changes) and config.tuning.first_block(catalog.backbone(config.backbone).layers) > 1


def _images(config: RunConfig, known: list[tuple[Run, Pace]]) -> tuple[int | None, int, int]:
    """Numbers of training images, of images of one evaluation and of all images that a search evaluates.

    For a folder of images as in an earlier run, (None, 0, 0) without one.
    """
    task, search = catalog.task(config.task), config.tuning.search
    splits = (task.train, task.val, task.test) if task.train else image_labels.counts_of(config.data_label)
    if splits is not None:
        first, val, test = splits
        train, evaluated = (first, val) if config.protocol == "val" else (first + val, test)
        if config.folds:
            evaluated = (first + val) // config.folds
            train = first + val - evaluated
    else:
        of_task = ((run, timed) for run, timed in known if run.config.task == config.task)
        wanted = config.protocol, config.folds
        timed = next(((run, t) for run, t in of_task if (run.config.protocol, run.config.folds) == wanted), None)
        if timed is None:
            return None, 0, 0
        train, evaluated = timed[1].train, timed[1].evaluated
        if timed[0].config.tuning.search and config.protocol == "test":
            train = round(train / (1 - 1 / HELD_OUT))  # of which that run trained on the rest
    if search is None:
        return train, evaluated, 0
    if config.protocol == "val":
        return train, evaluated, search.candidates * evaluated
    return train - held_out(train), evaluated, search.candidates * held_out(train)
