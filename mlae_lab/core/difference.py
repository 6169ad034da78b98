"""The cells in which two plans differ. Rows are matched by layer name, columns by position."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from mlae_lab.core.plan import MaskPlan


class Change(str, Enum):
    """How a cell of plan A compares with the same cell of plan B."""

    ONLY_A = "only in A"
    ONLY_B = "only in B"
    RATE = "with another drop rate"
    SAME = "the same"
    NEITHER = "in neither"


@dataclass(frozen=True)
class Cell:
    """One cell. a, b: its drop rate in each plan, None where the expert does not exist."""

    row: int
    column: int
    change: Change
    a: float | None
    b: float | None


@dataclass(frozen=True)
class PlanDifference:
    """Two plans cell by cell.

    Attributes:
        targets: The layers of A, then those that only B has, one row each; a layer that a plan lacks is empty there.
        columns: Columns of the wider plan.
        cells: rows x columns cells, row by row.
    """

    targets: tuple[str, ...]
    columns: int
    cells: tuple[Cell, ...]

    @property
    def counts(self) -> dict[Change, int]:
        """Number of cells of each of the five kinds."""
        counted = Counter(cell.change for cell in self.cells)
        return {change: counted[change] for change in Change}

    def summary(self, a: str = "A", b: str = "B") -> str:
        """The counts as text. a, b: names of the plans."""
        counts = self.counts
        parts = [
            f"{counts[change]} {text}"
            for change, text in (
                (Change.ONLY_A, f"only in {a}"),
                (Change.ONLY_B, f"only in {b}"),
                (Change.RATE, Change.RATE.value),
            )
            if counts[change]
        ]
        if not parts:
            return f"All {counts[Change.SAME]} experts are the same"
        return f"Experts: {', '.join(parts)}, {counts[Change.SAME]} the same"


def plan_difference(a: MaskPlan, b: MaskPlan) -> PlanDifference:
    """Compare two plans of any size, on any layers."""
    targets = tuple(dict.fromkeys([*a.targets, *b.targets]))
    columns = max(a.columns, b.columns)
    rates_a, rates_b = _rates(a), _rates(b)
    cells = []
    for row, target in enumerate(targets):
        for column in range(columns):
            p, q = rates_a.get((target, column)), rates_b.get((target, column))
            cells.append(Cell(row, column, _change(p, q), p, q))
    return PlanDifference(targets, columns, tuple(cells))


def _change(p: float | None, q: float | None) -> Change:
    if p is None and q is None:
        return Change.NEITHER
    if q is None:
        return Change.ONLY_A
    if p is None:
        return Change.ONLY_B
    return Change.SAME if p == q else Change.RATE


def _rates(plan: MaskPlan) -> dict[tuple[str, int], float]:
    """The drop rate of every existing expert, by layer and column."""
    return {
        (target, column): rate
        for target, kept, rates in zip(plan.targets, plan.keep, plan.drop_rate, strict=True)
        for column, (k, rate) in enumerate(zip(kept, rates, strict=True))
        if k
    }
