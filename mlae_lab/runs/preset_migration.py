"""Migration to schema 9: pairs, races, repeats and diversity experiments of earlier versions become studies.

Until version 0.10 they were known from the relation of a run to its parent only. A group that is recognised becomes a
study with the runs that the store has for it; the relation of other runs is cleared, and a file of the store names
them until somebody has read it. Nothing is started.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.sanitize import readable
from mlae_lab.core.study import MAX_SEEDS, Study
from mlae_lab.data.listing import counted
from mlae_lab.errors import LabError
from mlae_lab.files import write_whole
from mlae_lab.runs import paths
from mlae_lab.runs.database import require_intact
from mlae_lab.runs.outcomes import may_be_same_images
from mlae_lab.runs.schema import OLD_RELATIONS
from mlae_lab.runs.status import Status
from mlae_lab.runs.study_table import MAX_STUDIES, insert_study, new_id


@dataclass(frozen=True)
class _Run:
    """A run of the store, with what the migration needs of it."""

    id: str
    created: float
    config: RunConfig
    status: Status
    device: str
    owner: str
    parent: str
    relation: str
    source: str
    mask_name: str

    @cached_property
    def key(self) -> tuple[str, str]:
        """Equal for runs with the same settings."""
        return self.config.canonical("device"), self.device

    @cached_property
    def family(self) -> tuple[str, str]:
        """Equal for runs that differ in the seed only."""
        return self.config.canonical("seed", "device"), self.device


@dataclass(frozen=True)
class _Group:
    """Runs that were started together, and the study that they make."""

    study: Study
    members: tuple[_Run, ...]

    @property
    def created(self) -> float:
        return min(run.created for run in self.members)


Left = tuple[tuple[str, str], ...]  # (id, relation) of runs that became part of no study
_WORDS = {"paired": "pair", "race": "race", "repeat": "repeats", "diversity": "diversity experiment"}
_SHOWN = 12  # runs that a note names
log = logging.getLogger(__name__)


def migrate(db: sqlite3.Connection) -> Left:
    """Turn the groups of a store into studies, in the transaction of the migration.

    Returns:
        The runs of groups that are no study of this version: with too many masks, rates or seeds, of a method that is
        not installed, or with runs that were deleted since.
    """
    if not db.execute(f"SELECT 1 FROM runs WHERE relation IN ({_OLD})", OLD_RELATIONS).fetchone():
        return ()
    runs = _runs(db)
    groups = [*_races(runs), *_pairs(runs), *_repeats(runs), *_diversity(runs)]
    for group in sorted(groups, key=lambda group: group.created)[-MAX_STUDIES:]:
        _insert(db, group, runs)
    left = db.execute(f"SELECT id, relation FROM runs WHERE relation IN ({_OLD}) ORDER BY number", OLD_RELATIONS)
    runs_left = tuple((name, relation) for name, relation in left)
    db.execute(f"UPDATE runs SET relation = '', parent = '', source = '' WHERE relation IN ({_OLD})", OLD_RELATIONS)
    return runs_left


def record(folder: Path, left: Left) -> None:
    """Name the runs that became part of no study in the log, and in a file of the store for `note`."""
    if left:
        log.warning("%s", _sentence(left, len(left)))
        with suppress(OSError):  # a full disk keeps nobody from opening the store
            write_whole(paths.without_study(folder), json.dumps(left))


def note(folder: Path) -> str:
    """What became of the runs that `record` named, as one sentence; "" if there are none or somebody has read it."""
    try:
        left = json.loads(paths.without_study(folder).read_bytes()[:1_000_000])
        return _sentence([(readable(str(name)), str(relation)) for name, relation in left], _SHOWN)
    except (OSError, ValueError, TypeError):
        return ""


def _sentence(left: Sequence[tuple[str, str]], most: int) -> str:
    count = Counter(_WORDS.get(relation, "group") for _, relation in left)
    kinds = ", ".join(f"{number} of a {kind}" for kind, number in count.items()).replace("a repeats", "repeats")
    names = ", ".join(name for name, _ in left[:most]) + (f" and {len(left) - most} more" if len(left) > most else "")
    return (
        f"{counted(len(left), 'run')} of an earlier version ({kinds}) could not become part of a study, because other "
        f"runs of their group were deleted or it fits no study of this version; they are kept as single runs: {names}."
    )


def note_was_read(folder: Path) -> None:
    """Forget the runs that `record` named."""
    with suppress(OSError):
        paths.without_study(folder).unlink(missing_ok=True)


_OLD = ", ".join("?" * len(OLD_RELATIONS))


def _runs(db: sqlite3.Connection) -> list[_Run]:
    """The runs in the order of their launch, without those that cannot be read."""
    rows = db.execute(
        """SELECT id, created, config, dataset, status, device, owner, parent, relation, source, mask_name FROM runs
        WHERE relation != 'branched' ORDER BY number"""
    )
    runs = []
    for name, created, config, dataset, status, *rest in rows:
        with suppress(LabError, ValueError, TypeError, KeyError, RecursionError):
            later_images = json.loads(dataset or "{}")  # images that the run's process found in place of the launch's
            stored = RunConfig.stored(json.loads(require_intact(config)) | later_images)
            if not stored.unavailable:
                runs.append(_Run(name, created, stored, Status(status), *rest))
    return runs


def _insert(db: sqlite3.Connection, group: _Group, runs: Sequence[_Run]) -> None:
    """Store a study with its runs. A run that belongs to none yet is then one that the study started."""
    study, cells = group.study, _cells(group, runs)
    open_ones = any(not run.status.is_over for run in cells.values())
    is_complete = len(cells) == study.runs and all(run.status is Status.FINISHED for run in cells.values())
    name = new_id()
    insert_study(db, name, study, group.created, group.members[-1].owner, not (open_ones or is_complete))
    db.executemany(
        "INSERT INTO study_runs (study, arm, seed, run) VALUES (?, ?, ?, ?)",
        [(name, arm, seed, run.id) for (arm, seed), run in cells.items()],
    )
    db.executemany(
        f"UPDATE runs SET relation = 'study', parent = '', source = ? WHERE id = ? AND relation IN ({_OLD})",
        [(name, run.id, *OLD_RELATIONS) for run in group.members],
    )


def _cells(group: _Group, runs: Iterable[_Run]) -> dict[tuple[str, int], _Run]:
    """The run of each arm and seed: of several, one of the group, else a finished one, else the newest."""
    own, device = {run.id for run in group.members}, group.members[0].device
    known: dict[tuple[str, str], list[_Run]] = {}
    for run in sorted(runs, key=lambda run: (run.id in own, run.status is Status.FINISHED, run.created)):
        known.setdefault(run.key, []).append(run)
    cells = {}
    for cell in group.study.cells():
        equal = known.get((cell.config.canonical("device"), device), ())
        if matching := [run for run in equal if may_be_same_images(run.config, cell.config)]:
            cells[cell.arm, cell.seed] = matching[-1]
    return cells


def _group(build: Study, members: Sequence[_Run], seeds: Iterable[int]) -> Iterator[_Group]:
    """The group with these seeds, if each of its runs has a place in the study."""
    study = replace(build, seeds=tuple(sorted(set(seeds)))[:MAX_SEEDS])
    group = _Group(study, tuple(members))
    placed = {(cell.config.canonical("device"), members[0].device) for cell in study.cells()}
    if all(run.key in placed for run in members):
        yield group


# ---------------------------------------------------------------- which runs belong together


def _races(runs: Sequence[_Run]) -> Iterator[_Group]:
    """Races, and pairs that were started as such: the later runs name the first one and share a mark."""
    by_id = {run.id: run for run in runs}
    launches: dict[tuple[str, str, str], list[_Run]] = {}
    for run in runs:
        if run.relation == "race" or (run.relation == "paired" and run.source):
            launches.setdefault((run.relation, run.parent or run.id, run.source), []).append(run)
    for (relation, first, _), followers in launches.items():
        members = [*([by_id[first]] if first in by_id and followers[0].id != first else []), *followers]
        plans = list(dict.fromkeys(run.config.plan for run in members))
        with suppress(LabError):
            config = for_new_run(members[0].config)
            if relation == "race":
                study = study_presets.race(config, plans, known=_names(members))
            elif len(plans) == 2:
                study = study_presets.pair(config, plans[1], known=_names(members))
            else:
                continue
            yield from _group(study, members, (run.config.seed for run in members))


def _pairs(runs: Sequence[_Run]) -> Iterator[_Group]:
    """Pairs with an existing run: the other runs have it as their parent."""
    by_id = {run.id: run for run in runs}
    children: dict[str, list[_Run]] = {}
    for run in runs:
        if run.relation == "paired" and run.parent in by_id and not run.source:
            children.setdefault(run.parent, []).append(run)
    for parent, others in children.items():
        first = by_id[parent]
        of_first = [run for run in others if run.config.plan == first.config.plan]
        for plan in dict.fromkeys(run.config.plan for run in others if run.config.plan != first.config.plan):
            of_plan = [run for run in others if run.config.plan == plan]
            seeds = {run.config.seed for run in of_plan}
            members = [first, *(run for run in of_first if run.config.seed in seeds), *of_plan]
            with suppress(LabError):
                study = study_presets.pair(for_new_run(first.config), plan, known=_names(members))
                yield from _group(study, members, seeds | {first.config.seed})


def _repeats(runs: Sequence[_Run]) -> Iterator[_Group]:
    """Repeats of one run, whichever of its seeds was repeated."""
    families: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        families.setdefault(run.family, []).append(run)
    for family in families.values():
        own = [run for run in family if run.relation == "repeat"]
        parents = {run.parent for run in own}
        members = [run for run in family if run in own or run.id in parents]
        if not own:
            continue
        with suppress(LabError):
            seeds = sorted({run.config.seed for run in members})
            yield from _group(study_presets.repeats(for_new_run(members[0].config), seeds), members, seeds)


def _diversity(runs: Sequence[_Run]) -> Iterator[_Group]:
    """Diversity experiments: runs that are equal without dropout and have the same images."""
    experiments: dict[tuple[str, str, str], list[_Run]] = {}
    for run in runs:
        if run.relation == "diversity":
            dense = _without_dropout(run.config)
            key = dense.canonical("device"), run.device, run.config.data_fingerprint
            experiments.setdefault(key, []).append(run)
    for members in experiments.values():
        config = _without_dropout(members[0].config)
        rates = {run.config.input_dropout or max(map(max, run.config.plan.drop_rate)) for run in members}
        with suppress(LabError):
            study = study_presets.diversity(config, sorted(rates), 1, max(config.plan.kept))
            yield from _group(study, members, (run.config.seed for run in members))


def _without_dropout(config: RunConfig) -> RunConfig:
    whole = replace(config.plan.with_rates((0.0,) * config.plan.rows), train_coefficients=True)
    return replace(for_new_run(config), plan=whole, seed=0, mask_per="step", input_dropout=0.0)


def _names(runs: Iterable[_Run]) -> dict[MaskPlan, str]:
    """The names that the masks had in the library."""
    return {run.config.plan: run.mask_name for run in runs if run.mask_name}
