"""Results published in the MLAE paper, each with its table.

Only those that the lab shows. Values are top-1 accuracy in percent on the test set, ViT-B/16
pretrained on ImageNet-21k, 224 pixels; they are not comparable with the bundled backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.core.paper_methods import rows
from mlae_lab.core.paper_tables import VTAB, Cell, printed_table
from mlae_lab.core.plan import Kind


@dataclass(frozen=True)
class Tuned:
    """Table 10: the drop rate and initial λ that the paper chose for one task."""

    drop_rate: float
    coefficient_init: float


_CHOSEN = printed_table("table10")
TUNED: dict[str, Tuned] = {task: Tuned(_CHOSEN.row("p").values[task], _CHOSEN.row("λ").values[task]) for task in VTAB}

_NOTES = {"Table 1": "p and λ tuned for this task", "Table 11": "mean of three seeds"}
MLAE_ACCURACY: dict[str, Cell] = {
    task: Cell(value, row.table, _NOTES[row.table])
    for row in rows()
    if row.method == "mlae"
    for task, value in row.accuracy.items()
}
LINEAR_PROBE_ACCURACY: dict[str, Cell] = {
    task: Cell(value, row.table) for row in rows() if row.method == "linear" for task, value in row.accuracy.items()
}


def _by_number(key: str) -> dict[str, dict[float, float]]:
    """Task to the number in a row's name ("p = 0.5") to accuracy."""
    sweep = printed_table(key).rows
    return {task: {float(row.name.split(" = ")[1]): row.values[task] for row in sweep} for task in VTAB}


# Accuracy by initial λ, p tuned per task, and by one p for all layers, initial λ 1
BY_COEFFICIENT_INIT: dict[str, dict[float, float]] = _by_number("table14")
BY_DROP_RATE: dict[str, dict[float, float]] = _by_number("table15")


def disagreeing_values(task: str) -> tuple[Cell, ...]:
    """The paper's values for MLAE's best accuracy on one VTAB task where its tables disagree, lowest first.

    Compares Table 1 with the best columns of the two sweeps. Empty where all agree and for FGVC.
    """
    if task not in BY_DROP_RATE:
        return ()
    cells = [
        MLAE_ACCURACY[task],
        Cell(max(BY_COEFFICIENT_INIT[task].values()), "Table 14", "best initial λ"),
        Cell(max(BY_DROP_RATE[task].values()), "Table 15", "best p, initial λ 1"),
    ]
    return tuple(sorted(cells, key=lambda c: c.value)) if len({c.value for c in cells}) > 1 else ()


def masking_gain(task: str) -> float | None:
    """Accuracy at the best p > 0 minus that at p = 0, in points (Table 15); None for FGVC."""
    rates = BY_DROP_RATE.get(task)
    return round(max(v for p, v in rates.items() if p) - rates[0], 1) if rates else None


# Mean over the three VTAB-1k groups by masking strategy; "uniform" is tuned per task, the others are not.
PATTERN_AVERAGE: dict[tuple[str, Kind], Cell] = {
    (name, Kind(row.name)): Cell(value, "Table 4", "tuned per task" if name == "uniform" else "")
    for row in printed_table("table4").rows
    for name, value in row.values.items()
}
PATTERN_AVERAGE[("dense", Kind.DENSE)] = Cell(printed_table("table9").row("p = 0").values["mean"], "Table 9", "p = 0")
