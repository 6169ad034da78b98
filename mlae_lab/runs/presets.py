"""Studies of a preset in a store: the one that answers a request, and the one that existing runs make by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from mlae_lab.core import study_presets
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.events import Started
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.study import MAX_SEEDS, Arm, Study
from mlae_lab.runs import devices, outcomes, studies
from mlae_lab.runs.comparability import is_one_family, unlike_because
from mlae_lab.runs.outcomes import Curve, may_be_same_images
from mlae_lab.runs.run_location import read_location
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.runs.studies import State
from mlae_lab.runs.study_table import StoredStudy

# ---------------------------------------------------------------- start


def launch(store: RunStore, study: Study, owner: str = "") -> StoredStudy:
    """Start a study, or the seeds that it lacks if this owner has a study with the same arms and reference already.

    A second call starts nothing. Raises as `studies.new`.
    """
    return studies.new_or_extended(store, study, owner, lambda: stored_like(store, study, owner))


def stored_like(store: RunStore, study: Study, owner: str) -> StoredStudy | None:
    """The newest study of an owner with the same arms and the same reference, whatever its seeds; None without one."""
    wanted = _identity(study)
    for stored in store.studies():
        if stored.owner == owner and stored.study.choice is None and len(stored.study.arms) == len(study.arms):
            images = zip(stored.study.arms, study.arms, strict=True)
            if _identity(stored.study) == wanted and all(may_be_same_images(a.config, b.config) for a, b in images):
                return stored
    return None


def _identity(study: Study) -> tuple[str, frozenset[str]]:
    return (
        study.arm(study.reference).config.canonical("seed"),
        frozenset(arm.config.canonical("seed") for arm in study.arms),
    )


def runs_of(store: RunStore, name: str, study: Study) -> list[Run]:
    """The runs of a stored study for the arms and seeds of a request, seed by seed.

    Args:
        store: Of the study.
        name: Its id.
        study: What was asked for; the stored study may have more seeds and other names of arms.
    """
    stored, known = store.study(name).study, store.study_cells(name)
    names = {arm.config.canonical("seed"): arm.name for arm in stored.arms}
    return [store.run(known[names[cell.config.canonical("seed")], cell.seed]) for cell in study.cells()]


def config_like(store: RunStore, run: Run) -> RunConfig:
    """The config of a new run like an existing one, on its images wherever they are now.

    Raises:
        StoreError: The run was branched from a checkpoint, so that no new run starts as it did.
        ConfigError: It has a time limit or early stopping.
    """
    if run.relation == "branched":
        raise StoreError(
            f"run {run.id} was branched from a checkpoint of run {run.parent}: repeat that run, or launch a new run "
            "with these settings"
        )
    if early := run.config.ends_early:
        raise ConfigError(
            f"run {run.id} has {early}, so that runs would train for different numbers of steps: choose a run without"
        )
    return for_new_run(read_location(store.paths(run.id)).applied(run.config))


def repeats(store: RunStore, run: Run, seeds: int) -> Study:
    """The study of a run with so many seeds in all; nothing is started.

    Existing runs count whatever their seed; missing ones get the lowest free seeds, from the lowest existing one on.

    Raises:
        StoreError: The run is branched, or ran on another device than this machine would use, or a later repeat of it
            had other weights, as every further one would have.
        ConfigError: A time limit, or a number of seeds out of range.
    """
    config = config_like(store, run)
    study_presets.consecutive(replace(config, seed=0), seeds, study_presets.MAX_REPEATS)
    if devices.kind(config.device) != run.device:
        raise StoreError(
            f"run {run.id} ran on {run.device} and this machine would repeat it on {devices.kind(config.device)}: "
            "repeat it on the same device, because results differ between devices"
        )
    known = alone(store, run)
    for other, reason in known.excluded:
        if other.relation == studies.RELATION and other.created > run.created:
            raise StoreError(
                f"run {other.id}, another seed of run {run.id}, does not count because {reason}: this machine has "
                "changed, so rerun the run and repeat the new one"
            )
    usable = [
        cell.seed for cell in known.state.cells if cell.accuracy is not None or (cell.run and not _ends(cell.run))
    ]
    taken = {*usable, *(other.config.seed for other, _ in known.excluded)}
    free = (seed for seed in count(min([run.config.seed, *taken])) if seed not in taken)
    return study_presets.repeats(config, sorted([*usable, *islice(free, max(0, seeds - len(usable)))]))


def pair(
    store: RunStore, run: Run, plan: MaskPlan, seeds: int = study_presets.ENOUGH_SEEDS, probe: bool = False
) -> Study:
    """The study that compares a run with another mask, from its seed on. Raises as `config_like` and the preset."""
    if not run.config.has_mask:
        raise ConfigError(f"run {run.id} ({run.config.what}) has no mask: choose a run with experts")
    if plan == run.config.plan:
        raise ConfigError(f"this is the mask of run {run.id}: choose another one")
    return study_presets.pair(config_like(store, run), plan, seeds, probe, saved_names(store))


def pair_with_seeds(store: RunStore, a: Run, b: Run, seeds: KnownRuns | None) -> Study:
    """The study of two masks with the seeds of which both have a run that is through or on its way, and one more.

    Args:
        store: Of the runs.
        a: A run with the first mask, the reference.
        b: A run with the second mask.
        seeds: What the store has of them, None for nothing.

    Raises:
        As `pair`.
    """
    study = pair(store, a, b.config.plan, 1)
    first, complete = min(a.config.seed, b.config.seed), list[int]()
    if seeds is not None:
        lacking = {
            cell.seed for cell in seeds.state.cells if cell.accuracy is None and (not cell.run or _ends(cell.run))
        }
        first = min(first, *seeds.state.stored.study.seeds)
        complete = [seed for seed in seeds.state.stored.study.seeds if seed not in lacking]
    return replace(study, seeds=tuple(sorted([*complete, next(s for s in count(first) if s not in complete)])))


def _ends(run: Run) -> bool:
    return run.status.is_over or run.status is Status.STOPPING


def saved_names(store: RunStore) -> dict[MaskPlan, str]:
    """The names of the masks in the library."""
    return {entry.plan: entry.name for entry in reversed(store.plans())}


# ---------------------------------------------------------------- what the store has


@dataclass(frozen=True)
class KnownRuns:
    """A study that is not stored, with the runs that a store has for it.

    Attributes:
        state: Its state; its seeds are those for which there are runs.
        excluded: Runs that did not start from the same weights or images, with the reason.
    """

    state: State
    excluded: tuple[tuple[Run, str], ...]

    def run(self, arm: str, seed: int) -> Run | None:
        """The run of an arm with a seed."""
        return next((cell.run for cell in self.state.cells if (cell.arm, cell.seed) == (arm, seed)), None)

    @property
    def runs(self) -> list[Run]:
        """All its runs."""
        return [cell.run for cell in self.state.cells if cell.run is not None]


def known_runs(
    store: RunStore,
    title: str,
    arms: Sequence[tuple[str, Run]],
    curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies,
) -> KnownRuns:
    """The study that these runs and all others of the store that differ from one of them in the seed make together.

    Of several runs of an arm with one seed the best counts (`outcomes.families`), if it started from the same weights
    and images as the first of the given runs and as those of the other arms with this seed.

    Args:
        store: Of the runs.
        title: Of the study.
        arms: The name of each arm and one of its runs; their settings differ in more than the seed.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    like = arms[0][1]
    configs = [replace(run.config.to_the_end(), device=run.device) for _, run in arms]
    families = outcomes.families(store, [replace(run.config, device=run.device) for _, run in arms], curve_of)
    for number, (_, given) in enumerate(arms):
        if given.relation == "branched":
            families[number] = {}
    known = [run.id for family in families for runs in family.values() for run in runs]
    started = store.last_of_each([like.id, *known], Started)
    chosen: dict[tuple[str, int], Run] = {}
    excluded = []
    for seed in sorted({seed for family in families for seed in family}):
        peers = [like]  # and the chosen runs of this seed: what one did not record, such as its weights, another did
        for (name, _), family in zip(arms, families, strict=True):
            reasons: dict[str, str] = {}
            for run in family.get(seed, ()):
                others = [peer for peer in peers if peer.id != run.id]
                unlike = filter(None, (unlike_because(store, peer, run, started) for peer in others))
                if (reason := next(unlike, None)) is None:
                    chosen[name, seed] = run
                    peers.append(run)
                    break
                reasons.setdefault(run.id, reason)
            else:
                if reasons:
                    best = family[seed][0]
                    excluded.append((best, reasons[best.id]))
    seeds = sorted({seed for _, seed in chosen})[:MAX_SEEDS] or [like.config.seed]
    named = zip([name for name, _ in arms], configs, strict=True)
    study = Study(title, tuple(Arm(name, (), replace(config, seed=seeds[0])) for name, config in named), tuple(seeds))
    return KnownRuns(studies.state_of(store, _unsaved(study), chosen, curve_of), tuple(excluded))


