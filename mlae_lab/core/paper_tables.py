"""The tables of the MLAE paper as it prints them, read from `paper_tables.json`.

Accuracies are top-1 in percent on the test set, ViT-B/16 pretrained on ImageNet-21k, 224 pixels. A number is named by
its table, row and column; a column is a task where the table has one for each. The averages over VTAB-1k are means of
the three group means, not of the 19 tasks. Each table's note lists what is missing or contradicts another table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

_FILE = Path(__file__).with_name("paper_tables.json")
MEAN = "mean"  # the column of a row's average
_NATURAL, _SPECIALIZED = 7, 11  # first task of the next group


@dataclass(frozen=True)
class Cell:
    """One published number. value: as printed; table: its source; note: what to know before comparing."""

    value: float
    table: str
    note: str = ""

    @property
    def text(self) -> str:
        """The number as the paper prints it, with at least one decimal."""
        return f"{self.value:.1f}" if round(self.value, 1) == self.value else f"{self.value:g}"


@dataclass(frozen=True)
class PrintedRow:
    """One row.

    Attributes:
        name: As printed, or the label that the text implies.
        values: Column to number as printed; a column without one is left out.
        mean: The printed average over the columns, None if there is none.
        method: A name of `core.method`, "" where the row is not a method.
        parameters: In millions as printed, None if there are none.
    """

    name: str
    values: Mapping[str, float]
    mean: float | None = None
    method: str = ""
    parameters: float | None = None


@dataclass(frozen=True)
class PrintedTable:
    """One table or figure.

    Attributes:
        key: "table1" to "table15", "fig4", "fig5".
        title: What it shows.
        columns: Tasks, or the names of other columns.
        rows: In printed order.
        note: What to know about its numbers.
        means_of: Key of the table whose averages it prints, "" for others.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[PrintedRow, ...]
    note: str = ""
    means_of: str = ""

    @property
    def label(self) -> str:
        """As the paper cites it: "Table 4", "Figure 5"."""
        return label_of(self.key)

    def row(self, name: str) -> PrintedRow:
        """A row by its name, the first of equal ones. Raises KeyError for an unknown one."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def cell(self, row: str, column: str) -> Cell | None:
        """A number with its source; `MEAN` is the column of averages. None where the table has none."""
        printed = self.row(row)
        value = printed.mean if column == MEAN and printed.mean is not None else printed.values.get(column)
        return None if value is None else Cell(value, self.label, f"row {row}")


def label_of(key: str) -> str:
    """The name of a table as the paper cites it."""
    return f"Figure {key[3:]}" if key.startswith("fig") else f"Table {key[5:]}"


def mean_of_groups(values: Mapping[str, float]) -> float | None:
    """The average as the paper computes it: over the three groups of VTAB-1k, else over the tasks.

    Args:
        values: Task to number. Groups without a task are left out.

    Returns:
        None without a value.
    """
    groups = (VTAB[:_NATURAL], VTAB[_NATURAL:_SPECIALIZED], VTAB[_SPECIALIZED:])
    present = [[values[task] for task in group if task in values] for group in groups]
    means = [fmean(group) for group in present if group]
    if means:
        return fmean(means)
    return fmean(values.values()) if values else None


@cache
def _data() -> Mapping[str, Any]:
    return MappingProxyType(json.loads(_FILE.read_text(encoding="utf-8")))


VTAB: tuple[str, ...] = tuple(_data()["columns"]["vtab"])
FGVC: tuple[str, ...] = tuple(_data()["columns"]["fgvc"])
KEYS: tuple[str, ...] = tuple(_data()["tables"])


@cache
def printed_table(key: str) -> PrintedTable:
    """A table by its key. Raises KeyError for an unknown one."""
    data = _data()["tables"][key]
    columns = tuple(
        _data()["columns"].get(data["columns"], ()) if isinstance(data["columns"], str) else data["columns"]
    )
    rows = []
    for row in data["rows"]:
        values = zip(columns, row["values"], strict=True) if row["values"] else ()
        rows.append(
            PrintedRow(
                row["row"], MappingProxyType({name: value for name, value in values if value is not None}),
                row.get("mean"), row.get("method", ""), row.get("parameters"),
            )
        )  # fmt: skip
    return PrintedTable(key, data["title"], columns, tuple(rows), data.get("note", ""), data.get("means_of", ""))
