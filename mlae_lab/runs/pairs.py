"""Paired runs: the same everything, another mask; and the difference between them with its spread over seeds.

Two runs with one seed share the head's first values, the first a of every expert that both masks hold, the batches
and the numbers that their masks are drawn from. So B - A at one epoch is what the mask did, for this seed; how far it
moves from seed to seed is what a single pair cannot say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from mlae_lab.core import catalog
from mlae_lab.core.config import ConfigError, RunConfig, differences
from mlae_lab.core.events import Started
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, between, points, seed_statistics, seeds_needed
from mlae_lab.core.settings import setting_of
from mlae_lab.runs import commands, devices
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import accuracies, candidates, is_through
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_SEEDS = 10
ENOUGH_SEEDS = 3
_FREE = ("plan", "seed", "data", "device")  # what two runs of one family may differ in; the device is compared resolved


# ---------------------------------------------------------------- what a pair is


def unpaired_because(a: RunConfig, b: RunConfig) -> str | None:
    """Why two configs are not a pair, as the end of a sentence; None if they are.

    Equal in everything but the mask, seed included; where the images lie does not count, nor how the device is
    written where it is the same one on this machine.
    """
    return _unpaired(a, b, devices.kind(a.device), devices.kind(b.device))


def is_paired(a: RunConfig, b: RunConfig) -> bool:
    """Whether two configs differ in nothing but the mask."""
    return unpaired_because(a, b) is None


def unpaired_runs_because(store: RunStore, a: Run, b: Run) -> str | None:
    """Like `unpaired_because` for two runs: on the devices they got, and from the same start."""
    return _unpaired(a.config, b.config, a.device, b.device) or unlike_because(store, a, b)


def _unpaired(a: RunConfig, b: RunConfig, device_a: str, device_b: str) -> str | None:
    probes = [name for name, config in (("A", a), ("B", b)) if config.method != "mlae"]
    if len(probes) == 2:
        return "both are linear probes, which have no mask"
    if probes:
        return f"{probes[0]} is a linear probe, which has no mask"
    differing = {name: values for name, values in differences(a, b).items() if name not in ("plan", "data", "device")}
    if device_a != device_b:
        differing["device"] = (device_a, device_b)
    if differing:
        described = [(setting_of(RunConfig, name), values) for name, values in differing.items()]
        return "; ".join(
            f"their {setting.plural} differ: {setting.shown(x)} and {setting.shown(y)}" for setting, (x, y) in described
        )
    if a.plan == b.plan:
        return "their masks are the same"
    return _clocked(a)


def _clocked(config: RunConfig) -> str | None:
    if config.max_seconds is None:
        return None
    return (
        f"they stop after {config.max_seconds:g} seconds and their learning rate follows the clock: two such runs are "
        "never at the same rate in the same step"
    )


def unlike_because(store: RunStore, a: Run, b: Run) -> str | None:
    """What two runs whose configs are paired, or equal up to the seed, did not share all the same; None if nothing."""
    for run in (a, b):
        if run.relation == "branched":
            return f"run {run.id} goes on from a checkpoint of another run, so the two do not start alike"
    one, other = store.last(a.id, Started), store.last(b.id, Started)
    if one and other:
        drawn = a.config.seed != b.config.seed and not catalog.backbone(a.config.backbone).trained  # another net each
        if one.weights and other.weights and one.weights != other.weights and not drawn:
            return f"their weights differ: fingerprints {one.weights} and {other.weights}"
        if one.precision != other.precision:
            return f"their precisions differ: {one.precision} and {other.precision}"
        for name, x, y in (
            ("train on", one.train_images, other.train_images),
            ("measure with", one.evaluation_images, other.evaluation_images),
        ):
            if x != y:
                return f"their numbers of images to {name} differ: {x:,} and {y:,}"
    return None


def beyond_the_cells(a: MaskPlan, b: MaskPlan) -> list[str]:
    """In what two plans differ besides the cells and their drop rates, each as one sentence without its full stop."""
    found = []
    if a.expert_rank != b.expert_rank:
        found.append(f"the experts have rank {a.expert_rank} in A and {b.expert_rank} in B")
    if a.coefficient_init != b.coefficient_init:
        found.append(f"λ starts at {a.coefficient_init:g} in A and at {b.coefficient_init:g} in B")
    if a.train_coefficients != b.train_coefficients:
        found.append(f"λ is trained in {'A' if a.train_coefficients else 'B'} only")
    if a.targets != b.targets:
        found.append("the masks lie on other layers, and only cells of layers that both have start alike")
    return found


# ---------------------------------------------------------------- the pairs of a store


@dataclass(frozen=True)
class Pair:
    """Two runs with one seed. accuracy_a, accuracy_b: (epoch, top-1 in percent) of scheduled measurements, in order;
    last_epoch: the one that a verdict needs."""

    seed: int
    a: Run
    b: Run
    accuracy_a: tuple[tuple[int, float], ...]
    accuracy_b: tuple[tuple[int, float], ...]
    last_epoch: int

    @property
    def difference(self) -> tuple[tuple[int, float], ...]:
        """(epoch, B - A in points) at every epoch that both measured."""
        of_a = dict(self.accuracy_a)
        return tuple((epoch, accuracy - of_a[epoch]) for epoch, accuracy in self.accuracy_b if epoch in of_a)

    @property
    def is_complete(self) -> bool:
        """Whether both have measured the last epoch. A run can be finished without: by a time limit."""
        return bool(self.difference) and self.difference[-1][0] == self.last_epoch


def sides(store: RunStore, a: Run, b: Run) -> dict[int, tuple[Run | None, Run | None]]:
    """By seed: the run with a's config and the one with b's, up to the seed, None where there is none (see `by_seed`).
    Empty if a and b are not of one family."""
    alike = replace(b.config, seed=a.config.seed)
    if "branched" in (a.relation, b.relation) or _unpaired(a.config, alike, a.device, b.device):
        return {}
    one, other = by_seed(store, a), by_seed(store, b)
    return {seed: (one.get(seed), other.get(seed)) for seed in sorted({*one, *other})}


def by_seed(store: RunStore, like: Run, alive_first: bool = False) -> dict[int, Run]:
    """All runs that are equal in everything but the seed, this one among them if it counts, by seed.

    Of several with one config the one that came farthest: through its last epoch, else measured, else still
    waiting or under way; among equals the newest. One that ended without a measurement counts as none, and so does
    one that goes on from a checkpoint of another run. alive_first: one that may still come to its last epoch goes
    before one that ended earlier.
    """
    key = _family_key(like)
    best: dict[int, tuple[tuple, Run]] = {}
    for run in store.runs():
        if run.relation == "branched" or _family_key(run) != key:
            continue
        if like.config.method == "mlae" and run.config.plan != like.config.plan:
            continue
        run, measured = derived(store, run), accuracies(store, run)
        if run.status.is_over and not measured:
            continue
        rank = (is_through(run, measured), alive_first and not run.status.is_over, bool(measured), run.created)
        if run.config.seed not in best or rank > best[run.config.seed][0]:
            best[run.config.seed] = (rank, run)
    return {seed: best[seed][1] for seed in sorted(best)}


def family(store: RunStore, a: Run, b: Run) -> list[Pair]:
    """All pairs of a store that are like a and b up to the seed, by seed: both sides finished or at least measured."""
    found = []
    for seed, (one, other) in sides(store, a, b).items():
        if one is None or other is None or unlike_because(store, one, other):
            continue
        pair = Pair(seed, one, other, accuracies(store, one), accuracies(store, other), one.config.evaluated_epochs[-1])
        if pair.accuracy_a and pair.accuracy_b:
            found.append(pair)
    return found


def other_masks(store: RunStore, run: Run) -> list[Run]:
    """One run of each other mask that has run, or will, with this run's settings and any seed: of several the one with
    this run's seed, else the newest. Newest masks first."""
    if run.config.method != "mlae" or run.relation == "branched" or _clocked(run.config):
        return []
    found: dict[MaskPlan, Run] = {}
    for other in store.runs():  # the newest first
        plan = other.config.plan
        if other.relation == "branched" or plan == run.config.plan or _family_key(other) != _family_key(run):
            continue
        if plan not in found or found[plan].config.seed != run.config.seed == other.config.seed:
            found[plan] = other
    return list(found.values())


