"""Results published in the MLAE paper, each with its table.

Only those that the lab shows. Values are top-1 accuracy in percent on the test set, ViT-B/16
pretrained on ImageNet-21k, 224 pixels; they are not comparable with the bundled backbone's.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.core.paper_methods import VTAB, Cell, rows
from mlae_lab.core.plan import Kind


@dataclass(frozen=True)
class Tuned:
    """Table 10: the drop rate and initial λ that the paper chose for one task."""

    drop_rate: float
    coefficient_init: float


_TABLE_10_P = (0.7, 0.1, 0.7, 0.7, 0.7, 0.5, 0.7, 0.7, 0.5, 0.5, 0.7, 0.0, 0.0, 0.5, 0.5, 0.5, 0.7, 0.0, 0.0)
_TABLE_10_INIT = (2, 0.5, 0.25, 1, 2, 4, 4, 1, 4, 2, 0.25, 0.125, 0.125, 2, 1, 1, 4, 1, 0.25)

TUNED: dict[str, Tuned] = {
    task: Tuned(p, init) for task, p, init in zip(VTAB, _TABLE_10_P, _TABLE_10_INIT, strict=True)
}

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

# Accuracy by initial λ, p tuned per task (Table 14), and by one p for all layers, initial λ 1 (Table 15).
_TABLE_14 = {
    0.125: (76.9, 94.7, 74.5, 99.3, 92.3, 87.6, 58.1, 87.7, 96.2, 87.8, 76.3,
            84.3, 67.2, 52.9, 81.0, 87.4, 55.8, 34.0, 47.7),
    0.25: (77.2, 94.4, 74.8, 99.4, 92.4, 87.8, 58.1, 88.1, 96.2, 88.1, 76.7,
           84.0, 65.5, 53.6, 81.3, 87.1, 55.8, 35.2, 47.7),
    0.5: (77.5, 94.7, 74.5, 99.4, 92.6, 88.6, 58.1, 87.9, 96.2, 88.1, 75.7,
          83.6, 66.3, 54.6, 82.0, 87.7, 55.7, 35.3, 47.4),
    1: (77.7, 94.6, 74.5, 99.4, 92.5, 88.9, 58.2, 88.4, 96.3, 88.4, 76.5,
        82.6, 65.3, 54.4, 82.7, 87.8, 55.8, 35.7, 47.3),
    2: (77.8, 94.3, 74.3, 99.4, 92.6, 89.1, 58.2, 88.1, 96.3, 88.5, 75.7,
        81.4, 64.1, 55.7, 82.0, 87.7, 56.8, 35.3, 46.0),
    4: (77.0, 93.6, 73.8, 99.4, 92.5, 90.6, 58.4, 87.2, 96.5, 88.5, 75.3,
        80.7, 64.2, 55.5, 81.9, 87.1, 57.1, 34.8, 44.7),
}  # fmt: skip
_TABLE_15 = {
    0: (70.7, 94.9, 70.2, 99.1, 90.1, 88.0, 53.0, 88.0, 95.9, 86.3, 73.6,
        82.3, 64.7, 52.9, 81.6, 84.7, 53.0, 36.1, 48.1),
    0.1: (72.4, 94.9, 72.4, 99.3, 91.3, 88.2, 54.3, 88.4, 96.3, 87.1, 75.6,
          81.6, 64.3, 53.0, 81.7, 86.9, 53.6, 35.9, 44.5),
    0.3: (74.9, 94.8, 73.0, 99.4, 91.3, 88.4, 56.3, 88.3, 96.2, 87.7, 76.1,
          77.7, 62.8, 54.4, 81.0, 87.4, 54.8, 35.4, 43.9),
    0.5: (76.5, 94.6, 74.1, 99.3, 91.9, 88.5, 57.4, 88.1, 96.6, 88.4, 76.1,
          74.8, 62.5, 54.5, 82.8, 87.8, 55.6, 35.2, 43.5),
    0.7: (77.6, 93.8, 74.2, 99.3, 92.5, 88.7, 58.3, 88.6, 96.4, 88.3, 76.3,
          71.3, 62.3, 54.5, 80.7, 87.3, 56.1, 33.3, 41.8),
    0.9: (76.2, 91.5, 73.2, 99.3, 92.2, 85.0, 58.1, 86.6, 96.1, 87.4, 76.8,
          61.6, 57.5, 51.5, 79.6, 65.4, 54.2, 26.8, 36.7),
}  # fmt: skip
BY_COEFFICIENT_INIT: dict[str, dict[float, float]] = {
    task: {start: row[i] for start, row in _TABLE_14.items()} for i, task in enumerate(VTAB)
}
BY_DROP_RATE: dict[str, dict[float, float]] = {
    task: {p: row[i] for p, row in _TABLE_15.items()} for i, task in enumerate(VTAB)
}


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
    (name, kind): Cell(value, "Table 4", "tuned per task" if name == "uniform" else "")
    for kind, row in {
        Kind.FIXED: {"incremental": 76.8, "hourglass": 75.5, "decremental": 75.7, "protruding": 76.1, "random": 76.5},
        Kind.STOCHASTIC: {
            "incremental": 77.7, "hourglass": 76.3, "decremental": 76.0, "protruding": 77.6, "uniform": 78.8,
        },
        Kind.MIXED: {"incremental": 78.2, "hourglass": 77.5, "decremental": 77.7, "protruding": 78.0, "random": 78.1},
    }.items()
    for name, value in row.items()
}  # fmt: skip
PATTERN_AVERAGE[("dense", Kind.DENSE)] = Cell(76.6, "Table 9", "p = 0")
