"""Repeats: the same run with other seeds, and the variation of the result between seeds.

The seed determines the initial head, the initial a of every expert, the order of the images, the sampled masks, and
the weights of a randomly initialised backbone. The images are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.inference import half_width
from mlae_lab.core.seed_statistics import (
    PERCENT,
    SeedStatistics,
    between,
    points,
    seed_statistics,
)
from mlae_lab.runs import commands, devices, outcomes, pairs
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_SEEDS = 30
RELATION = "repeat"


@dataclass(frozen=True)
class Repeat:
    """One seed of a run. accuracy: top-1 in percent after the last epoch, None before it."""

    seed: int
    run: Run
    accuracy: float | None


@dataclass(frozen=True)
class Repeats:
    """All seeds of one run.

    Attributes:
        seeds: In ascending order.
        excluded: Runs with the same settings that did not start from the same weights or images, with the reason.
    """

    seeds: tuple[Repeat, ...]
    excluded: tuple[tuple[Run, str], ...]

    @property
    def done(self) -> tuple[Repeat, ...]:
        """Those evaluated after their last epoch."""
        return tuple(repeat for repeat in self.seeds if repeat.accuracy is not None)

    @property
    def statistics(self) -> SeedStatistics | None:
        """Of the accuracy after the last epoch, in percent; None without any."""
        if not self.done:
            return None
        return seed_statistics(
            self.done[0].run.config.evaluated_epochs[-1],
            [r.accuracy for r in self.done if r.accuracy is not None],
            PERCENT,
        )

    @property
    def summary(self) -> str:
        """The result of the repeats, in one or two sentences."""
        statistics = self.statistics
        if statistics is None:
            return "No run with these settings has reached its last epoch yet, so there is no mean."
        if statistics.interval is None:
            return (
                f"One seed ends at {statistics.mean:.1f} %. One run does not show the variation between seeds: repeat "
                f"it with at least {pairs.ENOUGH_SEEDS} seeds."
            )
        deviation, low, high = statistics.interval
        n, mean = statistics.n, statistics.mean
        if deviation < 1e-9:
            return f"All {n} seeds end at {mean:.1f} %: the evaluation is too coarse to estimate a standard deviation."
        few = " Two seeds are few: run at least three." if n < pairs.ENOUGH_SEEDS else ""
        return (
            f"{mean:.1f} % on average over {n} seeds (95 % interval {low:.1f} to {high:.1f} %); the standard deviation "
            f"between seeds is {points(deviation)} points.{few}"
        )

    @property
    def noise(self) -> str:
        """The difference by which a single run of another mask exceeds the seed noise.

        "" without a standard deviation between seeds.
        """
        statistics = self.statistics
        if statistics is None or statistics.interval is None or statistics.interval[0] < 1e-9:
            return ""
        deviation = statistics.interval[0]
        gap = half_width(deviation, statistics.n) * (2 * statistics.n) ** 0.5  # 95 % of gaps are smaller
        return (
            f"The standard deviation over seeds is {deviation:.2f} points: two single runs that differ only in the "
            f"seed are up to {points(gap)} points apart (95 % of such pairs). A smaller difference to a single run of "
            "another mask is within the seed noise; paired runs can detect smaller differences."
        )


def repeats(store: RunStore, run: Run) -> Repeats:
    """All runs of a store that differ from a run in the seed only (see `pairs.by_seed`); empty for a branched run."""
    if run.relation == "branched":
        return Repeats((), ())
    seeds, excluded = [], []
    for seed, other in pairs.by_seed(store, run, alive_first=True).items():
        reason = pairs.unlike_because(store, run, other) if other.id != run.id else None
        if reason:
            excluded.append((other, reason))
            continue
        curve = outcomes.accuracies(store, other)
        seeds.append(Repeat(seed, other, curve[-1][1] if outcomes.is_through(other, curve) else None))
    return Repeats(tuple(seeds), tuple(excluded))


def wanted(store: RunStore, run_id: str, seeds: int) -> list[Run | RunConfig]:
    """What `launch_repeats` would reuse or start, by seed: a Run to reuse, or the config to start.

    Existing runs count whatever their seed; missing ones get the lowest free seeds, from the lowest of these runs on.
    Nothing is started. Raises as `launch_repeats`.
    """
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    run = store.run(run_id)
    if run.relation == "branched":
        raise StoreError(
            f"run {run.id} was branched from a checkpoint of run {run.parent}: repeat that run, or launch a new run "
            "with these settings"
        )
    if run.config.max_seconds is not None:
        raise ConfigError(
            f"run {run.id} stops after {run.config.max_seconds:g} seconds, so a repeat would train for another number "
            "of steps: repeat a run without a time limit"
        )
    if devices.kind(run.config.device) != run.device:
        raise StoreError(
            f"run {run.id} ran on {run.device} and this machine would repeat it on {devices.kind(run.config.device)}: "
            "repeat it on the same device, because results differ between devices"
        )
    known = repeats(store, run)
    for other, reason in known.excluded:
        if other.relation == RELATION and other.created > run.created:
            raise StoreError(
                f"run {other.id}, a repeat of run {run.id}, does not count because {reason}: this machine has changed, "
                "so rerun the run and repeat the new one"
            )
    by_seed: dict[int, Run | RunConfig] = {
        repeat.seed: repeat.run
        for repeat in known.seeds
        if repeat.accuracy is not None or not (repeat.run.status.is_over or repeat.run.status is Status.STOPPING)
    }
    used = {*by_seed, *(other.config.seed for other, _ in known.excluded)}
    free = (seed for seed in count(min([run.config.seed, *used])) if seed not in used)
    config = for_new_run(run.config)
    configs = [replace(config, seed=seed) for seed in islice(free, max(0, seeds - len(by_seed)))]
    by_seed |= {config.seed: entry for config, entry in zip(configs, outcomes.reusable(store, configs), strict=True)}
    return [by_seed[seed] for seed in sorted(by_seed)]


def launch_repeats(store: RunStore, run_id: str, seeds: int, owner: str = "") -> list[Run]:
    """Start the missing repeats of a run and return all of them by seed; a second call starts nothing.

    Args:
        store: Of the runs.
        run_id: The run to repeat.
        seeds: Their number in all, 1 to 30.
        owner: As in `Run`.

    Raises:
        StoreError: The run is unknown or branched, or ran on another device.
        ConfigError: A time limit, or a number out of range.
    """
    return [
        entry if isinstance(entry, Run) else commands.launch_like(store, run_id, entry, owner, Origin(run_id, RELATION))
        for entry in wanted(store, run_id, seeds)
    ]


def mean_and_interval(statistics: SeedStatistics | None) -> str:
    """A mean with its 95 % interval, for a cell of a table."""
    if statistics is None:
        return "–"
    if statistics.interval is None:
        return f"{statistics.mean:.1f} %"
    _, low, high = statistics.interval
    return f"{statistics.mean:.1f} % ({between(low, high, signed=False)})"


def starting(entries: Sequence[Run | RunConfig]) -> list[int]:
    """The seeds that would be started, of a result of `wanted`."""
    return [entry.seed for entry in entries if isinstance(entry, RunConfig)]
