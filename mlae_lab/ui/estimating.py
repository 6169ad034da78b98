"""Estimated durations, for the views that start runs."""

from __future__ import annotations

from mlae_lab.core.config import RunConfig
from mlae_lab.runs.estimate import Estimate, Pace, estimate, pace, rough_estimate
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui import queries

_MAX_KEPT = 1000
_SHARED_SECONDS = 10.0
_paces: dict[tuple, Pace | None] = {}


def estimated(config: RunConfig) -> Estimate:
    """The estimated duration of a run, from earlier runs of the store on this machine."""
    return estimate(queries.store(), config, _pace)


def estimated_or_rough(config: RunConfig) -> Estimate:
    """`estimated`, or where no similar run was timed the order of magnitude (`rough_estimate`)."""
    known = estimated(config)
    return known if known.seconds is not None else rough_estimate(queries.store(), config, _pace)


def estimated_arm(config: RunConfig) -> Estimate:
    """Like `estimated`, at most ten seconds old, and the same for all arms that an estimate cannot tell apart."""
    experts = config.plan.experts if config.has_mask else 0
    key = (
        config.task, config.backbone, config.method, config.protocol, config.epochs, config.evaluations, experts,
        config.batch_size, config.precision, config.device, config.prepared, config.data_label, config.max_seconds,
        config.image_size, config.augmentation, config.mixup, config.drop_path, config.consistency, config.folds,
        config.method_settings, config.accumulation,
    )  # fmt: skip
    return queries.shared(("estimate", *key), lambda: estimated(config), _SHARED_SECONDS)


def _pace(store: RunStore, run: Run) -> Pace | None:
    """The pace of a run, read once: it never changes after the end."""
    key = (store.folder, run.id, run.ended)
    if key not in _paces:
        if len(_paces) > _MAX_KEPT:
            _paces.clear()
        _paces[key] = pace(store, run)
    return _paces[key]
