"""The tables of the paper as studies of a store: what each would train, and its results next to the printed numbers.

A table is trained on those of its tasks whose images are on this machine, with the paper's weights if they are there.
Without any of them it is trained on the bundled tasks and the bundled backbone; its study is then called a stand-in.
Equal runs of several tables are one run, because a study reuses what the store has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

from mlae_lab.core import catalog
from mlae_lab.core.backbones import DEFAULT_BACKBONE, Backbone
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.method import Trait
from mlae_lab.core.paper import TUNED, Tuned
from mlae_lab.core.paper_arms import (
    COUNTERPARTS,
    GROUPS,
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
from mlae_lab.core.paper_tables import KEYS, MEAN, Cell, label_of, mean_of_groups, printed_table
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.core.study import Arm, Study
from mlae_lab.data.listing import counted
from mlae_lab.data.tasks import located, ready
from mlae_lab.locations import weights_file
from mlae_lab.runs import diversity, studies
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.studies import State
from mlae_lab.runs.study_table import StoredStudy

SEEDS = (0, 1, 2)
_TABLE, _ROW = "table", "row"  # names in an arm's values, besides its task


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
                values = ((_TABLE, key), (_ROW, row.name), ("task", task))
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
        (arm.config.task, arm.config.protocol, planned.arms.row(dict(arm.values)[_ROW]).training(arm.config.task, on))
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
        key = values[0].get(_TABLE, "")
        if key in RUNNABLE:
            known = {row.name for row in table_arms(key).rows}  # another version may have had other rows
            if all(value.get(_TABLE) == key and value.get(_ROW) in known for value in values):
                groups.setdefault(key, []).append(entry)
    return groups


def start(store: RunStore, planned: TableStudy, owner: str = "") -> StoredStudy:
    """Start a table, or resume its study if the store has one with the same runs."""
    for entry in stored_tables(store.studies()).get(planned.arms.table.key, ()):
        if entry.study.hash == planned.study.hash:
            studies.start(store, entry.id)
            return store.study(entry.id)
    return studies.new(store, planned.study, owner)


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class Compared:
    """A cell: our result next to the paper's.

    Attributes:
        result: Over seeds, None before the first result.
        paper: None where the paper prints no number.
        claim: Where the paper's number lies, a clause; "" without a result of several seeds or where task, weights or
            settings differ.
    """

    result: SeedStatistics | None
    paper: Cell | None
    claim: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return self.result.mean - self.paper.value if self.result and self.paper else None


@dataclass(frozen=True)
class Choice:
    """Table 10 on one task. result: p and λ with the highest mean accuracy on val, None before all arms have one."""

    task: str
    result: Tuned | None
    paper: Tuned | None


@dataclass(frozen=True)
class TableResults:
    """A table with results.

    Attributes:
        arms: What the table asks.
        state: Of its study.
        columns: Its tasks, groups of tasks that it prints, and `MEAN`.
        rows: Names of its rows.
        cells: (row, column) to both results.
        reference: Name of the row that the others are compared with.
        differs: In what runs differ from the paper's conditions, a clause each.
        choices: Of Table 10.
    """

    arms: TableArms
    state: State
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: Mapping[tuple[str, str], Compared]
    reference: str
    differs: tuple[str, ...]
    choices: tuple[Choice, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The columns that are tasks."""
        return tuple(column for column in self.columns if column not in (MEAN, *GROUPS))

    def to_reference(self, row: str, column: str = MEAN) -> tuple[float | None, float | None]:
        """The difference of a row to the reference: of our results, and of the paper's numbers."""
        own, base = self.cells[row, column], self.cells[self.reference, column]
        return (
            own.result.mean - base.result.mean if own.result and base.result else None,
            own.paper.value - base.paper.value if own.paper and base.paper else None,
        )


