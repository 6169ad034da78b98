"""How long runs would take, for the views that start some."""

from __future__ import annotations

from mlae_lab.core.config import RunConfig
from mlae_lab.runs.estimate import Estimate, Pace, estimate, pace
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui import queries

_MAX_KEPT = 1000
_paces: dict[tuple, Pace | None] = {}


def estimated(config: RunConfig) -> Estimate:
    """How long a run would take, from what runs of this server's store took on this machine."""
    return estimate(queries.store(), config, _pace)


def _pace(store: RunStore, run: Run) -> Pace | None:
    """A run's pace; of one that is over it never changes, so it is read once."""
    key = (store.folder, run.id, run.ended)
    if key not in _paces:
        if len(_paces) > _MAX_KEPT:
            _paces.clear()
        _paces[key] = pace(store, run)
    return _paces[key]