def _family_key(run: Run) -> tuple[str, str]:
    settings = {name: value for name, value in run.config.to_dict().items() if name not in _FREE}
    return json.dumps(settings, sort_keys=True), run.device


# ---------------------------------------------------------------- the difference


@dataclass(frozen=True)
class Difference:
    """B - A over epochs. pairs: that have an epoch in common; over_epochs: one spread for each epoch, of the pairs
    that measured it, so that the number of pairs may fall towards the end."""

    pairs: tuple[Pair, ...]
    over_epochs: tuple[SeedStatistics, ...]

    @property
    def last(self) -> SeedStatistics | None:
        """The spread after the last epoch, of the complete pairs; None where there is none."""
        complete = any(pair.is_complete for pair in self.pairs)
        return self.over_epochs[-1] if complete else None

    @property
    def seeds_needed(self) -> str:
        """How many seeds would settle it, in words; "" where there is no verdict yet or nothing left to settle."""
        return seeds_needed(self.last) if self.last else ""

    @property
    def verdict(self) -> str:
        """What the pairs say of the two masks after the last epoch, in one or two sentences."""
        if not self.pairs:
            return "There is no difference to show yet: it begins with the first epoch that both runs have measured."
        last = self.last
        if last is None:
            now = self.over_epochs[-1]
            return (
                f"After epoch {now.epoch} of {self.pairs[0].last_epoch} B is {_place(now.mean)}. "
                "A verdict needs both runs at their last epoch."
            )
        if last.spread is None:
            return (
                f"B ends {_place(last.mean)}. One pair of seeds says nothing about the next: "
                f"run at least {_number(ENOUGH_SEEDS)}."
            )
        few = " Two pairs are few: run at least three." if last.n < ENOUGH_SEEDS else ""
        deviation, low, high = last.spread
        if deviation < 1e-9:
            every = "Both pairs" if last.n == 2 else f"All {last.n} pairs"
            same = "end equal" if abs(last.mean) < 1e-9 else f"end with B {_place(last.mean)}"
            return (
                f"{every} {same}, without any spread: the steps of the measurement are too coarse for an interval.{few}"
            )
        if low <= 0 <= high:
            return (
                f"The difference is smaller than the noise of the seed: {points(last.mean, signed=True)} points, "
                f"95 % interval {between(low, high)}, {last.n} pairs.{few}"
            )
        better, low, high = ("better", low, high) if last.mean > 0 else ("worse", -high, -low)
        return (
            f"B is {better} by {points(abs(last.mean))} points "
            f"(95 % interval {between(low, high, signed=False)}, {last.n} pairs of seeds).{few}"
        )


