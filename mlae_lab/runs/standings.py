"""How the masks of a study stand while it runs: which one leads after the last epoch that they share.

Whether a difference is more than the noise of the seed is said by its results (`study_results`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, points, seed_statistics
from mlae_lab.core.study_presets import compared_masks
from mlae_lab.runs import outcomes
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import State


@dataclass(frozen=True)
class Lane:
    """One mask. name: of its arm; runs: by seed; curves: by seed, of the evaluated runs."""

    plan: MaskPlan
    name: str
    runs: dict[int, Run]
    curves: dict[int, Curve]


@dataclass(frozen=True)
class Standing:
    """The standing of a lane.

    Attributes:
        lane: Its index.
        rank: 1 for the leader, equal for equal accuracies.
        accuracy: Mean over seeds, in percent.
        behind: The leader's accuracy minus this one's, over seeds; None for the leader.
    """

    lane: int
    rank: int
    accuracy: float
    behind: SeedStatistics | None


@dataclass(frozen=True, eq=False)  # compared by identity, so that figures can be cached
class Race:
    """How the masks of a study stand.

    Attributes:
        lanes: In the order of the arms.
        epoch: The last epoch after which at least two lanes can be compared, None without one.
        seeds: Those compared at that epoch.
        standings: Of the lanes evaluated at that epoch, best first.
        epochs: Of a run.
        is_through: Whether every run was evaluated after its last epoch.
    """

    lanes: tuple[Lane, ...]
    epoch: int | None
    seeds: tuple[int, ...]
    standings: tuple[Standing, ...]
    epochs: int
    is_through: bool

    @property
    def headline(self) -> str:
        """Which mask leads, in one sentence."""
        evaluated = [lane for lane in self.lanes if lane.curves]
        if not evaluated:
            return "No mask has been evaluated yet."
        if len(evaluated) == 1:
            return f"Only {evaluated[0].name} has been evaluated so far."
        if self.epoch is None:
            return "No two masks have been evaluated after the same epoch with the same seed yet."
        leaders = [entry for entry in self.standings if entry.rank == 1]
        when = "at the end" if self.is_through else f"after epoch {self.epoch} of {self.epochs}"
        if len(leaders) > 1:
            names = _listed([self.lanes[entry.lane].name for entry in leaders])
            return f"{names} are level {when}, at {leaders[0].accuracy:.1f} %."
        first, second = self.standings[0], self.standings[1]
        name, next_ = self.lanes[first.lane].name, self.lanes[second.lane].name
        assert second.behind is not None  # only the leader has none
        return f"{name} leads {when} with {first.accuracy:.1f} %, {points(second.behind.mean)} points ahead of {next_}."

    @property
    def missing(self) -> str:
        """How many masks are not compared, as a sentence; "" if all are, or none."""
        missing = len(self.lanes) - len(self.standings)
        if not missing or not self.standings:
            return ""
        return f"{missing} of {len(self.lanes)} masks {'has' if missing == 1 else 'have'} not reached this epoch."

    def distance(self, standing: Standing) -> str:
        """The distance of a lane to the leader as text."""
        if standing.behind is None:
            return "leads"
        return "level with the leader" if standing.rank == 1 else f"{points(standing.behind.mean)} behind"


def race(
    store: RunStore, state: State, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> Race | None:
    """How the masks of a study stand; None if it does not compare masks (`compared_masks`).

    Args:
        store: Of the runs.
        state: Of the study.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    arms = compared_masks(state.stored.study)
    if not arms:
        return None
    lanes = []
    for arm in arms:
        runs = {cell.seed: cell.run for cell in state.of(arm.name) if cell.run is not None}
        curves = {seed: curve for seed, run in runs.items() if (curve := curve_of(store, run))}
        lanes.append(Lane(arm.config.plan, arm.name, runs, curves))
    epoch, seeds = _common([lane.curves for lane in lanes])
    is_through = all(cell.accuracy is not None for arm in arms for cell in state.of(arm.name))
    return Race(tuple(lanes), epoch, seeds, _standings(lanes, epoch, seeds), arms[0].config.epochs, is_through)


def _common(curves: Sequence[Mapping[int, Curve]]) -> tuple[int | None, tuple[int, ...]]:
    """The last epoch after which two lanes were evaluated with one seed, and the seeds that all lanes of the best
    covered seed have there. Lanes that have not reached that epoch are ignored."""
    lanes_at: dict[int, dict[int, set[int]]] = {}  # epoch, seed, lanes
    for lane, by_seed in enumerate(curves):
        for seed, curve in by_seed.items():
            for epoch, _ in curve:
                lanes_at.setdefault(epoch, {}).setdefault(seed, set()).add(lane)
    epoch = max(
        (e for e, by_seed in lanes_at.items() if any(len(lanes) > 1 for lanes in by_seed.values())), default=None
    )
    if epoch is None:
        return None, ()
    most = max(sorted(lanes_at[epoch].items()), key=lambda entry: len(entry[1]))[1]
    return epoch, tuple(sorted(seed for seed, lanes in lanes_at[epoch].items() if lanes >= most))


def _standings(lanes: Sequence[Lane], epoch: int | None, seeds: Sequence[int]) -> tuple[Standing, ...]:
    if epoch is None:
        return ()
    by_lane: dict[int, list[float]] = {}
    for lane, entry in enumerate(lanes):
        accuracies = [dict(entry.curves.get(seed, ())).get(epoch) for seed in seeds]
        if len(values := [value for value in accuracies if value is not None]) == len(accuracies):
            by_lane[lane] = values
    order = sorted(by_lane, key=lambda lane: -fmean(by_lane[lane]))  # of equals the one that was launched first
    best = by_lane[order[0]]
    standings: list[Standing] = []
    for lane in order:
        mean = fmean(by_lane[lane])
        level = standings and abs(standings[-1].accuracy - mean) < 1e-9
        behind = (
            seed_statistics(epoch, [a - b for a, b in zip(best, by_lane[lane], strict=True)]) if standings else None
        )
        standings.append(Standing(lane, standings[-1].rank if level else len(standings) + 1, mean, behind))
    return tuple(standings)


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
