"""The tables of the paper as studies of a store: what each would train, and its results next to the printed numbers.

A table is trained on those of its tasks whose images are on this machine, with the paper's weights if they are there.
Without any of them it is trained on the bundled tasks and the bundled backbone; its study is then called a stand-in.
Equal runs of several tables are one run, because a study reuses what the store has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mlae_lab.core import catalog
from mlae_lab.core.backbones import DEFAULT_BACKBONE, Backbone
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.paper_arms import (
    PAPER_BACKBONE,
    REFUSED,
    RUNNABLE,
    STAND_INS,
    TableArms,
    TableRow,
    Training,
    deviations,
    table_arms,
    table_base,
    table_config,
)
from mlae_lab.core.paper_tables import KEYS, label_of, printed_table
from mlae_lab.core.study import Arm, Study
from mlae_lab.data.tasks import located, ready
from mlae_lab.locations import weights_file
from mlae_lab.runs import studies
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.study_table import StoredStudy

SEEDS = (0, 1, 2)
TABLE, ROW = "table", "row"  # names in an arm's values, besides its task


# ---------------------------------------------------------------- plan


@dataclass(frozen=True)
class TableStudy:
    """A table as a study that can be started.

    Attributes:
        arms: What the table asks.
        study: Its study.
        tasks: That it trains on.
        missing: Tasks of the table without images here.
        backbone: Name of the backbone.
        notes: What differs from the paper, and what the paper leaves open; one sentence each.
    """

    arms: TableArms
    study: Study
    tasks: tuple[str, ...]
    missing: tuple[str, ...]
    backbone: str
    notes: tuple[str, ...]

    @property
    def is_stand_in(self) -> bool:
        """Whether it is trained on bundled tasks, in place of the paper's."""
        return catalog.task(self.tasks[0]).bundled

    @property
    def wants_weights(self) -> bool:
        """Whether the paper's weights would make it comparable and are not here."""
        return not self.is_stand_in and self.backbone != PAPER_BACKBONE and not weights_file(PAPER_BACKBONE).exists()


def resolved(text: str) -> str:
    """The key of the table that a text names: Tables 6 to 9 print the means of Tables 12 to 15.

    Raises:
        ConfigError: The paper has no such table, or none that can be trained.
    """
    key = text.lower().replace("figure", "fig").replace(" ", "")
    if key not in KEYS:
        raise ConfigError(f"{text[:40]!r} is no table of the paper with numbers: choose from {', '.join(KEYS)}")
    if key in REFUSED:
        raise ConfigError(f"{label_of(key)} cannot be trained: {REFUSED[key]}")
    return printed_table(key).means_of or key


