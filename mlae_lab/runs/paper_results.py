"""Results of the paper's tables next to the printed numbers, of studies that `runs.paper_studies` started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import Trait
from mlae_lab.core.paper import TUNED, Tuned
from mlae_lab.core.paper_arms import (
    COUNTERPARTS,
    GROUPS,
    PAPER_BACKBONE,
    TableArms,
    TableRow,
    deviations,
    table_arms,
)
from mlae_lab.core.paper_tables import MEAN, Cell, mean_of_groups, printed_table
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.core.study import Study
from mlae_lab.data.listing import counted
from mlae_lab.runs.paper_studies import ROW, TABLE
from mlae_lab.runs.similarity_results import measures
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.studies import State


@dataclass(frozen=True)
class Compared:
    """A cell: our result next to the paper's.

    Attributes:
        result: Over seeds, None before the first result.
        by_seed: Seed to result.
        paper: None where the paper prints no number.
        claim: Where the paper's number lies, a clause; "" without a result of several seeds or where task, weights or
            settings differ.
    """

    result: SeedStatistics | None
    by_seed: Mapping[int, float]
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
        """The difference of a row to the reference: of our results, paired by seed, and of the paper's numbers."""
        own, base = self.cells[row, column], self.cells[self.reference, column]
        pairs = [own.by_seed[seed] - base.by_seed[seed] for seed in own.by_seed if seed in base.by_seed]
        return (
            fmean(pairs) if pairs else None,
            own.paper.value - base.paper.value if own.paper and base.paper else None,
        )


def table_results(store: RunStore, state: State) -> TableResults:
    """The results of a stored study of a table, as far as they are there."""
    study = state.stored.study
    values = [dict(arm.values) for arm in study.arms]
    definition = table_arms(values[0][TABLE])
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
            cells[name, column] = Compared(result, by_seed, paper, _claim(result, paper) if is_like_the_paper else "")
    reference = dict(study.arm(study.reference).values)[ROW]
    return TableResults(
        definition, state, columns, rows, cells, reference,
        tuple(dict.fromkeys(clause for clauses in different.values() for clause in clauses)),
        _choices(definition, tasks, cells, len(study.seeds)) if definition.measure == "choice" else (),
    )  # fmt: skip


def _arms_by_row(definition: TableArms, study: Study) -> dict[tuple[str, str], str]:
    """(row, task) to the name of its arm; rows that mean the same training on a task have one arm."""
    names: dict[tuple[str, str], str] = {}
    for arm in study.arms:
        value = dict(arm.values)
        on, task = catalog.backbone(arm.config.backbone), value["task"]
        own = definition.row(value[ROW]).training(task, on)
        for row in definition.rows:
            if row.name == value[ROW] or ((row.name, task) not in names and row.training(task, on) == own):
                names[row.name, task] = arm.name
    return names


def _measured(store: RunStore, state: State, measure: str) -> dict[str, dict[int, float]]:
    """Arm to seed to accuracy in percent, or to mean |cosine|."""
    if measure != "similarity":
        return state.values
    values: dict[str, dict[int, float]] = {}
    for cell in state.cells:
        if cell.run is not None and cell.accuracy is not None:
            similarity = measures(store, cell.run).get("absolute")
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
    definition: TableArms, tasks: Sequence[str], cells: Mapping[tuple[str, str], Compared], seeds: int
) -> tuple[Choice, ...]:
    """The best p and λ on each task, once all arms have results with all seeds."""
    choices = []
    for task in tasks:
        best: dict[str, float] = {}
        for kind in ("p", "λ"):
            means = {
                float(row.value): known.mean
                for row in definition.rows
                if row.kind == kind
                and (row.name, task) in cells
                and (known := cells[row.name, task].result)
                and known.n == seeds
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
