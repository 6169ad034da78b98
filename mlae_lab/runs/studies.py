"""Studies in a store: start, stop, resume, extend and delete them, and see how far they are.

The runs of a study are ordinary runs. A run that the store has already is reused where its settings are equal, whoever
started it. What has to be started is enqueued at once, seed by seed, so that a partial study already compares all arms;
whatever happens then, the store knows each run and `resume` starts what is missing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mlae_lab import locks
from mlae_lab.core import catalog
from mlae_lab.core.choice_study import awaits_sample, next_arms
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Started
from mlae_lab.core.study import Arm, Cell, Study
from mlae_lab.core.weight_fit import require_weights
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import commands, estimate, outcomes, paths, sampling
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError
from mlae_lab.runs.study_table import StoredStudy

RELATION = "study"
_WAIT = 60.0  # seconds for another process that starts or stops a study


# ---------------------------------------------------------------- plan


@dataclass(frozen=True)
class Plan:
    """What a study would start.

    Attributes:
        entries: For each of its runs, seed by seed, the cell and the run that would be reused, None for a new one.
        seconds: Estimated seconds of the new runs, one after the other; None if an arm has no estimate.
        low: The lowest estimate.
        high: The highest estimate.
        unknown: Names of arms without an estimate.
        memory: Bytes that the largest run needs, without its images.
    """

    entries: tuple[tuple[Cell, Run | None], ...]
    seconds: float | None
    low: float | None
    high: float | None
    unknown: tuple[str, ...]
    memory: int

    @property
    def to_run(self) -> int:
        """Number of runs that would be started."""
        return sum(run is None for _, run in self.entries)

    @property
    def reused(self) -> int:
        """Number of runs that the store has already."""
        return len(self.entries) - self.to_run


def plan(
    store: RunStore | None,
    study: Study,
    estimate_of: Callable[[RunStore, RunConfig], estimate.Estimate] | None = None,
) -> Plan:
    """What a study would start; nothing is started.

    Args:
        store: None for one that does not exist yet.
        study: The study.
        estimate_of: A cached version of `estimate.estimate`, None for one that lives as long as this call.
    """
    entries = tuple(reusable(store, study)) if store else tuple((cell, None) for cell in study.cells())
    estimate_of = estimate_of or _estimates(store)
    missing = Counter(cell.arm for cell, run in entries if run is None)
    estimates = {arm: estimate_of(store, study.arm(arm).config) if store else None for arm in missing}
    unknown = tuple(arm for arm, known in estimates.items() if known is None or known.seconds is None)
    memory = max(estimate.estimated_memory(arm.config).total for arm in study.arms)
    return Plan(
        entries,
        _total([(count, known.seconds if (known := estimates[arm]) else None) for arm, count in missing.items()]),
        _total([(count, known.low if (known := estimates[arm]) else None) for arm, count in missing.items()]),
        _total([(count, known.high if (known := estimates[arm]) else None) for arm, count in missing.items()]),
        unknown,
        memory,
    )


def _estimates(store: RunStore | None) -> Callable[[RunStore, RunConfig], estimate.Estimate]:
    """`estimate.estimate`, which reads the rows and the times of each run once for all arms."""
    runs = store.runs() if store else []
    paces: dict[str, estimate.Pace | None] = {}

    def pace(store: RunStore, run: Run) -> estimate.Pace | None:
        if run.id not in paces:
            paces[run.id] = estimate.pace(store, run)
        return paces[run.id]

    return lambda store, config: estimate.estimate(store, config, pace, runs)


def _total(parts: Sequence[tuple[int, float | None]]) -> float | None:
    """The sum of counts times seconds, None if one of them is unknown."""
    known = [count * seconds for count, seconds in parts if seconds is not None]
    return sum(known) if len(known) == len(parts) else None


def reusable(
    store: RunStore, study: Study, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> list[tuple[Cell, Run | None]]:
    """Each run of a study, seed by seed, and the run that would be reused for it, None for a new one.

    Args:
        store: With the runs.
        study: The study.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    cells = list(study.cells())
    return [(cell, next(iter(runs), None)) for cell, runs in zip(cells, _usable(store, cells, curve_of), strict=True)]


