"""Repeats: the same run with other seeds, and how far the seed alone moves the result.

What the seed decides: the head's first values, the first a of every expert, the order of the images, the masks that
are drawn, and the weights of a backbone that is random. The images are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.seed_statistics import SeedStatistics, between, points, seed_statistics
from mlae_lab.runs import commands, devices, outcomes, pairs
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError

MAX_SEEDS = 30
RELATION = "repeat"


@dataclass(frozen=True)
class Repeat:
    """One seed of a run. accuracy: top-1 in percent after the last epoch, None while it is not there."""

    seed: int
    run: Run
    accuracy: float | None


@dataclass(frozen=True)
class Repeats:
    """All seeds of one run, rising. apart: runs that are equal in everything but the seed and did not start from the
    same all the same, with the reason: they are not counted."""

    seeds: tuple[Repeat, ...]
    apart: tuple[tuple[Run, str], ...]

    @property
    def done(self) -> tuple[Repeat, ...]:
        """Those that came to their last epoch."""
        return tuple(repeat for repeat in self.seeds if repeat.accuracy is not None)

    @property
    def statistics(self) -> SeedStatistics | None:
        """Of the accuracy after the last epoch, in percent; None where no run has one."""
        if not self.done:
            return None
        return seed_statistics(
            self.done[0].run.config.evaluated_epochs[-1], [r.accuracy for r in self.done if r.accuracy is not None]
        )

    @property
    def words(self) -> str:
        """What the repeats say, in one or two sentences."""
        found = self.statistics
        if found is None:
            return "No run with these settings has come to its last epoch yet: there is nothing to average."
        if found.spread is None:
            return (
                f"One seed ends at {found.mean:.1f} %. How far the seed alone moves that cannot be told from one run: "
                f"repeat it with at least {pairs.ENOUGH_SEEDS} seeds."
            )
        deviation, low, high = found.spread
        if deviation < 1e-9:
            return f"All {found.n} seeds end at {found.mean:.1f} %: the steps of the measurement are too coarse for a spread."
        few = " Two seeds are few: run at least three." if found.n < pairs.ENOUGH_SEEDS else ""
        return (
            f"{found.mean:.1f} % on average over {found.n} seeds (95 % interval {low:.1f} to {high:.1f} %); from "
            f"seed to seed it moves by {points(deviation)} points.{few}"
        )

    @property
    def noise(self) -> str:
        """How far a single run of another mask must be away to be more than the noise of the seed; "" for fewer than two
        seeds, or no spread."""
        found = self.statistics
        if found is None or found.spread is None or found.spread[0] < 1e-9:
            return ""
        deviation, _, high = found.spread
        apart = (high - found.mean) * (2 * found.n) ** 0.5  # 95 % of differences are smaller: t(97.5 %, n - 1) s √2
        return (
            f"The standard deviation over seeds is {deviation:.2f} points: two single runs that differ in the seed alone "
            f"are up to {points(apart)} points from each other (95 % of such pairs). A single run of another mask that "
            "is nearer is within the noise of the seed; pairs of seeds see smaller differences."
        )


def repeats(store: RunStore, run: Run) -> Repeats:
    """All runs of a store that are equal to this one in everything but the seed (see `pairs.by_seed`).

    Empty for a run that goes on from a checkpoint of another one: it has no repeats, only its own past.
    """
    if run.relation == "branched":
        return Repeats((), ())
    found, apart = [], []
    for seed, other in pairs.by_seed(store, run, alive_first=True).items():
        reason = pairs.unlike_because(store, run, other) if other.id != run.id else None
        if reason:
            apart.append((other, reason))
            continue
        measured = outcomes.accuracies(store, other)
        found.append(Repeat(seed, other, measured[-1][1] if outcomes.is_through(other, measured) else None))
    return Repeats(tuple(found), tuple(apart))


def wanted(store: RunStore, run_id: str, seeds: int) -> list[Run | RunConfig]:
    """What `launch_repeats` would take or start, by seed: a Run where there is one, else its config.

    All runs that are there count, whatever their seed; what is missing to so many gets the lowest seeds that are free,
    from the lowest of these runs on. Nothing is started. Raises as `launch_repeats` does.
    """
    if type(seeds) is not int or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {MAX_SEEDS}")
    run = store.run(run_id)
    if run.relation == "branched":
        raise StoreError(
            f"run {run.id} goes on from a checkpoint of run {run.parent}: repeat that one, or start it anew from its settings"
        )
    if run.config.max_seconds is not None:
        raise ConfigError(
            f"run {run.id} stops after {run.config.max_seconds:g} seconds, so a repeat ends after another number of steps: "
            "repeat a run without a time limit"
        )
    if devices.kind(run.config.device) != run.device:
        raise StoreError(
            f"run {run.id} ran on {run.device} and this machine would repeat it on {devices.kind(run.config.device)}: repeats "
            "on two devices are not alike, so repeat it where it ran"
        )
    known = repeats(store, run)
    for other, reason in known.apart:
        if other.relation == RELATION and other.created > run.created:
            raise StoreError(
                f"run {other.id} repeated run {run.id} and does not count, as {reason}: what is on this machine has changed, so "
                "start the run anew and repeat that one"
            )
    found: dict[int, Run | RunConfig] = {
        repeat.seed: repeat.run
        for repeat in known.seeds
        if repeat.accuracy is not None or not (repeat.run.status.is_over or repeat.run.status is Status.STOPPING)
    }
    kept = {*found, *(other.config.seed for other, _ in known.apart)}
    free = (seed for seed in count(min([run.config.seed, *kept])) if seed not in kept)
    configs = [replace(run.config, seed=seed) for seed in islice(free, max(0, seeds - len(found)))]
    found |= {config.seed: entry for config, entry in zip(configs, outcomes.taken(store, configs), strict=False)}
    return [found[seed] for seed in sorted(found)]


def launch_repeats(store: RunStore, run_id: str, seeds: int, owner: str = "") -> list[Run]:
    """Start what is missing to so many seeds of a run; all of them by seed, those that were there too.

    seeds: 1 to 30, in all. Calling it again starts nothing again. Raises StoreError for an unknown run or one that goes
    on from a checkpoint, ConfigError for a time limit or a number out of range. Nothing is started then.
    """
    return [
        entry if isinstance(entry, Run) else commands.launch(store, entry, owner, Origin(run_id, RELATION))
        for entry in wanted(store, run_id, seeds)
    ]


def in_words(seen: SeedStatistics | None) -> str:
    """A mean with its interval, as a cell of a table."""
    if seen is None:
        return "–"
    if seen.spread is None:
        return f"{seen.mean:.1f} %"
    _, low, high = seen.spread
    return f"{seen.mean:.1f} % ({between(low, high, signed=False)})"


def starting(todo: Sequence[Run | RunConfig]) -> list[int]:
    """The seeds of a `wanted` that would be started."""
    return [entry.seed for entry in todo if isinstance(entry, RunConfig)]
