"""Queries of the pages: the store, and runs followed event by event, shared by all viewers of a server.

The disk holds the truth; this module caches rows already read. Nothing here writes a run.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.events import (
    Evaluation,
    Event,
    ExpertStats,
    Predictions,
    Preparing,
    Resumed,
    SampleImages,
    SearchGeneration,
    SimilarityStats,
    Started,
    Statistics,
    TrainStep,
)
from mlae_lab.core.plan import Kind, MaskPlan
from mlae_lab.locations import default_store
from mlae_lab.runs import outcomes, supervisor
from mlae_lab.runs.event_log import DamagedEvent
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import Curve, Outcome
from mlae_lab.runs.report import sentence_of_damage
from mlae_lab.runs.run_table import Known
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui.figures import Running

_LOOK_SECONDS = 1.0
_SHARED_SECONDS = 0.25
_VIEWER_SECONDS = 10.0  # a session that did not refresh for so long has left
_FEW_VIEWERS = 5
_MANY_VIEWERS = 10
_MAX_KEPT = 6_000  # runs
T = TypeVar("T")


@lru_cache(maxsize=4)
def _open(folder) -> RunStore:
    return RunStore(folder)


def store() -> RunStore:
    """The store of this server."""
    return _open(default_store())


class Tail:
    """The events of one run; every update reads only new ones."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self.first = self.seen = 0
        self.preparing: Preparing | None = None
        self.started: Started | None = None
        self.steps: list[TrainStep] = []
        self.running = Running()
        self.evaluations: list[Evaluation] = []
        self.experts: list[ExpertStats] = []
        self.similarity: list[SimilarityStats] = []
        self.predictions: list[Predictions] = []
        self.statistics: list[Statistics] = []
        self.search: list[SearchGeneration] = []
        self.sample_images: SampleImages | None = None
        self.resumed: list[Resumed] = []
        self.damaged: dict[int, DamagedEvent] = {}
        self._cached: dict[str, tuple[Hashable, Any]] = {}

    def update(self) -> None:
        """Read the new events."""
        with self._lock:
            new = store().events(self.run_id, after=self.seen, damaged=self.damaged)
            if new:
                first, _ = store().event_ids(self.run_id)  # not that of `new`: the first event may be damaged
                if self.first and first != self.first:  # archived or deleted, and restored: all events are new
                    self._forget()
                    new = store().events(self.run_id, damaged=self.damaged)
                self.first = first
            for stored in new:
                self.seen = stored.id
                self._take(stored.event)

    def _take(self, event: Event) -> None:
        match event:
            case Preparing():
                self.preparing = event
            case Started():
                self.started = event
            case SampleImages():
                self.sample_images = event
            case TrainStep():
                self.steps.append(event)
                self.running.add(event)
            case Evaluation():
                self.evaluations.append(event)
            case ExpertStats():
                self.experts.append(event)
            case SimilarityStats():
                self.similarity.append(event)
            case Predictions():
                self.predictions.append(event)
            case Statistics():
                self.statistics.append(event)
            case SearchGeneration():
                self.search.append(event)
            case Resumed():
                self.resumed.append(event)

    @property
    def notes(self) -> list[str]:
        """What was changed to train the run or when it was resumed, and which of its events are damaged."""
        events = [*([self.started] if self.started else []), *self.resumed]
        damage = [sentence_of_damage([*self.damaged.values()]).capitalize() + "."] if self.damaged else []
        return [*dict.fromkeys(note for event in events for note in event.notes), *damage]

    def outcome(self, config: RunConfig) -> Outcome:
        """What the run has reached so far, given its config."""
        return Outcome(config, self.started, self.evaluations, self.steps[-1] if self.steps else None)

    def memo(self, name: str, revision: Hashable, make: Callable[[], T]) -> T:
        """The result of `make` for a revision of the data, made once and shared by all viewers."""
        with self._lock:
            known = self._cached.get(name)
            if known is None or known[0] != revision:
                known = self._cached[name] = (revision, make())
            return known[1]


_tails: OrderedDict[str, Tail] = OrderedDict()
_tails_lock = threading.Lock()
_last_look = 0.0


def tail(run_id: str, seconds: float = _SHARED_SECONDS) -> Tail:
    """The tail of a run, at most so many seconds old; the 64 most recently used ones are kept."""
    with _tails_lock:
        tail_of_run = _tails.pop(run_id, None) or Tail(run_id)
        _tails[run_id] = tail_of_run
        while len(_tails) > 64:
            _tails.popitem(last=False)
    shared(("tail", run_id), tail_of_run.update, seconds)
    return tail_of_run


def run(run_id: str) -> Run:
    """One run, with its status checked against its process.

    Raises:
        StoreError: If the run is unknown.
    """
    _check_processes()
    return shared(("run", run_id), lambda: derived(store(), store().run(run_id)))


def runs(seconds: float = _SHARED_SECONDS) -> list[Run]:
    """All runs, newest first, with their statuses checked, at most so many seconds old."""
    _check_processes()
    current = store()
    return shared(("runs",), lambda: [derived(current, run) for run in current.runs()], seconds)


def refresh() -> None:
    """Clear the shared results after a change."""
    _shared.clear()


