"""A race: several masks, each with the same seeds. Its runs are ordinary queued runs that differ only in mask and
seed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import EXPERTS, paper_patterns
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, between, points, seed_statistics
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import commands, outcomes, pairs
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_MASKS = 8
MAX_SEEDS = 3
RELATION = "race"


# ---------------------------------------------------------------- launch


def wanted(store: RunStore, config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> list[Run | RunConfig]:
    """What `launch` would reuse or start, by seed, then in the order of the masks; nothing is started.

    Runs with the same settings are reused (see `outcomes.reusable`). Raises as `launch`.
    """
    return outcomes.reusable(store, checked(config, plans, seeds))


def checked(config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> list[RunConfig]:
    """The configs of a race, by seed. Raises as `launch`."""
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    if not 2 <= len(plans) <= MAX_MASKS:
        raise ConfigError(f"a race has {len(plans)} mask{'s' * (len(plans) != 1)}: choose 2 to {MAX_MASKS}")
    repeated = next((i for i, plan in enumerate(plans) if plan in plans[:i]), None)
    if repeated is not None:
        raise ConfigError(
            f"masks {plans.index(plans[repeated]) + 1} and {repeated + 1} are the same: choose different masks"
        )
    if not config.has_mask:
        raise ConfigError(f"the method is {config.method} and has no mask: choose mlae")
    if config.max_seconds is not None:
        raise ConfigError(
            f"the time limit is {config.max_seconds:g} seconds, so the runs would train for different numbers of "
            "steps: set no time limit"
        )
    return [replace(config, plan=plan, seed=config.seed + i) for i in range(seeds) for plan in plans]


def launch(
    store: RunStore,
    config: RunConfig,
    plans: Sequence[MaskPlan],
    seeds: int = 1,
    owner: str = "",
    relation: str = RELATION,
) -> list[Run]:
    """Enqueue the missing runs of a race and return all its runs, by seed.

    Args:
        store: Of the runs.
        config: All settings except the mask; its seed is the first.
        plans: 2 to 8 different masks.
        seeds: Their number, 1 to 3.
        owner: As in `Run`.
        relation: Of new runs to the first run, their parent: "race", or "paired" for two masks.

    Raises:
        ConfigError: A number out of range, equal masks, a method without a mask or a time limit. Nothing is started.
        CatalogError: A mask is on layers that the backbone does not have. Nothing is started.
    """
    runs: list[Run] = []
    mark = secrets.token_hex(4)  # two races may have the same first run
    for entry in wanted(store, config, plans, seeds):
        if isinstance(entry, RunConfig):
            entry = commands.launch(store, entry, owner, Origin(runs[0].id if runs else "", relation, mark))
        runs.append(entry)
    return runs


def command(config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> str:
    """The equivalent command of a race."""
    masks = " ".join(f"--mask '{plan.code}'" for plan in plans)
    text = config.command().replace(f"{PROGRAM} train", f"{PROGRAM} race", 1)
    mask = f"--mask '{config.plan.code}'"
    return f"{text.replace(mask, masks, 1)} --seeds {seeds}"


def races(runs: Sequence[Run]) -> list[list[Run]]:
    """The races among runs, newest first, each in the order of its launch.

    Reused runs are not included, except the first run of a race. A race from which runs were archived or deleted
    consists of the others, as long as they have two masks.
    """
    followers: dict[tuple[str, str], list[Run]] = {}
    by_id = {run.id: run for run in runs}
    for run in runs:
        if run.relation == RELATION and run.parent:
            followers.setdefault((run.parent, run.source), []).append(run)
    members = [
        [*([by_id[first]] if first in by_id else []), *reversed(others)] for (first, _), others in followers.items()
    ]
    return [entry for entry in members if len({run.config.plan for run in entry}) > 1]


def stop(store: RunStore, runs: Sequence[Run], timeout: float = 10.0) -> None:
    """Stop the runs of a race as `commands.stop` does, queued ones first, so that none of them starts meanwhile."""
    for run in sorted(runs, key=lambda run: run.status is not Status.QUEUED):
        if not run.status.is_over:
            commands.stop(store, run.id, timeout=timeout)


# ---------------------------------------------------------------- standings


@dataclass(frozen=True)
class Lane:
    """One mask in a race. runs: by seed; curves: by seed, of the evaluated runs."""

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


@dataclass(frozen=True, eq=False)  # compared by identity, so that figures of a race can be cached
class Race:
    """The state of a race.

    Attributes:
        lanes: In the order of their launch.
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
    def verdict(self) -> str:
        """Which mask leads, and whether the lead exceeds the seed noise, in one to four sentences."""
        return " ".join(part for part in (self.headline, self.doubt) if part)

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
    def doubt(self) -> str:
        """Whether the lead exceeds the seed noise, and how many masks are not compared; "" without a leader."""
        if len(self.standings) < 2:
            return ""
        second = self.standings[1]
        noise = _noise(second.behind, len(self.standings)) if second.behind and second.rank > 1 else ""
        return " ".join(part for part in (noise, self._missing()) if part)

    def _missing(self) -> str:
        missing = len(self.lanes) - len(self.standings)
        if not missing:
            return ""
        return f"{missing} of {len(self.lanes)} masks {'has' if missing == 1 else 'have'} not reached this epoch."

    def distance(self, standing: Standing) -> str:
        """The distance of a lane to the leader as text."""
        if standing.behind is None:
            return "leads"
        if standing.rank == 1:
            return "level with the leader"
        behind = f"{points(standing.behind.mean)} behind"
        interval = standing.behind.interval
        if interval is None or interval[0] < 1e-9:
            return behind
        noise = "more than noise" if interval[1] > 0 else "within the noise"
        return f"{behind}, {noise}"


