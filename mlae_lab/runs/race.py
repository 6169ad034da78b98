"""A race: several masks on equal terms, each over the same seeds. It is nothing but runs in the queue; what makes them
one race is that they differ in mask and seed alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import EXPERTS, paper_patterns
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, between, points, seed_statistics
from mlae_lab.runs import commands, outcomes, pairs
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_MASKS = 8
MAX_SEEDS = 3
RELATION = "race"


# ---------------------------------------------------------------- starting one


def wanted(store: RunStore, config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> list[Run | RunConfig]:
    """What `launch` would take or start, seed by seed and in each the masks in their order.

    A run that is there already, with the same everything, is taken and not repeated (see `outcomes.taken`).
    Raises as `launch` does; nothing is started.
    """
    return outcomes.taken(store, checked(config, plans, seeds))


def checked(config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> list[RunConfig]:
    """The runs of a race, seed by seed. Raises as `launch` does."""
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    if not 2 <= len(plans) <= MAX_MASKS:
        raise ConfigError(f"a race of {len(plans)} masks: it must be 2 to {MAX_MASKS}")
    twice = next((i for i, plan in enumerate(plans) if plan in plans[:i]), None)
    if twice is not None:
        raise ConfigError(
            f"masks {plans.index(plans[twice]) + 1} and {twice + 1} are the same: a race needs different ones"
        )
    if config.method != "mlae":
        raise ConfigError("a linear probe has no mask: race masked experts")
    if config.max_seconds is not None:
        raise ConfigError(
            f"the runs would stop after {config.max_seconds:g} seconds and their learning rate would follow the clock, so the "
            "terms were not equal: race without a time limit"
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
    """Enqueue what is missing of a race and give all its runs, seed by seed.

    config: everything but the mask; its seed is the first. plans: 2 to 8, all different. seeds: 1 to 3. relation: what
    new runs are to the race's first run, which they name as their parent; "race" or, of two masks, "paired".
    Raises ConfigError for a number out of range, equal masks, a linear probe or a time limit, CatalogError for a mask
    on layers that the backbone does not have. Nothing is started then.
    """
    found: list[Run] = []
    mark = secrets.token_hex(4)  # two races may begin with one run
    for entry in wanted(store, config, plans, seeds):
        if isinstance(entry, RunConfig):
            entry = commands.launch(store, entry, owner, Origin(found[0].id if found else "", relation, mark))
        found.append(entry)
    return found


def command(config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1) -> str:
    """The command line that starts the same race."""
    masks = " ".join(f"--mask '{plan.code}'" for plan in plans)
    text = config.command().replace("mlae_lab train", "mlae_lab race", 1)
    own = f"--mask '{config.plan.code}'"
    return f"{text.replace(own, masks, 1)} --seeds {seeds}"


def races(runs: Sequence[Run]) -> list[list[Run]]:
    """The races among runs that are still there, newest first, each in the order of its starting.

    A run that was taken from before a race began, other than its first, is not among them.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    known = {run.id: run for run in runs}
    for run in runs:
        if run.relation == RELATION and run.parent in known:
            found.setdefault((run.parent, run.source), []).append(run)
    return [[known[first], *reversed(others)] for (first, _), others in found.items()]


def stop(store: RunStore, runs: Sequence[Run], timeout: float = 10.0) -> None:
    """End a race: what waits is cancelled first, so that none of it takes the place of one that ends; what runs keeps
    what it has, as `commands.stop` says."""
    for run in sorted(runs, key=lambda run: run.status is not Status.QUEUED):
        if not run.status.is_over:
            commands.stop(store, run.id, timeout=timeout)


# ---------------------------------------------------------------- where it stands


@dataclass(frozen=True)
class Lane:
    """One mask in a race. runs: by seed; curves: by seed, of those that have measured."""

    plan: MaskPlan
    name: str
    runs: dict[int, Run]
    curves: dict[int, Curve]