def compared(
    store: RunStore, a: Run, b: Run, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> KnownRuns | None:
    """All seeds of two masks that the store has, as the arms A and B; None for runs that differ in more than those."""
    return known_runs(store, f"{a.id} and {b.id}", [("A", a), ("B", b)], curve_of) if is_one_family(a, b) else None


def as_found(store: RunStore, study: Study) -> State:
    """The state that a study would have if it were stored now: with the runs that it would reuse."""
    known = {(cell.arm, cell.seed): run for cell, run in studies.reusable(store, study) if run is not None}
    return studies.state_of(store, _unsaved(study), known)


def alone(store: RunStore, run: Run, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies) -> KnownRuns:
    """All seeds of a run that the store has."""
    return known_runs(store, run.id, [(_name(run), run)], curve_of)


def of_runs(
    store: RunStore, runs: Iterable[Run], curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> State:
    """The race that given runs make; of several with one mask and seed the last counts.

    Args:
        store: Of the runs.
        runs: They differ in mask and seed only (`comparability.unequal_because`).
        curve_of: As of `known_runs`.
    """
    runs = list(runs)
    plans = list(dict.fromkeys(run.config.plan for run in runs))
    study = study_presets.race(runs[0].config, plans, known=saved_names(store))
    names = dict(zip(plans, [arm.name for arm in study.arms], strict=True))
    seeds = tuple(sorted({run.config.seed for run in runs}))
    known = {(names[run.config.plan], run.config.seed): run for run in runs}
    return studies.state_of(store, _unsaved(replace(study, seeds=seeds)), known, curve_of)


def _name(run: Run) -> str:
    return study_presets.mask_names([run.config.plan])[0] if run.config.has_mask else run.config.tuning.title


def _unsaved(study: Study) -> StoredStudy:
    return StoredStudy("", 0.0, "", False, 0, study)
