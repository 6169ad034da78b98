"""Runs of different methods on equal terms: accuracy over seeds against trained parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlae_lab.core import recipes
from mlae_lab.core.budget import expected_active
from mlae_lab.core.config import Badge, RunConfig
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.runs import outcomes
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore


@dataclass(frozen=True)
class MethodPoint:
    """Runs that differ in their seed only.

    Attributes:
        what: The method, such as "SSF" or "stochastic mask".
        name: Of the method in the registry.
        parameters: Trained parameters without the head.
        active: Those that act in a training step on average: less than all with a mask that drops experts.
        accuracy: After the last epoch, over the seeds.
        settings: What else was set: recipe or epochs and learning rate, and the method's settings.
        runs: Ids, one per seed.
    """

    what: str
    name: str
    parameters: int
    active: float
    accuracy: SeedStatistics
    settings: str
    runs: tuple[str, ...]


def badges(runs: Sequence[Run]) -> dict[Badge, int]:
    """The badges of finished runs, the most frequent first: accuracies are comparable within one only."""
    counts: dict[Badge, int] = {}
    for run in runs:
        if run.status is Status.FINISHED:
            counts[run.config.badge] = counts.get(run.config.badge, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def method_points(store: RunStore, runs: Sequence[Run], badge: Badge) -> list[MethodPoint]:
    """One point for each set of settings, fewest parameters first. Branched runs and runs with a time limit or early
    stopping are not counted: they were not trained as their settings say.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:  # newest first: of two runs with one seed the newer counts
        config = run.config
        usable = run.status is Status.FINISHED and run.relation != "branched" and not config.ends_early
        if usable and config.badge == badge and not config.unavailable:
            groups.setdefault(config.canonical("seed", "device", "precision"), {}).setdefault(config.seed, run)
    points = []
    for by_seed in groups.values():
        values = {seed: value for seed, run in by_seed.items() if (value := outcomes.accuracy(store, run)) is not None}
        if not values:
            continue
        config = next(iter(by_seed.values())).config
        parameters = config.tuning.parameters(config.network)
        plan = config.plan
        share = expected_active(plan) / plan.experts if config.has_mask and plan.experts else 1.0
        statistics = seed_statistics(config.epochs, [values[seed] for seed in sorted(values)], PERCENT)
        points.append(
            MethodPoint(
                config.what, config.method, parameters, parameters * share, statistics, _settings(config),
                tuple(by_seed[seed].id for seed in sorted(values)),
            )
        )  # fmt: skip
    return sorted(points, key=lambda point: (point.parameters, -point.accuracy.mean))


def _settings(config: RunConfig) -> str:
    recipe = recipes.followed(config)
    schedule = recipe or f"{config.epochs:,} epochs, learning rate {config.learning_rate:g}"
    return ", ".join([schedule, *config.method_settings])