def difference(pairs: Sequence[Pair]) -> Difference:
    """What a family of pairs says."""
    measured = tuple(pair for pair in pairs if pair.difference)
    by_epoch: dict[int, list[float]] = {}
    for pair in measured:
        for epoch, value in pair.difference:
            by_epoch.setdefault(epoch, []).append(value)
    return Difference(measured, tuple(seed_statistics(epoch, by_epoch[epoch]) for epoch in sorted(by_epoch)))


def _place(value: float) -> str:
    where = points(abs(value))
    return "level with A" if where == "0" else f"{where} points {'above' if value > 0 else 'below'} A"


def _number(count: int) -> str:
    return {2: "two", 3: "three"}.get(count, str(count))


# ---------------------------------------------------------------- starting one


def wanted(store: RunStore, run_id: str, plan: MaskPlan, seeds: int = 1) -> list[Run | RunConfig]:
    """What `launch_pair` would take or start: A, B, A, B, ... by seed; a Run where there is one, else its config.

    A run is taken if it came to its last epoch, waits, or is under way. One that ended earlier is not: its
    difference would have no last epoch; nor are two that did not start alike, as after the weights were replaced.
    Nothing is started. Raises as `launch_pair` does.
    """
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    run = store.run(run_id)
    if run.config.method != "mlae":
        raise ConfigError(f"run {run.id} is a linear probe and has no mask: pair a run with experts")
    if plan == run.config.plan:
        raise ConfigError(f"this is the same mask as that of run {run.id}: choose another one")
    if _clocked(run.config):
        raise ConfigError(
            f"run {run.id} stops after {run.config.max_seconds:g} seconds and its learning rate follows the clock: pair a "
            "run without a time limit"
        )
    configs = [
        replace(run.config, plan=mask, seed=run.config.seed + i)
        for i in range(seeds)
        for mask in (run.config.plan, plan)
    ]
    known = candidates(store, configs)
    found: list[Run | RunConfig] = []
    for at in range(0, len(configs), 2):
        ones, others = known[at : at + 2]
        both: tuple[Run | None, Run | None] = (next(iter(ones), None), next(iter(others), None))
        if ones and others:
            alike = [two for two in product(ones, others) if not unlike_because(store, *two)]
            if len(alike) < len(ones) * len(others):  # what waits shares nothing yet: rather with one as new as itself
                alike.sort(
                    key=lambda two: (all(r.status.is_over for r in two), min(r.created for r in two)), reverse=True
                )
            # without any, what is on its way counts, so that asking again starts nothing again
            fresh_one, fresh_other = (next((r for r in side if not r.status.is_over), None) for side in (ones, others))
            both = alike[0] if alike else (fresh_one, fresh_other)
        found += [run or config for run, config in zip(both, configs[at : at + 2], strict=False)]
    return found


