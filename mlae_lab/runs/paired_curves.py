"""The difference B - A of two arms over epochs, seed by seed, and its statistics over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlae_lab.core.seed_statistics import SeedStatistics, points, seed_statistics, seeds_needed
from mlae_lab.runs import outcomes
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import State
from mlae_lab.runs.study_results import Results


@dataclass(frozen=True)
class Pair:
    """Two runs with one seed.

    Attributes:
        seed: Of both.
        accuracy_a: (epoch, top-1 accuracy in percent) of the scheduled evaluations of A, in order.
        accuracy_b: The same for B.
        last_epoch: The epoch that a verdict needs.
    """

    seed: int
    accuracy_a: Curve
    accuracy_b: Curve
    last_epoch: int

    @property
    def difference(self) -> Curve:
        """(epoch, B - A in percentage points) after every epoch at which both were evaluated."""
        of_a = dict(self.accuracy_a)
        return tuple((epoch, accuracy - of_a[epoch]) for epoch, accuracy in self.accuracy_b if epoch in of_a)

    @property
    def is_complete(self) -> bool:
        """Whether both were evaluated after the last epoch."""
        return bool(self.difference) and self.difference[-1][0] == self.last_epoch


@dataclass(frozen=True)
class Difference:
    """B - A over epochs.

    Attributes:
        pairs: Those with an epoch in common.
        over_epochs: Statistics for each epoch, over the pairs that have it; later epochs may have fewer pairs.
    """

    pairs: tuple[Pair, ...]
    over_epochs: tuple[SeedStatistics, ...]

    @property
    def last(self) -> SeedStatistics | None:
        """The statistics of the complete pairs after the last epoch; None without such a pair."""
        return self.over_epochs[-1] if any(pair.is_complete for pair in self.pairs) else None

    @property
    def seeds_needed(self) -> str:
        """How many seeds a verdict would take, in words; "" without any pair, or if there is a verdict."""
        return seeds_needed(self.last) if self.last else ""


def pairs_of(
    store: RunStore,
    state: State,
    a: str,
    b: str,
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
) -> list[Pair]:
    """The seeds of which both arms were evaluated.

    Args:
        store: Of the runs.
        state: Of the study.
        a: Name of an arm.
        b: Name of another one.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    curves = {
        (cell.arm, cell.seed): curve_of(store, cell.run)
        for cell in state.cells
        if cell.run is not None and cell.arm in (a, b)
    }
    study = state.stored.study
    last = study.arm(a).config.evaluated_epochs[-1]
    pairs = [Pair(seed, curves.get((a, seed), ()), curves.get((b, seed), ()), last) for seed in study.seeds]
    return [pair for pair in pairs if pair.accuracy_a and pair.accuracy_b]


def difference(pairs: Sequence[Pair]) -> Difference:
    """The difference over the seeds of two arms."""
    comparable = tuple(pair for pair in pairs if pair.difference)
    by_epoch: dict[int, list[float]] = {}
    for pair in comparable:
        for epoch, value in pair.difference:
            by_epoch.setdefault(epoch, []).append(value)
    return Difference(comparable, tuple(seed_statistics(epoch, by_epoch[epoch]) for epoch in sorted(by_epoch)))


def verdict(results: Results, difference: Difference, b: str) -> str:
    """What a study says about arm B compared with the reference A, in one or two sentences.

    Args:
        results: Of the study.
        difference: Of the two arms.
        b: Name of the arm.
    """
    result = results.of(b)
    if result.comparison is not None:
        return f"{b} is {result.verdict}."
    if not difference.pairs:
        return "There is no difference to show yet: it needs an evaluation of both runs after the same epoch."
    newest = difference.over_epochs[-1]
    distance = points(abs(newest.mean))
    relative = "level with A" if distance == "0" else f"{distance} points {'above' if newest.mean > 0 else 'below'} A"
    return (
        f"After epoch {newest.epoch} of {difference.pairs[0].last_epoch} {b} is {relative}. "
        "A verdict needs both runs at their last epoch."
    )