@dataclass(frozen=True)
class Standing:
    """Where a lane stands. place: 1 for the leader, equal for equal accuracies; accuracy: mean over seeds in percent;
    behind: the leader minus this one over the seeds that both have, None for the leader."""

    lane: int
    rank: int
    accuracy: float
    behind: SeedStatistics | None


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is drawn of one can be remembered
class Race:
    """lanes: the masks in the order of their starting. epoch: the last that two lanes or more can be compared at, None
    before that. seeds: that count there. standings: of the lanes that have got so far, best first. epochs: of a run;
    is_through: whether every run has measured its last epoch."""

    lanes: tuple[Lane, ...]
    epoch: int | None
    seeds: tuple[int, ...]
    standings: tuple[Standing, ...]
    epochs: int
    is_through: bool

    @property
    def verdict(self) -> str:
        """Who leads, and whether the lead is more than the noise of the seed, in one to four sentences."""
        return " ".join(part for part in (self.headline, self.doubt) if part)

    @property
    def headline(self) -> str:
        """Who leads, in one sentence."""
        measured = [lane for lane in self.lanes if lane.curves]
        if not measured:
            return "No mask has been measured yet."
        if len(measured) == 1:
            return f"Only {measured[0].name} has been measured so far."
        if self.epoch is None:
            return "No epoch has been measured by two masks with one seed yet."
        leaders = [entry for entry in self.standings if entry.rank == 1]
        when = "in the end" if self.is_through else f"after epoch {self.epoch} of {self.epochs}"
        if len(leaders) > 1:
            names = _listed([self.lanes[entry.lane].name for entry in leaders])
            return f"{names} are level {when}, at {leaders[0].accuracy:.1f} %."
        first, second = self.standings[0], self.standings[1]
        name, next_ = self.lanes[first.lane].name, self.lanes[second.lane].name
        assert second.behind is not None  # only the leader has none
        return f"{name} leads {when} with {first.accuracy:.1f} %, {points(second.behind.mean)} points before {next_}."

    @property
    def doubt(self) -> str:
        """Whether the lead is more than the noise of the seed, and who has not got so far; "" where none leads."""
        if len(self.standings) < 2:
            return ""
        second = self.standings[1]
        noise = _noise(second.behind, len(self.standings)) if second.behind and second.rank > 1 else ""
        return " ".join(part for part in (noise, self._missing()) if part)

    def _missing(self) -> str:
        away = len(self.lanes) - len(self.standings)
        if not away:
            return ""
        return f"{away} of {len(self.lanes)} masks {'has' if away == 1 else 'have'} not got so far."

    def told(self, standing: Standing) -> str:
        """How far a lane is behind the leader, in words."""
        if standing.behind is None:
            return "leads"
        if standing.rank == 1:
            return "level with the leader"
        behind = f"{points(standing.behind.mean)} behind"
        spread = standing.behind.spread
        if spread is None or spread[0] < 1e-9:
            return behind
        sure = "more than noise" if spread[1] > 0 else "within the noise"
        return f"{behind}, {sure}"


def race(
    store: RunStore,
    runs: Sequence[Run],
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
    known: Mapping[MaskPlan, str] | None = None,
) -> Race:
    """Where a race stands now.

    runs: at least two, on equal terms. curve_of: `outcomes.accuracies`, or one that remembers. known: names that
    people gave to masks. Of several runs with one mask and seed the last named counts. Raises StoreError, with the reason, if they differ in more than mask and seed.
    """
    if why := unequal_because(store, runs):
        raise StoreError(f"these runs are no race: {why}")
    by_plan: dict[MaskPlan, dict[int, Run]] = {}
    for run in runs:
        by_plan.setdefault(run.config.plan, {})[run.config.seed] = run
    curves = [
        {seed: curve for seed, run in of_plan.items() if (curve := curve_of(store, run))}
        for of_plan in by_plan.values()
    ]
    lanes = tuple(
        Lane(plan, name, of_plan, curve)
        for (plan, of_plan), name, curve in zip(by_plan.items(), names(list(by_plan), known), curves, strict=False)
    )
    epoch, seeds = _common([lane.curves for lane in lanes])
    is_through = all(
        outcomes.is_through(run, lane.curves.get(seed, ())) for lane in lanes for seed, run in lane.runs.items()
    )
    return Race(lanes, epoch, seeds, _standings(lanes, epoch, seeds), runs[0].config.epochs, is_through)


def unequal_because(store: RunStore, runs: Sequence[Run]) -> str | None:
    """Why runs are not on equal terms, as the end of a sentence; None if they are."""
    if len({run.config.plan for run in runs}) < 2:
        return "they have one mask; name runs with two or more"
    if len({run.config.plan for run in runs}) > MAX_MASKS:
        return f"they have more than {MAX_MASKS} masks"
    of_seed: dict[int, Run] = {}
    for run in runs:
        if run.relation == "branched":
            return f"run {run.id} goes on from a checkpoint of another run, so it does not start alike"
        if why := _apart(runs[0], run):
            return f"of {runs[0].id} and {run.id} {why}"
        peer = of_seed.setdefault(run.config.seed, run)  # random weights are another network with every seed
        if peer.config.plan != run.config.plan and (why := pairs.unpaired_runs_because(store, peer, run)):
            return f"of {peer.id} and {run.id} {why}"
    return None