def table_tasks(key: str, wanted: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tasks that a table is trained on, and those that are not ready.

    Args:
        key: Of the table.
        wanted: Names of tasks of the table or of bundled ones; empty for all that are ready.

    Raises:
        ConfigError: A task that the table does not have, or both bundled tasks and others.
        CatalogError: An unknown task.
    """
    own = table_arms(key).tasks
    missing = tuple(name for name in own if not ready(catalog.task(name)))
    if not wanted:
        stand_ins = STAND_INS if len(own) > 1 else STAND_INS[:1]
        return tuple(name for name in own if name not in missing) or stand_ins, missing
    tasks = tuple(dict.fromkeys(catalog.task(name).name for name in wanted))
    foreign = [name for name in tasks if name not in own and not catalog.task(name).bundled]
    if foreign:
        raise ConfigError(f"{foreign[0]} is no task of {label_of(key)}: choose {', '.join(own)} or bundled tasks")
    if len({catalog.task(name).bundled for name in tasks}) > 1:
        raise ConfigError("bundled tasks and tasks of the paper are not averaged: choose only one kind")
    return tasks, missing


def table_backbone(tasks: Sequence[str]) -> str:
    """The paper's backbone if its weights are here and the tasks are the paper's, else the bundled one."""
    is_paper = not catalog.task(tasks[0]).bundled and weights_file(PAPER_BACKBONE).exists()
    return PAPER_BACKBONE if is_paper else DEFAULT_BACKBONE


def table_study(
    key: str,
    tasks: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    epochs: int | None = None,
    backbone: str = "",
    complete: Callable[[RunConfig], RunConfig] = located,
) -> TableStudy:
    """A table as a study.

    Args:
        key: Of the table, as `resolved` returns it.
        tasks: As of `table_tasks`.
        rows: Names of rows, empty for all.
        seeds: Of the runs.
        epochs: In place of those of the recipes.
        backbone: Its name, "" for the one of `table_backbone`.
        complete: Finds the images of a task, which takes seconds if they are many.

    Raises:
        ConfigError: A choice that the table does not have.
        DataError: The images of a task are not ready.
    """
    definition = table_arms(key)
    chosen, missing = table_tasks(key, tasks)
    on = catalog.backbone(backbone or table_backbone(chosen))
    selected = _selected(definition, rows)
    reference = definition.reference if definition.reference in [row.name for row in selected] else selected[0].name
    arms: dict[tuple[str, Training], Arm] = {}
    for task in chosen:
        base = complete(table_base(task, on.name, definition.protocol))
        for row in selected:
            training = row.training(task, on)
            if (task, training) not in arms:
                config = replace(table_config(base, training, epochs), seed=seeds[0])
                values = ((TABLE, key), (ROW, row.name), ("task", task))
                arms[task, training] = Arm(_arm_name(row.name, task, len(chosen)), values, config)
    is_stand_in = catalog.task(chosen[0]).bundled
    label = definition.table.label
    title = f"Bundled stand-in of {label}" if is_stand_in else f"{label} of the MLAE paper"
    notes = _notes(definition, [arm.config for arm in arms.values()], is_stand_in)
    study = Study(
        title=f"{title}: {definition.table.title}",
        arms=tuple(arms.values()),
        seeds=tuple(seeds),
        question=definition.question,
        reference=_arm_name(reference, chosen[0], len(chosen)),
        notes=" ".join(notes),
    )
    return TableStudy(definition, study, chosen, missing, on.name, notes)


def _arm_name(row: str, task: str, tasks: int) -> str:
    return f"{row}, {catalog.task(task).title}" if tasks > 1 else row


def _selected(definition: TableArms, names: Sequence[str]) -> tuple[TableRow, ...]:
    known = {row.name.lower(): row for row in definition.rows}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        listed = "; ".join(row.name for row in definition.rows)
        raise ConfigError(f"{unknown[0][:60]!r} is no row of {definition.table.label}: choose from {listed}")
    wanted = {name.lower() for name in names} or set(known)
    return tuple(row for name, row in known.items() if name in wanted)


def _notes(definition: TableArms, configs: Iterable[RunConfig], is_stand_in: bool) -> tuple[str, ...]:
    differ = list(dict.fromkeys(clause for config in configs for clause in deviations(config)))
    recipe = (
        "Each run has the lab's proposal for a short run in place of the paper's recipe."
        if is_stand_in
        else "Each method has its authors' recipe."
    )
    notes = [recipe]
    if differ:
        notes.append(f"Not comparable with the paper as it is: {', '.join(differ[:6])}.")
    return tuple(filter(None, (*notes, definition.notes)))


@lru_cache(maxsize=64)
def trainings(key: str, tasks: tuple[str, ...], on: Backbone) -> frozenset[tuple[str, str, Training]]:
    """What a table trains: (task, protocol, training); equal entries of two tables are equal runs."""
    definition = table_arms(key)
    return frozenset((task, definition.protocol, row.training(task, on)) for task in tasks for row in definition.rows)


def shared(planned: TableStudy) -> dict[str, int]:
    """How many arms of a table other tables have, too: their key to a number above 0, on their usual tasks."""
    on = catalog.backbone(planned.backbone)
    own = {
        (arm.config.task, arm.config.protocol, planned.arms.row(dict(arm.values)[ROW]).training(arm.config.task, on))
        for arm in planned.study.arms
    }
    counts = {
        other: len(own & trainings(other, table_tasks(other)[0], on))
        for other in RUNNABLE
        if other != planned.arms.table.key
    }
    return {other: count for other, count in counts.items() if count}


# ---------------------------------------------------------------- studies of a store


def stored_tables(stored: Iterable[StoredStudy]) -> dict[str, list[StoredStudy]]:
    """The studies that are tables of the paper, by key, in the given order."""
    groups: dict[str, list[StoredStudy]] = {}
    for entry in stored:
        values = [dict(arm.values) for arm in entry.study.arms]
        key = values[0].get(TABLE, "")
        if key in RUNNABLE:
            known = {row.name for row in table_arms(key).rows}  # another version may have had other rows
            if all(value.get(TABLE) == key and value.get(ROW) in known for value in values):
                groups.setdefault(key, []).append(entry)
    return groups


def start(store: RunStore, planned: TableStudy, owner: str = "") -> StoredStudy:
    """Start a table, or resume its study if the store has one with the same runs."""
    for entry in stored_tables(store.studies()).get(planned.arms.table.key, ()):
        if entry.study.hash == planned.study.hash:
            studies.start(store, entry.id)
            return store.study(entry.id)
    return studies.new(store, planned.study, owner)