def table_results(store: RunStore, state: State) -> TableResults:
    """The results of a stored study of a table, as far as they are there."""
    study = state.stored.study
    values = [dict(arm.values) for arm in study.arms]
    definition = table_arms(values[0][_TABLE])
    tasks = tuple(dict.fromkeys(value["task"] for value in values))
    arm_of = _arms_by_row(definition, study)
    rows = tuple(row.name for row in definition.rows if any((row.name, task) in arm_of for task in tasks))
    measured = _measured(store, state, definition.measure)
    columns = (*tasks, *(group for group in GROUPS if any(group in row.printed for row in definition.rows)), MEAN)
    different = {arm.name: deviations(arm.config) for arm in study.arms}
    cells = {}
    for name in rows:
        row = definition.row(name)
        arms = {task: arm_of[name, task] for task in tasks if (name, task) in arm_of}
        for column in columns:
            of_column = [task for task in tasks if column in (task, MEAN) or task in GROUPS.get(column, ())]
            by_seed = _over_tasks([measured.get(arms.get(task, ""), {}) for task in of_column], of_column)
            bounds = PERCENT if definition.measure != "similarity" else (0.0, 1.0)
            epochs = study.arms[0].config.epochs
            result = seed_statistics(epochs, list(by_seed.values()), bounds) if by_seed else None
            paper = _printed(definition, row, column, of_column)
            is_like_the_paper = not any(different[arm] for arm in arms.values())
            cells[name, column] = Compared(result, paper, _claim(result, paper) if is_like_the_paper else "")
    reference = dict(study.arm(study.reference).values)[_ROW]
    return TableResults(
        definition, state, columns, rows, cells, reference,
        tuple(dict.fromkeys(clause for clauses in different.values() for clause in clauses)),
        _choices(definition, tasks, cells) if definition.measure == "choice" else (),
    )  # fmt: skip


def _arms_by_row(definition: TableArms, study: Study) -> dict[tuple[str, str], str]:
    """(row, task) to the name of its arm; rows that mean the same training on a task have one arm."""
    names: dict[tuple[str, str], str] = {}
    for arm in study.arms:
        value = dict(arm.values)
        on, task = catalog.backbone(arm.config.backbone), value["task"]
        own = definition.row(value[_ROW]).training(task, on)
        for row in definition.rows:
            if row.name == value[_ROW] or ((row.name, task) not in names and row.training(task, on) == own):
                names[row.name, task] = arm.name
    return names


def _measured(store: RunStore, state: State, measure: str) -> dict[str, dict[int, float]]:
    """Arm to seed to accuracy in percent, or to mean |cosine|."""
    if measure != "similarity":
        return state.values
    values: dict[str, dict[int, float]] = {}
    for cell in state.cells:
        if cell.run is not None and cell.accuracy is not None:
            similarity = diversity.measures(store, cell.run).get("absolute")
            if similarity is not None:
                values.setdefault(cell.arm, {})[cell.seed] = similarity
    return values


def _over_tasks(measured: Sequence[Mapping[int, float]], tasks: Sequence[str]) -> dict[int, float]:
    """Seed to the average over tasks, for the seeds that every task has."""
    if not measured:
        return {}
    seeds = [seed for seed in measured[0] if all(seed in of_task for of_task in measured)]
    averages = {seed: mean_of_groups(dict(zip(tasks, [m[seed] for m in measured], strict=True))) for seed in seeds}
    return {seed: average for seed, average in averages.items() if average is not None}


def _printed(definition: TableArms, row: TableRow, column: str, tasks: Sequence[str]) -> Cell | None:
    """The paper's number; of an average over some of its tasks the average of their cells, where it prints them."""
    label = definition.table.label
    if column not in (MEAN, *GROUPS):
        value = row.printed.get(COUNTERPARTS.get(column, column))
        return None if value is None else Cell(value, label, f"row {row.name}")
    printed = {task: row.printed[task] for task in tasks if task in row.printed}
    if column == MEAN and printed and len(printed) == len(tasks) < len(definition.tasks):
        return Cell(
            round(mean_of_groups(printed) or fmean(printed.values()), 2), label, f"over {counted(len(printed), 'task')}"
        )
    if column not in row.printed:
        return None
    return Cell(
        row.printed[column],
        label,
        "" if len(tasks) == (whole := len(GROUPS.get(column, definition.tasks))) else f"over {counted(whole, 'task')}",
    )


