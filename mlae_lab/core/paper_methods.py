"""What the MLAE paper reports for every method that it compares: Table 1 (VTAB-1k) and Table 11 (FGVC).

Values are top-1 accuracy in percent on the test set, ViT-B/16 pretrained on ImageNet-21k, 224 pixels. Most rows are
copied there from other papers, which differ in recipe, normalisation and how a result was selected. Parameters are in
millions as printed; some rows count the head (SSF in Table 1, all of Table 11 but MLAE) and others do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import fmean

VTAB = (
    "cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397",
    "patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy",
    "clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele",
)  # fmt: skip
FGVC = ("cub", "nabirds", "oxford_flowers", "stanford_dogs", "stanford_cars")
# method, name as printed, parameters, 19 accuracies, printed average
_TABLE_1 = """
full         Full         85.8  68.9 87.7 64.3 97.2 86.9 87.4 38.8 79.7 95.7 84.2 73.9 56.3 58.6 41.7 65.5 57.5 46.7 25.7 29.1  68.9
linear       Linear       0     64.4 85.0 63.2 97.0 86.3 36.6 51.0 78.5 87.5 68.5 74.0 34.3 30.6 33.2 55.4 12.5 20.0  9.6 19.2  57.6
vpt_deep     VPT-Deep     0.53  78.8 90.8 65.8 98.0 88.3 78.1 49.6 81.8 96.1 83.4 68.4 68.5 60.0 46.5 72.8 73.6 47.9 32.9 37.8  72.0
adapter      Adapter      0.16  69.2 90.1 68.0 98.8 89.9 82.8 54.3 84.0 94.9 81.9 75.5 80.9 65.3 48.6 78.3 74.8 48.5 29.9 41.6  73.9
adaptformer  AdaptFormer  0.16  70.8 91.2 70.5 99.1 90.9 86.6 54.8 83.0 95.8 84.4 76.3 81.9 64.3 49.3 80.3 76.3 45.7 31.7 41.1  74.7
lora         LoRA         0.29  67.1 91.4 69.4 98.8 90.4 85.3 54.0 84.9 95.3 84.4 73.6 82.9 69.2 49.8 78.5 75.7 47.1 31.0 44.0  74.5
noah         NOAH         0.36  69.6 92.7 70.2 99.1 90.4 86.1 53.7 84.4 95.4 83.9 75.8 82.8 68.9 49.9 81.7 81.8 48.3 32.8 44.2  75.5
fact_tk      FacT         0.07  70.6 90.6 70.8 99.1 90.7 88.6 54.1 84.8 96.2 84.5 75.7 82.6 68.2 49.8 80.7 80.8 47.4 33.2 43.0  75.6
ssf          SSF          0.24  69.0 92.6 75.1 99.4 91.8 90.2 52.9 87.4 95.9 87.4 75.5 75.9 62.3 53.3 80.6 77.3 54.9 29.5 37.9  75.7
repadapter   RepAdapter   0.22  72.4 91.6 71.0 99.2 91.4 90.7 55.1 85.3 95.9 84.6 75.9 82.3 68.0 50.4 79.9 80.4 49.2 38.6 41.0  76.1
spt_adapter  SPT-Adapter  0.38  72.9 93.2 72.5 99.3 91.4 88.8 55.8 86.2 96.1 85.5 75.5 83.0 68.0 51.9 81.2 82.4 51.9 31.7 41.2  76.4
spt_lora     SPT-LoRA     0.54  73.5 93.3 72.5 99.3 91.5 87.9 55.5 85.7 96.2 85.9 75.9 84.4 67.6 52.5 82.0 81.0 51.1 30.2 41.3  76.4
glora        GLoRA        0.29  76.1 92.7 75.3 99.6 92.4 90.5 57.2 87.5 96.7 88.1 76.1 81.0 66.2 52.4 84.9 81.8 53.3 33.3 39.8  77.3
glora        GLoRA        0.86  76.4 92.9 74.6 99.6 92.5 90.5 57.8 87.3 96.8 88.0 76.0 83.1 67.3 54.5 86.2 83.8 52.9 37.0 41.4  78.0
mlae         MLAE         0.30  77.8 94.7 74.8 99.4 92.6 90.6 58.4 88.4 96.5 88.5 76.7 84.3 67.2 55.7 82.6 87.8 57.1 35.7 47.7  78.8
"""  # noqa: E501 - a table
# method, name as printed, parameters, 5 accuracies, printed mean
_TABLE_11 = """
full         Full         85.98  87.3 82.7 98.8 89.4 84.5  88.54
linear       Linear       0.18   85.3 75.9 97.9 86.2 51.3  79.32
adapter      Adapter      0.41   87.1 84.3 98.5 89.8 68.6  85.67
bitfit       Bias         0.28   88.4 84.2 98.8 91.2 79.4  88.41
vpt_shallow  VPT-Shallow  0.25   86.7 78.8 98.4 90.7 68.7  84.62
vpt_deep     VPT-Deep     0.85   88.5 84.2 99.0 90.2 83.6  89.11
spt_lora     SPT-LoRA     0.69   88.6 83.4 99.5 91.4 87.4  90.06
ssf          SSF          0.39   89.5 85.7 99.6 89.6 89.2  90.72
mlae         MLAE         0.29   89.6 85.0 99.2 91.6 88.9  90.86
"""


@dataclass(frozen=True)
class Cell:
    """One published number. value: as printed; table: its source; note: what to know before comparing."""

    value: float
    table: str
    note: str = ""


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
    accuracy: dict[str, float]
    average: float
    table: str

    @property
    def mean(self) -> float:
        """The average that the values give: over the three groups of VTAB-1k, or over the five tasks of FGVC."""
        values = list(self.accuracy.values())
        if self.table == "Table 1":
            return fmean(map(fmean, (values[:7], values[7:11], values[11:])))
        return fmean(values)


@cache
def rows() -> tuple[Row, ...]:
    """All rows of both tables, in their order."""
    return (*_rows(_TABLE_1, VTAB, "Table 1"), *_rows(_TABLE_11, FGVC, "Table 11"))


def _rows(text: str, tasks: tuple[str, ...], table: str) -> list[Row]:
    parsed = []
    for line in text.strip().splitlines():
        method, title, parameters, *values, average = line.split()
        accuracy = dict(zip(tasks, map(float, values), strict=True))
        parsed.append(Row(method, title, float(parameters), accuracy, float(average), table))
    return parsed


def reported(method: str, task: str) -> Cell | None:
    """The paper's accuracy of a method on a task, the highest where it prints two; None if it prints none."""
    cells = [
        Cell(row.accuracy[task], row.table, f"{row.title}, {row.parameters:g} M parameters")
        for row in rows()
        if row.method == method and task in row.accuracy
    ]
    return max(cells, key=lambda cell: cell.value, default=None)