def launch_pair(store: RunStore, run_id: str, plan: MaskPlan, seeds: int = 1, owner: str = "") -> list[Run]:
    """Start what is missing of a run and of the same run with another mask, for its seed and those that follow.

    plan: the mask of B. seeds: 1 to 10. Returns A and B of the first seed, A and B of the next, and so on; runs that
    are there already (see `wanted`) are taken, not repeated, so calling it again starts nothing again.
    Raises StoreError for an unknown run, ConfigError for a linear probe, an equal mask, a time limit or a number of
    seeds out of range, CatalogError for a mask on layers that the backbone does not have. Nothing is started then.
    """
    found = []
    for entry in wanted(store, run_id, plan, seeds):
        found.append(
            entry if isinstance(entry, Run) else commands.launch(store, entry, owner, Origin(run_id, "paired"))
        )
    return found


def following(store: RunStore, a: Run, b: Run) -> tuple[Run, MaskPlan, int]:
    """What `launch_pair` has to be called with so that the next pair of a family starts and nothing else: the one with
    the lowest seed, from the family's lowest on, that lacks a run.

    Raises as `launch_pair` does, and StoreError if a and b are not of one family.
    """
    found = sides(store, a, b)
    if not found and unpaired_runs_because(store, a, b):
        raise StoreError(f"runs {a.id} and {b.id} are no pair: there is none to repeat")
    first = found[min(found)] if found else (a, b)  # a pair of which neither has measured an epoch
    base = first[0] or first[1] or a
    plan = b.config.plan if base.config.plan == a.config.plan else a.config.plan
    while True:
        entries = wanted(store, base.id, plan, MAX_SEEDS)
        for i, pair in enumerate(zip(entries[::2], entries[1::2], strict=False)):
            if any(isinstance(entry, RunConfig) for entry in pair):
                return base, plan, i + 1
        last = entries[-2]
        assert isinstance(last, Run)  # no entry is a config here
        base = last
