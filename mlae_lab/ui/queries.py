"""What pages read: the store, and runs followed event by event, shared by all viewers of a server.

Truth lies on disk; what is kept here is a memory of rows already read. Nothing here writes a run.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import (
    Evaluation,
    Event,
    ExpertStats,
    Predictions,
    Preparing,
    SampleImages,
    SimilarityStats,
    Started,
    Statistics,
    TrainStep,
)  # fmt: skip
from mlae_lab.core.plan import Kind, MaskPlan
from mlae_lab.locations import default_store
from mlae_lab.runs import supervisor
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui.figures import Running

_LOOK_SECONDS = 1.0
_SHARED_SECONDS = 0.25
_VIEWER_SECONDS = 10.0  # a session that has not looked for so long is gone
_FEW_VIEWERS = 5
_MANY_VIEWERS = 10
T = TypeVar("T")


@lru_cache(maxsize=4)
def _open(folder) -> RunStore:
    return RunStore(folder)


def store() -> RunStore:
    """The store of this server."""
    return _open(default_store())


class Tail:
    """One run, read once: every update fetches only events that are new."""

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
        self.sample_images: SampleImages | None = None
        self._made: dict[str, tuple[Hashable, Any]] = {}

    def update(self) -> None:
        """Read what is new."""
        with self._lock:
            new = store().events(self.run_id, after=self.seen)
            if new and self.first and store().event_ids(self.run_id)[0] != self.first:
                self._forget()  # it was put away or deleted and came back: all of it is new
                new = store().events(self.run_id)
            for stored in new:
                self.first = self.first or stored.id
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

    def outcome(self, config: RunConfig) -> Outcome:
        """What the run has reached so far. config: of the run."""
        return Outcome(config, self.started, self.evaluations, self.steps[-1] if self.steps else None)

    def memo(self, name: str, revision: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives for a revision of the data, made once and then shared by all viewers."""
        with self._lock:
            known = self._made.get(name)
            if known is None or known[0] != revision:
                known = self._made[name] = (revision, make())
            return known[1]

    def seconds_left(self) -> float | None:
        """Time to the end at the pace so far, None before the first step."""
        if not self.steps or self.started is None:
            return None
        last = self.steps[-1]
        spent = max(last.seconds, self.evaluations[-1].seconds if self.evaluations else 0.0)
        return spent / last.step * (self.started.steps - last.step)


_tails: OrderedDict[str, Tail] = OrderedDict()
_tails_lock = threading.Lock()
_last_look = 0.0


def tail(run_id: str, seconds: float = _SHARED_SECONDS) -> Tail:
    """The run's tail, at most so many seconds old. The 64 runs looked at last are kept."""
    with _tails_lock:
        found = _tails.pop(run_id, None) or Tail(run_id)
        _tails[run_id] = found
        while len(_tails) > 64:
            _tails.popitem(last=False)
    shared(("tail", run_id), found.update, seconds)
    return found


def run(run_id: str) -> Run:
    """One run, with its status checked against its process. Raises StoreError for an unknown run."""
    _check_processes()
    return shared(("run", run_id), lambda: derived(store(), store().run(run_id)))


def runs() -> list[Run]:
    """All runs, newest first, with their statuses checked."""
    _check_processes()
    return shared(("runs",), lambda: [derived(store(), run) for run in store().runs()])


def refresh() -> None:
    """Forget what was read a moment ago: somebody has just changed something."""
    _read.clear()


@dataclass(frozen=True)
class Reference:
    """A finished run that stands beside another one."""

    run: str
    evaluations: tuple[Evaluation, ...]
    similarity: tuple[SimilarityStats, ...]


def references(run: Run) -> dict[str, Reference]:
    """The newest finished runs with the same settings as this one but for the mask: "dense" for one with every expert
    and no drop rate, "probe" for a linear probe. Each only where it is another run than this one."""
    return shared(("references", run.id), lambda: _references(run), 5.0)


def _references(run: Run) -> dict[str, Reference]:
    found: dict[str, Run] = {}
    mine = run.config
    for other in runs():
        config = other.config
        if other.status is not Status.FINISHED or other.id == run.id or config.backbone != mine.backbone:
            continue
        if replace(config, plan=mine.plan, method=mine.method) != mine:
            continue
        if config.method == "linear" and mine.method != "linear":
            name = "probe"
        elif config.method == mine.method == "mlae" and _is_dense_of(config.plan, mine.plan):
            name = "dense"
        else:
            continue
        before = found.get(name)
        if before is None or (_as_wide(other, run) and not _as_wide(before, run)):
            found[name] = other
    its = {name: tail(other.id) for name, other in found.items()}
    return {
        name: Reference(found[name].id, tuple(seen.evaluations), tuple(seen.similarity)) for name, seen in its.items()
    }


def _as_wide(other: Run, run: Run) -> bool:
    """Whether the canvas of another run has as many columns; a mask of the paper may be wider than the dense one beside it."""
    return other.config.plan.columns == run.config.plan.columns


def _is_dense_of(plan: MaskPlan, mine: MaskPlan) -> bool:
    """Whether a plan has all its experts and no drop rate, in the layers of another one, made and trained in the same way."""
    same = ("targets", "expert_rank", "coefficient_init", "train_coefficients")
    return plan.kind is Kind.DENSE and all(getattr(plan, name) == getattr(mine, name) for name in same)


_read: dict[tuple, tuple[float, Any]] = {}


def shared(key: tuple, make: Callable[[], T], seconds: float = _SHARED_SECONDS) -> T:
    """What was read a moment ago for another viewer, else what is read now; twenty viewers cost about as much as one."""
    key, now = (*key, store().folder), time.monotonic()
    known = _read.get(key)
    if known is not None and now - known[0] < seconds:
        return known[1]
    value = make()
    if len(_read) > 500:
        _read.clear()
    _read[key] = now, value
    return value


_viewers: dict[str, float] = {}


def refresh_seconds(session: str, on_cores: bool = True) -> float:
    """How often the bench of a session is drawn: every second for a few viewers, less often for a crowd. On the cores
    that the server needs too, a run loses about what the server takes (benchmarks/viewers.py).

    on_cores: the run that is watched trains on the processor.
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
