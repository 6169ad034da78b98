"""Results in a store: the accuracy of a run, and the runs that can be reused for a config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlae_lab.core.config import RunConfig
from mlae_lab.core.epochs import images_seen, steps_per_epoch
from mlae_lab.core.events import Evaluation, Started, TrainStep
from mlae_lab.runs import devices
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

Curve = tuple[tuple[int, float], ...]  # (epoch, top-1 accuracy in percent), in order


class Moment(Protocol):
    """What happened after a step of an epoch: a training step, an evaluation, statistics."""

    @property
    def step(self) -> int: ...

    @property
    def epoch(self) -> int: ...


@dataclass(frozen=True)
class Outcome:
    """What a run has reached so far: the one place that says which evaluation counts for what.

    Attributes:
        config: Of the run.
        started: None before the first step; the number of steps per epoch is unknown then.
        evaluations: All of the run, in order.
        step: The newest training step.
    """

    config: RunConfig
    started: Started | None
    evaluations: Sequence[Evaluation]
    step: TrainStep | None = None

    @property
    def last(self) -> Evaluation | None:
        """The newest evaluation: its accuracy is the accuracy of the run."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation: chosen after the fact, so it is never the run's accuracy."""
        return max(self.evaluations, key=lambda e: e.accuracy, default=None)

    @property
    def steps_per_epoch(self) -> int | None:
        return steps_per_epoch(self.started.train_images, self.config.batch_size) if self.started else None

    def is_whole(self, moment: Moment) -> bool:
        """Whether its epoch was trained to the end; a run that is stopped may be evaluated within one."""
        return self.steps_per_epoch is None or moment.step == moment.epoch * self.steps_per_epoch

    def epochs_at(self, moment: Moment) -> float:
        """Epochs trained at a moment, possibly a fraction: its position on an axis of epochs."""
        if self.steps_per_epoch is None or self.is_whole(moment):
            return moment.epoch
        return round(moment.step / self.steps_per_epoch, 3)

    def when(self, evaluation: Evaluation) -> str:
        """The moment of an evaluation: "after epoch 3", or "within epoch 3" for one before the epoch's end."""
        return f"{'after' if self.is_whole(evaluation) else 'within'} epoch {evaluation.epoch}"

    @property
    def curve(self) -> Curve:
        """Accuracy after each scheduled, complete epoch; only these evaluations are comparable between runs."""
        scheduled = set(self.config.evaluated_epochs)
        evaluations = self.evaluations if self.started else ()
        return tuple(
            sorted({e.epoch: e.accuracy for e in evaluations if e.epoch in scheduled and self.is_whole(e)}.items())
        )

    @property
    def seconds(self) -> float | None:
        """Of training so far, evaluations included; None before the first step."""
        if self.step is None:
            return None
        return max(self.step.seconds, self.last.seconds if self.last else 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end at the pace so far, None before the first step."""
        if self.step is None or self.started is None or self.seconds is None:
            return None
        return self.seconds / self.step.step * (self.started.steps - self.step.step)

    @property
    def images_per_second(self) -> float | None:
        """Training images per second of training, evaluations included; None before the first step."""
        if self.step is None or self.started is None or self.seconds is None:
            return None
        images = images_seen(self.step.step, self.started.train_images, self.config.batch_size)
        return images / max(self.seconds, 1e-9)


def outcome(store: RunStore, run: Run) -> Outcome:
    """The outcome of a run so far."""
    started, step = store.last(run.id, Started), store.last(run.id, TrainStep)
    return Outcome(run.config, started, _evaluations(store, run), step)


def _evaluations(store: RunStore, run: Run) -> list[Evaluation]:
    return [stored.event for stored in store.events(run.id, Evaluation)]


def accuracy(store: RunStore, run: Run) -> float | None:
    """The accuracy of a run in percent (`Outcome.last`), None before its first evaluation; reads one event."""
    last = store.last(run.id, Evaluation)
    return last.accuracy if last else None


def accuracies(store: RunStore, run: Run) -> Curve:
    """The accuracies of a run that are comparable with those of other runs (`Outcome.curve`)."""
    return Outcome(run.config, store.last(run.id, Started), _evaluations(store, run)).curve  # reads no step


def is_through(run: Run, curve: Curve) -> bool:
    """Whether a run was evaluated after its last epoch."""
    return bool(curve) and curve[-1][0] == run.config.evaluated_epochs[-1]


def candidates(
    store: RunStore, configs: Sequence[RunConfig], curve_of: Callable[[RunStore, Run], Curve] = accuracies
) -> list[list[Run]]:
    """For each config the runs of the store that can be reused for it, the best first.

    A run can be reused if it was evaluated after its last epoch, or is queued or active. Branched runs cannot.

    Args:
        store: With the runs.
        configs: Of the runs that are wanted.
        curve_of: `accuracies`, or a cached version of it.
    """
    known: dict[tuple[str, str], list[Run]] = {}
    for run in store.runs():
        if run.relation != "branched":
            known.setdefault((run.config.canonical("device"), run.device), []).append(run)
    by_config = []
    for config in configs:
        same = known.get((config.canonical("device"), devices.kind(config.device)), ())
        runs = [derived(store, r) for r in same if may_be_same_images(config, r.config)]
        through = [r for r in runs if is_through(r, curve_of(store, r))]
        unfinished = [r for r in runs if not r.status.is_over and r.status is not Status.STOPPING]
        by_config.append(through + unfinished)
    return by_config


def families(
    store: RunStore, configs: Sequence[RunConfig], curve_of: Callable[[RunStore, Run], Curve] = accuracies
) -> list[dict[int, list[Run]]]:
    """For each config, by seed, the runs that differ from it in the seed only, the best first.

    Of several runs with one seed those that are through come first, then those on their way, then those that ended
    after an evaluation; of equals the newest. Branched runs, and those that ended without an evaluation, are left out.

    Args:
        store: With the runs.
        configs: Each with the device that its runs ran on.
        curve_of: `accuracies`, or a cached version of it.
    """
    known: dict[tuple[str, str], list[Run]] = {}
    for run in store.runs():  # the newest first
        if run.relation != "branched":
            known.setdefault((run.config.canonical("seed", "device"), run.device), []).append(run)
    results = []
    for config in configs:
        ranked: dict[int, list[tuple[int, Run]]] = {}
        for run in known.get((config.canonical("seed", "device"), devices.kind(config.device)), ()):
            if not may_be_same_images(config, run.config):
                continue
            run = derived(store, run)
            curve = curve_of(store, run)
            if curve or not run.status.is_over:
                rank = 0 if is_through(run, curve) else 2 if run.status.is_over else 1
                ranked.setdefault(run.config.seed, []).append((rank, run))
        results.append(
            {seed: [run for _, run in sorted(ranked[seed], key=lambda entry: entry[0])] for seed in sorted(ranked)}
        )
    return results


def may_be_same_images(config: RunConfig, other: RunConfig) -> bool:
    """Whether two runs may have had the same images: a run of version 0.5, or an imported one, has no fingerprint."""
    return len({config.data_fingerprint, other.data_fingerprint} - {""}) < 2