def _claim(result: SeedStatistics | None, paper: Cell | None) -> str:
    if result is None or paper is None or result.interval is None or paper.note.startswith("over"):
        return ""
    _, low, high = result.interval
    if low <= paper.value <= high:
        return "the paper's number is within the interval of our seeds"
    return f"the paper's number is {'below' if paper.value < low else 'above'} the interval of our seeds"


def _choices(
    definition: TableArms, tasks: Sequence[str], cells: Mapping[tuple[str, str], Compared]
) -> tuple[Choice, ...]:
    choices = []
    for task in tasks:
        best: dict[str, float] = {}
        for kind in ("p", "λ"):
            means = {
                float(row.value): known.mean
                for row in definition.rows
                if row.kind == kind and (row.name, task) in cells and (known := cells[row.name, task].result)
            }
            if len(means) == sum(row.kind == kind for row in definition.rows):
                best[kind] = max(means, key=lambda value: means[value])
        result = Tuned(best["p"], best["λ"]) if len(best) == 2 else None
        choices.append(Choice(task, result, TUNED.get(COUNTERPARTS.get(task, task))))
    return tuple(choices)


# ---------------------------------------------------------------- data


def results_data(results: TableResults) -> dict:
    """Results as JSON. Accuracies in percent, similarity as mean |cosine|."""
    state = results.state

    def cell(entry: Compared) -> dict:
        result, paper = entry.result, entry.paper
        return {
            "ours": result.mean if result else None,
            "interval": list(result.interval[1:]) if result and result.interval else None,
            "seeds": result.n if result else 0,
            "paper": paper.value if paper else None, "source": paper.table if paper else "",
            "note": paper.note if paper else "", "difference": entry.difference, "claim": entry.claim,
        }  # fmt: skip

    badges = dict.fromkeys(arm.config.badge for arm in state.stored.study.arms)
    return {
        "table": results.arms.table.key, "title": state.stored.study.title, "study": state.stored.id,
        "measure": results.arms.measure, "reference": results.reference,
        "runs": len(state.cells), "done": state.done, "counts": state.counts,
        "columns": list(results.columns), "differs": list(results.differs),
        "badges": [vars(badge) for badge in badges],
        "rows": [
            {
                "row": row,
                "cells": {column: cell(results.cells[row, column]) for column in results.columns},
                "to_reference": dict(zip(("ours", "paper"), results.to_reference(row), strict=True)),
            }
            for row in results.rows
        ],
        "choices": [
            {"task": c.task, "ours": c.result and vars(c.result), "paper": c.paper and vars(c.paper)}
            for c in results.choices
        ],
        "left_out": dict(results.arms.left_out), "note": results.arms.table.note,
    }  # fmt: skip


@dataclass(frozen=True)
class AddedParameters:
    """A row of Table 3: parameters that a method adds to ViT-B/16 at inference, in millions; `added` is counted."""

    row: str
    added: float
    paper: float | None


def added_parameters() -> tuple[AddedParameters, ...]:
    """The column of Table 3 that can be counted: nothing is added where the method can be merged into the weights."""
    backbone = catalog.backbone(PAPER_BACKBONE)
    rows = []
    for row in printed_table("table3").rows:
        tuning = RunConfig("cifar", method=row.method, backbone=backbone.name).tuning
        added = 0 if Trait.MERGEABLE in tuning.traits else tuning.parameters(backbone)
        rows.append(AddedParameters(row.name, added / 1e6, row.values.get("parameters")))
    return tuple(rows)
