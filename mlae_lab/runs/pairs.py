"""Paired runs: equal in all settings except the mask; and their difference with its statistics over seeds.

Two runs with one seed share the initial head, the initial a of every expert that both masks have, the batches and the
random numbers from which masks are sampled. So B - A after an epoch is the effect of the mask for this seed; its
variation between seeds needs several pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from mlae_lab.core import catalog
from mlae_lab.core.config import ConfigError, RunConfig, differences
from mlae_lab.core.events import Started
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.seed_statistics import SeedStatistics, between, points, seed_statistics, seeds_needed
from mlae_lab.core.settings import setting_of
from mlae_lab.runs import commands, devices
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import accuracies, candidates, is_through, may_be_same_images
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_SEEDS = 10
ENOUGH_SEEDS = 3


# ---------------------------------------------------------------- what a pair is


def unpaired_because(a: RunConfig, b: RunConfig) -> str | None:
    """Why two configs are not a pair, as the end of a sentence; None if they are.

    All settings except the mask must be equal, the seed included. The folder of the images does not count, nor how
    the device is written if it is the same one on this machine.
    """
    return _unpaired(a, b, devices.kind(a.device), devices.kind(b.device))


def is_paired(a: RunConfig, b: RunConfig) -> bool:
    """Whether two configs differ in the mask only."""
    return unpaired_because(a, b) is None


def unpaired_runs_because(store: RunStore, a: Run, b: Run) -> str | None:
    """Like `unpaired_because` for two runs: compares the devices they ran on and what they started from, too."""
    return _unpaired(a.config, b.config, a.device, b.device) or unlike_because(store, a, b)


def _unpaired(a: RunConfig, b: RunConfig, device_a: str, device_b: str) -> str | None:
    without = [f"{name} ({config.what})" for name, config in (("A", a), ("B", b)) if not config.has_mask]
    if without:
        return f"{' and '.join(without)} {'has' if len(without) == 1 else 'have'} no mask"
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
    return _time_limited(a)


def _time_limited(config: RunConfig) -> str | None:
    if config.max_seconds is None:
        return None
    return (
        f"they stop after {config.max_seconds:g} seconds and their learning rate depends on the time, so it differs "
        "between them at the same step"
    )


def unlike_because(store: RunStore, a: Run, b: Run) -> str | None:
    """Why two runs whose configs are paired, or equal up to the seed, did not start from the same; None if they did."""
    for run in (a, b):
        if run.relation == "branched":
            return f"run {run.id} was branched from a checkpoint of another run, so the two starts differ"
    if not may_be_same_images(a.config, b.config):
        return f"their images differ: fingerprints {a.config.data_fingerprint} and {b.config.data_fingerprint}"
    start_a, start_b = store.last(a.id, Started), store.last(b.id, Started)
    if start_a and start_b:
        random_weights = a.config.seed != b.config.seed and not catalog.backbone(a.config.backbone).trained
        if start_a.weights and start_b.weights and start_a.weights != start_b.weights and not random_weights:
            return f"their weights differ: fingerprints {start_a.weights} and {start_b.weights}"
        if start_a.precision != start_b.precision:
            return f"their precisions differ: {start_a.precision} and {start_b.precision}"
        for name, x, y in (
            ("training", start_a.train_images, start_b.train_images),
            ("evaluation", start_a.evaluation_images, start_b.evaluation_images),
        ):
            if x != y:
                return f"their numbers of {name} images differ: {x:,} and {y:,}"
    return None


def beyond_the_cells(a: MaskPlan, b: MaskPlan, name_a: str = "A", name_b: str = "B") -> list[str]:
    """Differences of two plans other than cells and drop rates, each as one sentence without its full stop."""
    sentences = []
    if a.expert_rank != b.expert_rank:
        sentences.append(f"the experts have rank {a.expert_rank} in {name_a} and {b.expert_rank} in {name_b}")
    if a.coefficient_init != b.coefficient_init:
        sentences.append(f"the initial λ is {a.coefficient_init:g} in {name_a} and {b.coefficient_init:g} in {name_b}")
    if a.train_coefficients != b.train_coefficients:
        sentences.append(f"λ is trained in {name_a if a.train_coefficients else name_b} only")
    if a.targets != b.targets:
        sentences.append("the masks are on other layers, and only cells of shared layers start equal")
    return sentences


# ---------------------------------------------------------------- the pairs of a store


@dataclass(frozen=True)
class Pair:
    """Two runs with one seed.

    Attributes:
        seed: Of both.
        a: The first run.
        b: The second run.
        accuracy_a: (epoch, top-1 accuracy in percent) of the scheduled evaluations of a, in order.
        accuracy_b: The same for b.
        last_epoch: The epoch that a verdict needs.
    """

    seed: int
    a: Run
    b: Run
    accuracy_a: tuple[tuple[int, float], ...]
    accuracy_b: tuple[tuple[int, float], ...]
    last_epoch: int

    @property
    def difference(self) -> tuple[tuple[int, float], ...]:
        """(epoch, B - A in percentage points) after every epoch at which both were evaluated."""
        of_a = dict(self.accuracy_a)
        return tuple((epoch, accuracy - of_a[epoch]) for epoch, accuracy in self.accuracy_b if epoch in of_a)

    @property
    def is_complete(self) -> bool:
        """Whether both were evaluated after the last epoch; a run with a time limit can finish without."""
        return bool(self.difference) and self.difference[-1][0] == self.last_epoch


def sides(store: RunStore, a: Run, b: Run) -> dict[int, tuple[Run | None, Run | None]]:
    """By seed, the runs with the configs of a and b up to the seed, None where there is none (see `by_seed`).

    Empty if a and b are not of one family."""
    same_seed = replace(b.config, seed=a.config.seed)
    if "branched" in (a.relation, b.relation) or _unpaired(a.config, same_seed, a.device, b.device):
        return {}
    runs_a, runs_b = by_seed(store, a), by_seed(store, b)
    return {seed: (runs_a.get(seed), runs_b.get(seed)) for seed in sorted({*runs_a, *runs_b})}


def by_seed(store: RunStore, like: Run, alive_first: bool = False) -> dict[int, Run]:
    """By seed, the runs that differ from a run in the seed only, that run included.

    Of several runs with one config, the one that got furthest: evaluated after its last epoch, else evaluated, else
    queued or active; of equals the newest. Runs that ended without an evaluation and branched runs are left out.

    Args:
        store: With the runs.
        like: The run.
        alive_first: Prefer a run that may still reach its last epoch to one that ended before.
    """
    key = _family_key(like)
    best: dict[int, tuple[tuple, Run]] = {}
    for run in store.runs():
        if run.relation == "branched" or _family_key(run) != key or not may_be_same_images(run.config, like.config):
            continue
        if like.config.has_mask and run.config.plan != like.config.plan:
            continue
        run, curve = derived(store, run), accuracies(store, run)
        if run.status.is_over and not curve:
            continue
        rank = (is_through(run, curve), alive_first and not run.status.is_over, bool(curve), run.created)
        if run.config.seed not in best or rank > best[run.config.seed][0]:
            best[run.config.seed] = (rank, run)
    return {seed: best[seed][1] for seed in sorted(best)}


def family(store: RunStore, a: Run, b: Run) -> list[Pair]:
    """All pairs that are equal to a and b up to the seed, by seed, where both runs were evaluated."""
    pairs = []
    for seed, (run_a, run_b) in sides(store, a, b).items():
        if run_a is None or run_b is None or unlike_because(store, run_a, run_b):
            continue
        last_epoch = run_a.config.evaluated_epochs[-1]
        pair = Pair(seed, run_a, run_b, accuracies(store, run_a), accuracies(store, run_b), last_epoch)
        if pair.accuracy_a and pair.accuracy_b:
            pairs.append(pair)
    return pairs


def other_masks(store: RunStore, run: Run) -> list[Run]:
    """For each other mask one run with this run's settings, the newest masks first.

    Of several runs with one mask the one with this run's seed, else the newest.
    """
    if not run.config.has_mask or run.relation == "branched" or _time_limited(run.config):
        return []
    key = _family_key(run)
    by_plan: dict[MaskPlan, Run] = {}
    for other in store.runs():  # the newest first
        plan = other.config.plan
        if other.relation == "branched" or plan == run.config.plan or _family_key(other) != key:
            continue
        if not may_be_same_images(other.config, run.config):
            continue
        if plan not in by_plan or by_plan[plan].config.seed != run.config.seed == other.config.seed:
            by_plan[plan] = other
    return list(by_plan.values())


def _family_key(run: Run) -> tuple[str, str]:
    """Equal for runs that differ only in mask, seed and what no hash holds; of the device, the actual one counts."""
    return run.config.canonical("plan", "seed", "device"), run.device


# ---------------------------------------------------------------- the difference


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
        complete = any(pair.is_complete for pair in self.pairs)
        return self.over_epochs[-1] if complete else None

    @property
    def seeds_needed(self) -> str:
        """How many seeds a verdict would take, in words; "" without any pair, or if there is a verdict."""
        return seeds_needed(self.last) if self.last else ""

    @property
    def verdict(self) -> str:
        """The result of the comparison after the last epoch, in one or two sentences."""
        if not self.pairs:
            return "There is no difference to show yet: it needs an evaluation of both runs after the same epoch."
        last = self.last
        if last is None:
            newest = self.over_epochs[-1]
            return (
                f"After epoch {newest.epoch} of {self.pairs[0].last_epoch} B is {_relative(newest.mean)}. "
                "A verdict needs both runs at their last epoch."
            )
        if last.interval is None:
            return (
                f"B ends {_relative(last.mean)}. One pair does not show the variation between seeds: "
                f"run at least {_number(ENOUGH_SEEDS)}."
            )
        few = " Two pairs are few: run at least three." if last.n < ENOUGH_SEEDS else ""
        deviation, low, high = last.interval
        if deviation < 1e-9:
            every = "Both pairs" if last.n == 2 else f"All {last.n} pairs"
            same = "end equal" if abs(last.mean) < 1e-9 else f"end with B {_relative(last.mean)}"
            return (
                f"{every} {same}, with no variation between seeds: the evaluation is too coarse for an interval.{few}"
            )
        if low <= 0 <= high:
            return (
                f"The difference is within the seed noise: {points(last.mean, signed=True)} points, "
                f"95 % interval {between(low, high)}, {last.n} pairs.{few}"
            )
        better, low, high = ("better", low, high) if last.mean > 0 else ("worse", -high, -low)
        return (
            f"B is {better} by {points(abs(last.mean))} points "
            f"(95 % interval {between(low, high, signed=False)}, {last.n} pairs of seeds).{few}"
        )


def difference(pairs: Sequence[Pair]) -> Difference:
    """The difference of a family of pairs."""
    comparable = tuple(pair for pair in pairs if pair.difference)
    by_epoch: dict[int, list[float]] = {}
    for pair in comparable:
        for epoch, value in pair.difference:
            by_epoch.setdefault(epoch, []).append(value)
    return Difference(comparable, tuple(seed_statistics(epoch, by_epoch[epoch]) for epoch in sorted(by_epoch)))


def _relative(value: float) -> str:
    distance = points(abs(value))
    return "level with A" if distance == "0" else f"{distance} points {'above' if value > 0 else 'below'} A"


def _number(count: int) -> str:
    return {2: "two", 3: "three"}.get(count, str(count))


# ---------------------------------------------------------------- launch


def wanted(store: RunStore, run_id: str, plan: MaskPlan, seeds: int = 1) -> list[Run | RunConfig]:
    """What `launch_pair` would reuse or start: A, B, A, B, ... by seed; a Run to reuse, or the config to start.

    A run is reused if it was evaluated after its last epoch, or is queued or active. Two runs that did not start from
    the same, as after the weights were replaced, are not reused together. Nothing is started. Raises as `launch_pair`.
    """
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    run = store.run(run_id)
    if not run.config.has_mask:
        raise ConfigError(f"run {run.id} ({run.config.what}) has no mask: choose a run with experts")
    if plan == run.config.plan:
        raise ConfigError(f"this is the mask of run {run.id}: choose another one")
    if _time_limited(run.config):
        raise ConfigError(
            f"run {run.id} stops after {run.config.max_seconds:g} seconds and its learning rate depends on the time: "
            "choose a run without a time limit"
        )
    config = for_new_run(run.config)
    configs = [replace(config, plan=mask, seed=config.seed + i) for i in range(seeds) for mask in (config.plan, plan)]
    known = candidates(store, configs)
    entries: list[Run | RunConfig] = []
    for at in range(0, len(configs), 2):
        runs_a, runs_b = known[at : at + 2]
        pair: tuple[Run | None, Run | None] = (next(iter(runs_a), None), next(iter(runs_b), None))
        if runs_a and runs_b:
            alike = [two for two in product(runs_a, runs_b) if not unlike_because(store, *two)]
            if len(alike) < len(runs_a) * len(runs_b):  # a queued run has no start yet: pair it with the newest
                alike.sort(
                    key=lambda two: (all(r.status.is_over for r in two), min(r.created for r in two)), reverse=True
                )
            # otherwise use the runs that are not over, so that a second call starts nothing
            open_a, open_b = (next((r for r in runs if not r.status.is_over), None) for runs in (runs_a, runs_b))
            pair = alike[0] if alike else (open_a, open_b)
        entries += [run or config for run, config in zip(pair, configs[at : at + 2], strict=True)]
    return entries


def launch_pair(store: RunStore, run_id: str, plan: MaskPlan, seeds: int = 1, owner: str = "") -> list[Run]:
    """Start the missing runs with the settings of a run and with another mask, for its seed and the following ones.

    Runs that the store has are reused (see `wanted`), so a second call starts nothing.

    Args:
        store: Of the runs.
        run_id: Run A.
        plan: Mask of B.
        seeds: Their number, 1 to 10.
        owner: As in `Run`.

    Returns:
        A and B of the first seed, A and B of the next, and so on.

    Raises:
        StoreError: The run is unknown.
        ConfigError: A method without a mask, the same mask, a time limit, or a number of seeds out of range.
        CatalogError: The mask is on layers that the backbone does not have.
    """
    return [
        entry if isinstance(entry, Run) else commands.launch_like(store, run_id, entry, owner, Origin(run_id, "paired"))
        for entry in wanted(store, run_id, plan, seeds)
    ]


def following(store: RunStore, a: Run, b: Run) -> tuple[Run, MaskPlan, int]:
    """The arguments (run, plan, seeds) with which `launch_pair` starts only the next pair of a family: the one with the
    lowest seed, from the family's lowest on, that lacks a run.

    Raises as `launch_pair`, and StoreError if a and b are not of one family.
    """
    family_sides = sides(store, a, b)
    if not family_sides and unpaired_runs_because(store, a, b):
        raise StoreError(f"runs {a.id} and {b.id} are not a pair: choose two runs that differ in the mask only")
    first = family_sides[min(family_sides)] if family_sides else (a, b)  # none of the pair has an evaluation
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