@dataclass(frozen=True)
class Reference:
    """A finished run to compare another one with."""

    run: str
    evaluations: tuple[Evaluation, ...]
    similarity: tuple[SimilarityStats, ...]


def references(run: Run) -> dict[str, Reference]:
    """The newest finished runs that differ from this one only in the mask or the method.

    Returns:
        "dense": A run with every expert and no drop rate; "probe": a linear probe. Each only if it exists.
    """
    return shared(("references", run.id), lambda: _references(run), 5.0)


_MAY_DIFFER = {"plan", "method", "method_settings", "learned_drop_rates", "drop_rate_entropy"}


def _references(run: Run) -> dict[str, Reference]:
    references: dict[str, Run] = {}
    config_of_run = run.config
    for other in runs():
        config = other.config
        if other.status is not Status.FINISHED or other.id == run.id or config.backbone != config_of_run.backbone:
            continue
        if config.learned_drop_rates != "off" or not set(differences(config, config_of_run)) <= _MAY_DIFFER:
            continue
        if config.tuning.trains_only_head and not config_of_run.tuning.trains_only_head:
            name = "probe"
        elif config.has_mask and config_of_run.has_mask and _is_dense_of(config.plan, config_of_run.plan):
            name = "dense"
        else:
            continue
        before = references.get(name)
        if before is None or (_as_wide(other, run) and not _as_wide(before, run)):
            references[name] = other
    tails = {name: tail(other.id) for name, other in references.items()}
    return {
        name: Reference(references[name].id, tuple(tail_of_reference.evaluations), tuple(tail_of_reference.similarity))
        for name, tail_of_reference in tails.items()
    }


def _as_wide(other: Run, run: Run) -> bool:
    """Whether another run has as many columns; a mask of the paper may be wider than its dense counterpart."""
    return other.config.plan.columns == run.config.plan.columns


def _is_dense_of(plan: MaskPlan, other: MaskPlan) -> bool:
    """Whether a plan has all experts and no drop rate, with the layers and the expert settings of another plan."""
    same = ("targets", "expert_rank", "coefficient_init", "train_coefficients")
    return plan.kind is Kind.DENSE and all(getattr(plan, name) == getattr(other, name) for name in same)


_shared: dict[tuple, tuple[float, Any]] = {}


def shared(key: tuple, make: Callable[[], T], seconds: float = _SHARED_SECONDS) -> T:
    """A result of at most so many seconds ago, else that of `make`: twenty viewers cost about as much as one."""
    key, now = (*key, store().folder), time.monotonic()
    entry = _shared.get(key)
    if entry is not None and now - entry[0] < seconds:
        return entry[1]
    value = make()
    if len(_shared) > 500:
        _shared.clear()
    _shared[key] = now, value
    return value


_curves: dict[tuple, Curve] = {}
_seconds: dict[tuple, float | None] = {}
_accuracies: dict[tuple, float | None] = {}


def curve(store: RunStore, run: Run) -> Curve:
    """The comparable accuracies of a run (`Outcome.curve`); those of a run that is over are read once."""
    return _once(_curves, store, run, lambda: outcomes.accuracies(store, run))


def seconds(store: RunStore, run: Run) -> float | None:
    """The training time of a run so far; that of a run that is over is read once."""
    return _once(_seconds, store, run, lambda: outcomes.outcome(store, run).seconds)


def accuracy(run: Run) -> float | None:
    """The accuracy of a run (`Outcome.last`), None before its first evaluation; that of a run that is over is read
    once."""
    current = store()
    return _once(_accuracies, current, run, lambda: outcomes.accuracy(current, run))


def _once(known: dict[tuple, T], store: RunStore, run: Run, query: Callable[[], T]) -> T:
    key = (store.folder, run.id, run.ended)
    if key in known:
        return known[key]
    value = query()
    if run.status.is_over:
        if len(known) > _MAX_KEPT:
            known.clear()
        known[key] = value
    return value


_rows: dict[Path, Known] = {}


def known_rows(store: RunStore) -> Known:
    """What was read of the runs that are over (`run_table.rows`), shared by all viewers."""
    known = _rows.setdefault(store.folder, {})
    if len(known) > _MAX_KEPT:
        known.clear()
    return known


_viewers: dict[str, float] = {}


def refresh_seconds(session: str, on_cores: bool = True) -> float:
    """The refresh interval of the bench of a session: a second for a few viewers, longer for many.

    A run on the CPU loses about the time that the server takes (benchmarks/viewers.py).

    Args:
        session: Identifies the viewer.
        on_cores: Whether the run trains on the CPU.
    """
    now = time.monotonic()
    _viewers[session] = now
    for other, at in list(_viewers.items()):
        if now - at > _VIEWER_SECONDS:
            _viewers.pop(other, None)
    if len(_viewers) <= _FEW_VIEWERS:
        return 1.0
    return 2.0 if on_cores and len(_viewers) > _MANY_VIEWERS else 1.5


def _check_processes() -> None:
    global _last_look
    if time.monotonic() - _last_look >= _LOOK_SECONDS:
        _last_look = time.monotonic()
        supervisor.ensure(store())
