"""What the MLAE paper reports for every method that it compares: Table 1 (VTAB-1k) and Table 11 (FGVC).

Values are top-1 accuracy in percent on the test set, ViT-B/16 pretrained on ImageNet-21k, 224 pixels. Most rows are
copied there from other papers, which differ in recipe, normalisation and how a result was selected. Parameters are in
millions as printed; some rows count the head (SSF in Table 1, all of Table 11 but MLAE) and others do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from mlae_lab.core.paper_tables import Cell, mean_of_groups, printed_table


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        method: A name of `core.method`.
        title: As printed.
        parameters: In millions, as printed.
        accuracy: By task.
        average: As printed.
        table: "Table 1" or "Table 11".
    """

    method: str
    title: str
    parameters: float
    accuracy: Mapping[str, float]
    average: float
    table: str

    @property
    def mean(self) -> float:
        """The average that the values give: over the three groups of VTAB-1k, or over the five tasks of FGVC."""
        mean = mean_of_groups(self.accuracy)
        assert mean is not None
        return mean


@cache
def rows() -> tuple[Row, ...]:
    """All rows of both tables, in their order."""
    return tuple(
        Row(row.method, row.name.replace(" (Avg)", ""), row.parameters or 0, row.values, row.mean, table.label)
        for table in map(printed_table, ("table1", "table11"))
        for row in table.rows
        if row.mean is not None and "(seed" not in row.name
    )


def reported(method: str, task: str) -> Cell | None:
    """The paper's accuracy of a method on a task, the highest where it prints two; None if it prints none."""
    cells = [
        Cell(row.accuracy[task], row.table, f"{row.title}, {row.parameters:g} M parameters")
        for row in rows()
        if row.method == method and task in row.accuracy
    ]
    return max(cells, key=lambda cell: cell.value, default=None)
