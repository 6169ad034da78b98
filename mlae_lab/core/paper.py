"""Figures published in the MLAE paper, each with the table it stands in.

Only what the lab shows is here. Values are top-1 accuracy in percent on the test set, ViT-B/16
pretrained on ImageNet-21k, 224 pixels; they are never on one scale with the bundled backbone.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.core.plan import Kind


@dataclass(frozen=True)
class Cell:
    """One published number. value: as printed; table: where; note: what to know before comparing."""

    value: float
    table: str
    note: str = ""


@dataclass(frozen=True)
class Tuned:
    """Table 10: the drop rate and the start of λ that the paper chose for one task."""

    drop_rate: float
    coefficient_init: float


_VTAB = (
    "cifar", "caltech101", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397",
    "patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy",
    "clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele",
)  # fmt: skip
_TABLE_1_MLAE = (77.8, 94.7, 74.8, 99.4, 92.6, 90.6, 58.4, 88.4, 96.5, 88.5, 76.7,
                 84.3, 67.2, 55.7, 82.6, 87.8, 57.1, 35.7, 47.7)  # fmt: skip
_TABLE_1_LINEAR = (64.4, 85.0, 63.2, 97.0, 86.3, 36.6, 51.0, 78.5, 87.5, 68.5, 74.0,
                   34.3, 30.6, 33.2, 55.4, 12.5, 20.0, 9.6, 19.2)  # fmt: skip
_TABLE_10_P = (0.7, 0.1, 0.7, 0.7, 0.7, 0.5, 0.7, 0.7, 0.5, 0.5, 0.7, 0.0, 0.0, 0.5, 0.5, 0.5, 0.7, 0.0, 0.0)
_TABLE_10_INIT = (2, 0.5, 0.25, 1, 2, 4, 4, 1, 4, 2, 0.25, 0.125, 0.125, 2, 1, 1, 4, 1, 0.25)
_FGVC_MLAE = {"cub": 89.6, "nabirds": 85.0, "oxford_flowers": 99.2, "stanford_dogs": 91.6, "stanford_cars": 88.9}
_FGVC_LINEAR = {"cub": 85.3, "nabirds": 75.9, "oxford_flowers": 97.9, "stanford_dogs": 86.2, "stanford_cars": 51.3}

TUNED: dict[str, Tuned] = {task: Tuned(p, init) for task, p, init in zip(_VTAB, _TABLE_10_P, _TABLE_10_INIT)}

MLAE_ACCURACY: dict[str, Cell] = {
    **{task: Cell(v, "Table 1", "p and λ tuned for this task") for task, v in zip(_VTAB, _TABLE_1_MLAE)},
    **{task: Cell(v, "Table 11", "mean of three seeds") for task, v in _FGVC_MLAE.items()},
}
LINEAR_PROBE_ACCURACY: dict[str, Cell] = {
    **{task: Cell(v, "Table 1") for task, v in zip(_VTAB, _TABLE_1_LINEAR)},
    **{task: Cell(v, "Table 11") for task, v in _FGVC_LINEAR.items()},
}

# Mean over the three VTAB-1k groups by masking strategy; "uniform" is tuned per task, the others are not.
PATTERN_AVERAGE: dict[tuple[str, Kind], Cell] = {
    (name, kind): Cell(value, "Table 4", "tuned per task" if name == "uniform" else "")
    for kind, row in {
        Kind.FIXED: {"incremental": 76.8, "hourglass": 75.5, "decremental": 75.7, "protruding": 76.1, "random": 76.5},
        Kind.STOCHASTIC: {"incremental": 77.7, "hourglass": 76.3, "decremental": 76.0, "protruding": 77.6, "uniform": 78.8},
        Kind.MIXED: {"incremental": 78.2, "hourglass": 77.5, "decremental": 77.7, "protruding": 78.0, "random": 78.1},
    }.items()
    for name, value in row.items()
}  # fmt: skip
PATTERN_AVERAGE[("dense", Kind.DENSE)] = Cell(76.6, "Table 9", "p = 0")
