"""What a store has measured already: the accuracies of a run, and for a config the runs that need not be started again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Started
from mlae_lab.runs import devices
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore


def accuracies(store: RunStore, run: Run) -> tuple[tuple[int, float], ...]:
    """(epoch, top-1 in percent) after each evaluated epoch that was trained to its end, in order.

    The extra measurement of a run that was stopped within an epoch is not among them: no other run has its like.
    """
    started = store.last(run.id, "started")
    if not isinstance(started, Started):
        return ()
    per_epoch, due = -(-started.train_images // run.config.batch_size), set(run.config.evaluated_epochs)
    found = {
        stored.event.epoch: stored.event.accuracy
        for stored in store.events(run.id, kinds=(Evaluation.kind,))
        if stored.event.epoch in due and stored.event.step == stored.event.epoch * per_epoch
    }
    return tuple(sorted(found.items()))


def is_through(run: Run, measured: Sequence[tuple[int, float]]) -> bool:
    """Whether the measurements of a run reach its last epoch."""
    return bool(measured) and measured[-1][0] == run.config.evaluated_epochs[-1]


def taken(store: RunStore, configs: Sequence[RunConfig]) -> list[Run | RunConfig]:
    """For each config the run that a store has of it already, through its last epoch or on the way there; else the
    config. One that goes on from a checkpoint of another run, or ended early, does not count."""
    return [next(iter(runs), config) for runs, config in zip(candidates(store, configs), configs, strict=False)]


def candidates(store: RunStore, configs: Sequence[RunConfig]) -> list[list[Run]]:
    """For each config all runs that `taken` may take, the best first."""
    known: dict[tuple[str, str], list[Run]] = {}
    for other in store.runs():
        if other.relation != "branched":
            known.setdefault((_same(other.config), other.device), []).append(other)
    found = []
    for config in configs:
        runs = [derived(store, r) for r in known.get((_same(config), devices.kind(config.device)), ())]
        through = [r for r in runs if is_through(r, accuracies(store, r))]
        under_way = [r for r in runs if not r.status.is_over and r.status is not Status.STOPPING]
        found.append(through + under_way)
    return found


def _same(config: RunConfig) -> str:
    """Equal for configs of one experiment, wherever its images lie and however its device is written."""
    settings = {name: value for name, value in config.to_dict().items() if name not in ("data", "device")}
    return json.dumps(settings, sort_keys=True)