def race(
    store: RunStore,
    runs: Sequence[Run],
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
    known: Mapping[MaskPlan, str] | None = None,
) -> Race:
    """The current state of a race.

    Args:
        store: Of the runs.
        runs: Runs that differ in mask and seed only; of several with one mask and seed the last counts.
        curve_of: `outcomes.accuracies`, or a cached version of it.
        known: Names of saved masks.

    Raises:
        StoreError: The runs differ in more than mask and seed.
    """
    if why := unequal_because(store, runs):
        raise StoreError(f"these runs are not a race: {why}")
    by_plan: dict[MaskPlan, dict[int, Run]] = {}
    for run in runs:
        by_plan.setdefault(run.config.plan, {})[run.config.seed] = run
    curves = [
        {seed: curve for seed, run in of_plan.items() if (curve := curve_of(store, run))}
        for of_plan in by_plan.values()
    ]
    lanes = tuple(
        Lane(plan, name, of_plan, curve)
        for (plan, of_plan), name, curve in zip(by_plan.items(), names(list(by_plan), known), curves, strict=True)
    )
    epoch, seeds = _common([lane.curves for lane in lanes])
    is_through = all(
        outcomes.is_through(run, lane.curves.get(seed, ())) for lane in lanes for seed, run in lane.runs.items()
    )
    return Race(lanes, epoch, seeds, _standings(lanes, epoch, seeds), runs[0].config.epochs, is_through)


def unequal_because(store: RunStore, runs: Sequence[Run]) -> str | None:
    """Why runs differ in more than mask and seed, as the end of a sentence; None if they do not."""
    if len({run.config.plan for run in runs}) < 2:
        return "they have one mask; choose runs with two or more"
    if len({run.config.plan for run in runs}) > MAX_MASKS:
        return f"they have more than {MAX_MASKS} masks"
    of_seed: dict[int, Run] = {}
    for run in runs:
        if run.relation == "branched":
            return f"run {run.id} was branched from a checkpoint of another run, so its start differs"
        if why := _unequal_configs(runs[0], run):
            return f"of {runs[0].id} and {run.id} {why}"
        peer = of_seed.setdefault(run.config.seed, run)  # per seed: random weights depend on it
        if peer.config.plan != run.config.plan and (why := pairs.unpaired_runs_because(store, peer, run)):
            return f"of {peer.id} and {run.id} {why}"
    return None


def _unequal_configs(a: Run, b: Run) -> str | None:
    """The settings other than mask, seed and folder of the images in which two runs differ; None for none."""
    config = replace(a.config, device=a.device)
    plan = b.config.plan
    if plan == config.plan:  # any other mask: a pair needs two
        plan = replace(plan, expert_rank=plan.expert_rank % 2 + 1)
    return pairs.unpaired_because(config, replace(b.config, device=b.device, seed=config.seed, plan=plan))


def names(plans: Sequence[MaskPlan], known: Mapping[MaskPlan, str] | None = None) -> list[str]:
    """A short, unique name for each mask: its name in the library, the paper's, else its kind and number of experts;
    equal names get a number."""
    paper = {(pattern.plan.keep, pattern.plan.drop_rate): pattern.title for pattern in paper_patterns()}
    first = [(known or {}).get(plan) or _name(plan, paper) for plan in plans]
    return [
        name if first.count(name) == 1 else f"{name} ({first[: i + 1].count(name)})" for i, name in enumerate(first)
    ]


def _name(plan: MaskPlan, paper: Mapping[tuple, str]) -> str:
    rates = {p for row in plan.rates for p in row}
    rate = f", p = {rates.pop():g}" if len(rates) == 1 and rates != {0.0} else ""
    if title := paper.get((plan.keep, plan.drop_rate)):
        return title.replace(", stochastic", "") + rate if title.startswith("Uniform") else title + rate
    if plan.experts == plan.rows * plan.columns and rate:
        return "Uniform" + ("" if plan.columns == EXPERTS else f", {plan.experts} experts") + rate
    return f"{plan.kind_name.capitalize()}, {plan.experts} experts{rate}"


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


def _noise(lead: SeedStatistics, masks: int) -> str:
    """Whether a lead exceeds the seed noise, in one to three sentences."""
    if lead.interval is None:
        return "One seed cannot distinguish a lead from noise."
    deviation, low, high = lead.interval
    if deviation < 1e-9:
        return f"The lead is equal for all {lead.n} seeds: the evaluation is too coarse for an interval."
    few = f" {lead.n} seeds are few." if lead.n < pairs.ENOUGH_SEEDS else ""
    if low <= 0:
        return f"That is within the seed noise (95 % {between(low, high)}, {lead.n} seeds).{few}"
    chosen = " The leader was chosen after the fact, which favours it." if masks > 2 else ""
    return f"That is more than the seed noise (95 % {between(low, high)}, {lead.n} seeds).{few}{chosen}"


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