def _usable(
    store: RunStore, cells: Sequence[Cell], curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> list[list[Run]]:
    """For each cell the runs that can be reused, the best first.

    Left out are runs on other frozen weights, or of another precision, than the newest run of the study with the same
    backbone: the file was replaced in between, or the store moved to another machine, so that runs of both kinds are
    not comparable. Of an arm without a fingerprint of its images those with others than the newest one's are left out.
    A run that recorded no weights or fingerprint, as of version 0.5, fits all, so it is the newest of no others.
    """
    by_cell = outcomes.candidates(store, [cell.config for cell in cells], curve_of)
    started = store.last_of_each((run.id for runs in by_cell for run in runs), Started)
    newest, images = dict[tuple, Run](), dict[tuple, Run]()
    for cell, runs in zip(cells, by_cell, strict=True):
        for run in runs:
            if run.id in started:
                key = _frozen(run.config)
                newest[key] = max(newest.get(key, run), run, key=lambda r: (bool(started[r.id].weights), r.created))
            if not cell.config.data_fingerprint:
                key = run.config.task, run.config.data_label
                images[key] = max(images.get(key, run), run, key=lambda r: (bool(r.config.data_fingerprint), r.created))

    def is_like_newest(cell: Cell, run: Run) -> bool:
        if not cell.config.data_fingerprint:
            other = images[run.config.task, run.config.data_label]
            if not outcomes.may_be_same_images(run.config, other.config):
                return False
        if run.id not in started:
            return True
        own, of_newest = started[run.id], started[newest[_frozen(run.config)].id]
        same_weights = own.weights == of_newest.weights or not own.weights or not of_newest.weights
        return same_weights and own.precision == of_newest.precision

    return [[run for run in runs if is_like_newest(cell, run)] for cell, runs in zip(cells, by_cell, strict=True)]


def _frozen(config: RunConfig) -> tuple:
    """Equal for runs that have the same frozen weights; those of a random backbone depend on the seed."""
    return config.backbone, config.weights, None if catalog.backbone(config.backbone).trained else config.seed


# ---------------------------------------------------------------- actions


def new(store: RunStore, study: Study, owner: str = "") -> StoredStudy:
    """Store a study and start its missing runs."""
    return new_or_extended(store, study, owner, lambda: None)


def new_or_extended(
    store: RunStore, study: Study, owner: str, existing: Callable[[], StoredStudy | None]
) -> StoredStudy:
    """Store a study, or the seeds that an existing one lacks, and start the missing runs of these seeds.

    Only of these: a request for two seeds does not start what somebody stopped or deleted of others.

    Args:
        store: For the study.
        study: What is asked for.
        owner: Of a new study.
        existing: Finds a study with the same arms. It is called while no other process can store one, so that two
            requests at the same moment make one study.
    """
    with _changing(store):
        stored = existing()
        if stored is None:
            for arm in study.arms:
                require_weights(arm.config)
            stored = store.add_study(study, owner)
        elif (longer := stored.study.extended(study.seeds)) != stored.study:
            store.add_version(stored.id, longer)
        _start(store, stored.id, study.seeds)
        return store.study(stored.id)


def start(store: RunStore, name: str) -> list[Run]:
    """Start or resume every run of a study that is neither through nor on its way; return those.

    A stopped or failed run is resumed, one that was deleted is started again. A second call starts nothing. A study
    that chooses (`Study.choice`) gets the arms of its next stage as its next version where one is complete.

    Raises:
        StoreError: A run is still stopping or archived. Nothing is started.
        ConfigError: The method of an arm is not installed. Nothing is started.
    """
    with _changing(store):
        return _start(store, name)


def advance(store: RunStore, names: Iterable[str]) -> list[str]:
    """Start the next stage of the studies that choose, were not stopped and have completed a stage; return their ids.

    The supervisor calls it when runs end, so that a study continues without a page or a terminal.
    """
    advanced = []
    for name in names:
        if store.study(name).study.choice is None:
            continue
        with _changing(store):
            stored = store.study(name)
            if not stored.halted and _awaits_stage(stored, state(store, name)) and _start(store, name):
                advanced.append(name)
    return advanced


def _awaits_stage(stored: StoredStudy, now: State) -> bool:
    if stored.study.choice is None:
        return False
    return awaits_sample(stored.study, now.values) or bool(next_arms(stored.study, now.values))


def _next_arms(stored: StoredStudy, now: State) -> tuple[Arm, ...]:
    if awaits_sample(stored.study, now.values):
        return (sampling.next_arm(stored.study, now.values),)
    return next_arms(stored.study, now.values)


@contextmanager
def _changing(store: RunStore) -> Iterator[None]:
    """Only one process at a time starts, stops or extends studies of a store: two would start a missing run twice."""
    store.require_writable()
    lock, deadline = os.open(paths.studies_lock(store.folder), os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + _WAIT
    try:
        while not locks.acquire(lock):
            if time.monotonic() > deadline:
                raise StoreError("another process is starting or stopping a study: try again in a moment")
        yield
    finally:
        os.close(lock)


def _start(store: RunStore, name: str, seeds: Collection[int] = ()) -> list[Run]:
    """As `start`. seeds: start only runs with these; none: all."""
    stored = store.study(name)
    cells = [cell for cell in stored.study.cells() if not seeds or cell.seed in seeds]
    known = store.study_cells(name)
    rows = {run.id: run for run in store.runs()}
    chosen: list[tuple[Cell, Run | None, Run | None]] = []  # the cell, a run that needs nothing, a run to resume
    for cell, candidates in zip(cells, _usable(store, cells), strict=True):
        recorded = known.get((cell.arm, cell.seed), "")
        run = next((run for run in candidates if run.id == recorded), next(iter(candidates), None))
        old = derived(store, rows[recorded]) if run is None and recorded in rows else None
        if old is not None and old.status is Status.STOPPING:
            raise StoreError(f"run {recorded} is still stopping: try again in a moment")
        if run is None and old is None and recorded and paths.archived(store.folder, recorded).exists():
            raise StoreError(f"run {recorded} is archived: restore it with `{PROGRAM} restore {recorded}` first")
        chosen.append((cell, run, old if old is not None and old.status in RESUMABLE else None))
    store.halt_study(name, False)
    begun = []
    siblings = {_files_of(cell.config): known_run for cell, run, old in reversed(chosen) if (known_run := run or old)}
    for cell, run, old in chosen:
        if run is None:
            origin, sibling = Origin(relation=RELATION, source=name), siblings.get(_files_of(cell.config))
            if old is not None:
                run = commands.resume(store, old.id)
            elif sibling is not None:  # its images or weights may have been moved
                run = commands.launch_like(store, sibling.id, cell.config, stored.owner, origin)
            else:
                run = commands.launch(store, cell.config, stored.owner, origin)
            begun.append(run)
        if known.get((cell.arm, cell.seed)) != run.id:  # at once: what is started must be known if this is cut off
            store.set_study_cells(name, {(cell.arm, cell.seed): run.id})
    if stored.study.choice and (arms := _next_arms(stored, state(store, name))):
        store.add_version(name, stored.study.extended(arms=arms))
        return begun + _start(store, name)
    return begun


def _files_of(config: RunConfig) -> tuple[str, str, str, str]:
    """Equal for runs that need the same images and frozen weights."""
    return config.task, config.data_label, config.backbone, config.weights


def stop(store: RunStore, name: str, now: bool = False) -> tuple[int, int]:
    """Stop the runs of a study; those that another study waits for, too, continue.

    Args:
        store: Of the study.
        name: Its id.
        now: As in `commands.stop`.

    Returns:
        Numbers of runs that were stopped and of those that continue for another study.
    """
    with _changing(store):
        return _stop(store, name, now)


def _stop(store: RunStore, name: str, now: bool) -> tuple[int, int]:
    store.study(name)
    store.halt_study(name, True)
    halted = store.halted_studies()
    stopped = kept = 0
    running = {run.id: run for run in store.open_runs() if (run.relation, run.source) == (RELATION, name)}
    running |= {cell.run.id: cell.run for cell in state(store, name).cells if cell.run and not cell.run.status.is_over}
    for run in sorted(
        running.values(), key=lambda run: run.status is not Status.QUEUED
    ):  # queued ones first: none starts
        if set(store.studies_of(run.id)) - halted:
            kept += 1
            continue
        commands.stop(store, run.id, now=now)
        stopped += 1
    return stopped, kept


def extend(store: RunStore, name: str, seeds: int = 0, arms: Sequence[Arm] = ()) -> StoredStudy:
    """Store the next version of a study, with more seeds or arms, and start what is missing.

    Args:
        store: Of the study.
        name: Its id.
        seeds: How many seeds to add, the next after the highest.
        arms: Arms to add.

    Raises:
        ConfigError: The study would become too large, or an arm is there already.
    """
    with _changing(store):
        study = store.study(name).study
        first = max(study.seeds) + 1
        longer = study.extended(range(first, first + seeds), arms)
        if longer != study:
            store.add_version(name, longer)
        _start(store, name)
        return store.study(name)


def delete(store: RunStore, name: str, with_runs: bool = False) -> int:
    """Delete a study.

    Args:
        store: Of the study.
        name: Its id.
        with_runs: Delete the runs that it started, too, except those of another study.

    Returns:
        The number of runs that were deleted.

    Raises:
        StoreError: A run is not over.
    """
    with _changing(store):
        cells = state(store, name).cells
        own = {run.id: run for run in store.runs() if (run.relation, run.source) == (RELATION, name)}
        runs = {cell.run.id: cell.run for cell in cells if cell.run is not None and (with_runs or cell.run.id in own)}
        for run in (runs | own).values():
            if not derived(store, run).status.is_over:
                raise StoreError(f"run {run.id} of study {name} is not over: stop the study before you delete it")
        deleted = 0
        for run in sorted(own) if with_runs else ():
            if store.studies_of(run) in ([], [name]):
                commands.delete(store, run)
                deleted += 1
        store.delete_study(name)
        return deleted


# ---------------------------------------------------------------- state


@dataclass(frozen=True)
class CellState:
    """One run of a study.

    Attributes:
        arm: Name of its arm.
        seed: Its seed.
        run: With its actual status; None if it is not there.
        accuracy: After the last epoch, in percent; None before.
        reached: Accuracy after the last evaluated epoch so far, (epoch, percent); None before the first.
    """

    arm: str
    seed: int
    run: Run | None
    accuracy: float | None = None
    reached: tuple[int, float] | None = None


@dataclass(frozen=True)
class State:
    """How far a study is. cells: seed by seed, in the order of the arms."""

    stored: StoredStudy
    cells: tuple[CellState, ...]

    @property
    def done(self) -> int:
        """Number of runs that were evaluated after their last epoch."""
        return sum(cell.accuracy is not None for cell in self.cells)

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by what they do: done, running, queued, stopped, failed, missing."""
        return dict(Counter(map(_kind, self.cells)))

    @property
    def is_over(self) -> bool:
        """Whether none of its runs is queued or active."""
        return all(cell.run is None or cell.run.status.is_over for cell in self.cells)

    @property
    def awaits_stage(self) -> bool:
        """Whether a study that chooses has completed a stage and not begun the next."""
        return not self.stored.halted and _awaits_stage(self.stored, self)

    @property
    def values(self) -> dict[str, dict[int, float]]:
        """Arm to seed to accuracy after the last epoch, in percent; every arm has an entry."""
        values: dict[str, dict[int, float]] = {arm.name: {} for arm in self.stored.study.arms}
        for cell in self.cells:
            if cell.accuracy is not None:
                values[cell.arm][cell.seed] = cell.accuracy
        return values

    def of(self, arm: str) -> list[CellState]:
        """The runs of an arm, by seed."""
        return [cell for cell in self.cells if cell.arm == arm]


def _kind(cell: CellState) -> str:
    if cell.accuracy is not None:
        return "done"
    if cell.run is None:
        return "missing"
    if cell.run.status is Status.QUEUED:
        return "queued"
    if not cell.run.status.is_over:
        return "running"
    return "stopped" if cell.run.status is Status.STOPPED else "failed"


def state(
    store: RunStore,
    name: str,
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
    runs: Sequence[Run] | None = None,
) -> State:
    """How far a study is.

    Args:
        store: Of the study.
        name: Its id.
        curve_of: `outcomes.accuracies`, or a cached version of it.
        runs: All runs of the store with their actual statuses, if they are known already.
    """
    stored = store.study(name)
    rows = {run.id: run for run in (store.runs() if runs is None else runs)}
    known = {cell: rows[run] for cell, run in store.study_cells(name).items() if run in rows}
    if runs is None:
        known = {cell: derived(store, run) for cell, run in known.items()}
    return state_of(store, stored, known, curve_of)


def state_of(
    store: RunStore,
    stored: StoredStudy,
    known: Mapping[tuple[str, int], Run],
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
) -> State:
    """The state of a study whose runs are known. known: (arm, seed) to a run with its actual status."""
    cells = []
    for seed in stored.study.seeds:
        for arm in stored.study.arms:
            run = known.get((arm.name, seed))
            curve = curve_of(store, run) if run is not None else None
            accuracy = curve[-1][1] if run is not None and curve and outcomes.is_through(run, curve) else None
            cells.append(CellState(arm.name, seed, run, accuracy, curve[-1] if curve else None))
    return State(stored, tuple(cells))


def curves(
    store: RunStore, state: State, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> dict[str, list[Curve]]:
    """Accuracy over epochs of each arm, one curve for each of its runs. curve_of: as of `state`."""
    curves: dict[str, list[Curve]] = {arm.name: [] for arm in state.stored.study.arms}
    for cell in state.cells:
        if cell.run is not None:
            curves[cell.arm].append(curve_of(store, cell.run))
    return curves