def _apart(a: Run, b: Run) -> str | None:
    """What two runs differ in besides mask, seed and where the images lie; None for nothing."""
    one = replace(a.config, device=a.device)
    plan = b.config.plan if b.config.plan != one.plan else replace(one.plan, expert_rank=one.plan.expert_rank % 2 + 1)
    return pairs.unpaired_because(one, replace(b.config, device=b.device, seed=one.seed, plan=plan))


def names(plans: Sequence[MaskPlan], known: Mapping[MaskPlan, str] | None = None) -> list[str]:
    """A short name for each of several masks, all different: one that people gave it, the paper's, else its kind and
    budget; those that are named alike get a number."""
    paper = {(found.plan.keep, found.plan.drop_rate): found.title for found in paper_patterns()}
    first = [(known or {}).get(plan) or _name(plan, paper) for plan in plans]
    return [
        name if first.count(name) == 1 else f"{name} ({first[: i + 1].count(name)})" for i, name in enumerate(first)
    ]


def _name(plan: MaskPlan, paper: Mapping[tuple, str]) -> str:
    rates = {
        p for kept, row in zip(plan.keep, plan.drop_rate, strict=False) for k, p in zip(kept, row, strict=False) if k
    }
    rate = f", p = {rates.pop():g}" if len(rates) == 1 and rates != {0.0} else ""
    if title := paper.get((plan.keep, plan.drop_rate)):
        return title.replace(", stochastic", "") + rate if title.startswith("Uniform") else title + rate
    if plan.experts == plan.rows * plan.columns and rate:
        return "Uniform" + ("" if plan.columns == EXPERTS else f", {plan.experts} experts") + rate
    return f"{plan.kind.value.capitalize()}, {plan.experts} experts{rate}"


def _common(curves: Sequence[Mapping[int, Curve]]) -> tuple[int | None, tuple[int, ...]]:
    """The last epoch that two lanes have measured with one seed, and the seeds that count there: those of the most
    lanes. Lanes that have not got so far do not hold the others up."""
    at: dict[int, dict[int, set[int]]] = {}  # epoch, seed, lanes
    for lane, by_seed in enumerate(curves):
        for seed, curve in by_seed.items():
            for epoch, _ in curve:
                at.setdefault(epoch, {}).setdefault(seed, set()).add(lane)
    epoch = max((e for e, by_seed in at.items() if any(len(lanes) > 1 for lanes in by_seed.values())), default=None)
    if epoch is None:
        return None, ()
    most = max(sorted(at[epoch].items()), key=lambda entry: len(entry[1]))[1]
    return epoch, tuple(sorted(seed for seed, lanes in at[epoch].items() if lanes >= most))


def _standings(lanes: Sequence[Lane], epoch: int | None, seeds: Sequence[int]) -> tuple[Standing, ...]:
    if epoch is None:
        return ()
    there: dict[int, list[float]] = {}
    for number, lane in enumerate(lanes):
        at = [dict(lane.curves.get(seed, ())).get(epoch) for seed in seeds]
        if len(values := [value for value in at if value is not None]) == len(at):
            there[number] = values
    order = sorted(there, key=lambda number: -fmean(there[number]))  # of equals the one that started first
    best = there[order[0]]
    found: list[Standing] = []
    for number in order:
        mean = fmean(there[number])
        level = found and abs(found[-1].accuracy - mean) < 1e-9
        behind = seed_statistics(epoch, [a - b for a, b in zip(best, there[number], strict=False)]) if found else None
        found.append(Standing(number, found[-1].rank if level else len(found) + 1, mean, behind))
    return tuple(found)


def _noise(lead: SeedStatistics, masks: int) -> str:
    """Whether a lead is more than the noise of the seed."""
    if lead.spread is None:
        return "One seed does not tell a lead from noise."
    deviation, low, high = lead.spread
    if deviation < 1e-9:
        return (
            f"All {lead.n} seeds agree to the last digit: the steps of the measurement are too coarse for an interval."
        )
    few = f" {lead.n} seeds are few." if lead.n < pairs.ENOUGH_SEEDS else ""
    if low <= 0:
        return f"That is within the noise of the seed (95 % {between(low, high)}, {lead.n} seeds).{few}"
    chosen = " The leader was chosen after the fact, which flatters it." if masks > 2 else ""
    return f"That is more than the noise of the seed (95 % {between(low, high)}, {lead.n} seeds).{few}{chosen}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
