"""Studies as the pages show them: state and results, read at most once a second for all viewers of a server."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from mlae_lab.runs import choosing, estimate, standings, studies, study_results
from mlae_lab.runs.standings import Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.studies import State
from mlae_lab.runs.study_results import Results
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import queries
from mlae_lab.ui.estimating import estimated_arm
from mlae_lab.ui.figures.studies import StudyFigure, study_figures

_STATE_SECONDS = 1.0
_LIST_SECONDS = 2.0
_LEFT_SECONDS = 5.0
_MAX_KEPT = 200  # studies


@dataclass(eq=False)
class LoadedStudy:
    """A study at one state; equal states are one object, so that figures are made once for all viewers."""

    state: State
    results: Results
    _figures: dict[tuple[frozenset[str], str], list[StudyFigure]] = field(default_factory=dict)

    @cached_property
    def race(self) -> Race | None:
        """How its masks stand; None if it does not compare masks."""
        return standings.race(queries.store(), self.state, queries.curve)

    @property
    def stored(self) -> StoredStudy:
        return self.state.stored

    def figures(self, hidden: Collection[str], task: str = "") -> list[StudyFigure]:
        """All figures of a task, "" for the only one, without hidden arms."""
        key = frozenset(hidden), task
        if key not in self._figures:
            if len(self._figures) > 8:
                self._figures.clear()
            curves = studies.curves(queries.store(), self.state, queries.curve)
            self._figures[key] = study_figures(self.results, curves, hidden, task)
        return self._figures[key]


_loaded: dict[tuple, LoadedStudy] = {}


def load(name: str, seconds: float = _STATE_SECONDS) -> LoadedStudy:
    """A study by its id. seconds: how old its state may be. Raises StoreError if it is unknown or damaged."""
    return queries.shared(("study", name), lambda: _load(name, seconds), seconds)


def _load(name: str, seconds: float) -> LoadedStudy:
    store = queries.store()
    state = studies.state(store, name, queries.curve, queries.runs(seconds))
    stored = state.stored
    cells = tuple((c.run and (c.run.id, c.run.status), c.accuracy, c.reached) for c in state.cells)
    key = (store.folder, name, stored.version, stored.halted, cells)
    if key not in _loaded:
        if len(_loaded) > _MAX_KEPT:
            _loaded.clear()
        _loaded[key] = LoadedStudy(state, study_results.results(store, state, queries.seconds))
    return _loaded[key]


def stored_studies() -> list[StoredStudy]:
    """All studies, newest first."""
    return queries.shared(("studies",), queries.store().studies, _LIST_SECONDS)


def unread_studies() -> list[str]:
    """The ids of studies that cannot be read."""
    return queries.shared(("studies_unread",), queries.store().unread_studies, _LIST_SECONDS)


def choice_report(loaded: LoadedStudy) -> choosing.Report | None:
    """What a study that chooses says about its choice, at most five seconds old; None for one that only compares."""
    if loaded.stored.study.choice is None:
        return None
    key = ("choice", loaded.stored.id, loaded.stored.version, loaded.state.done)
    return queries.shared(key, lambda: choosing.report(queries.store(), loaded.state, queries.curve), _LEFT_SECONDS)


# ---------------------------------------------------------------- time


@dataclass(frozen=True)
class Left:
    """Estimated seconds to the end of a study, its runs one after the other; runs: that are not through."""

    runs: int
    seconds: float
    low: float
    high: float


def time_left(loaded: LoadedStudy) -> Left | None:
    """The estimated time left, at most five seconds old; None if an arm has no estimate."""
    name = loaded.stored.id
    return queries.shared(("study_left", name, loaded.stored.version), lambda: _time_left(loaded.state), _LEFT_SECONDS)


def _time_left(state: State) -> Left | None:
    seconds = low = high = 0.0
    runs = 0
    known: dict[str, estimate.Estimate] = {}
    for cell in state.cells:
        if cell.accuracy is not None:
            continue
        runs += 1
        if cell.run is not None and cell.run.status is Status.RUNNING:
            tail = queries.tail(cell.run.id, _LEFT_SECONDS)
            left = tail.outcome(cell.run.config).seconds_left
            if left is not None:
                seconds, low, high = seconds + left, low + left, high + left
                continue
        if cell.arm not in known:
            known[cell.arm] = estimated_arm(state.stored.study.arm(cell.arm).config)
        entry = known[cell.arm]
        if entry.seconds is None or entry.low is None or entry.high is None:
            return None
        seconds, low, high = seconds + entry.seconds, low + entry.low, high + entry.high
    return Left(runs, seconds, low, high)
