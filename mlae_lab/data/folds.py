"""Cross-validation: the images of train and val together, divided into parts of which each is evaluated on once.

The run with seed s of `RunConfig.folds` = K belongs to division s // K of the images and is evaluated on its part
s % K; it is trained on the other parts. So K seeds in a row evaluate every image once, and the next K divide them in
another way. Arms of a study with equal seeds have equal images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlae_lab.core.config import RunConfig


@dataclass(frozen=True)
class Fold:
    """The part that a run is evaluated on. division: how the images are divided; number: 0 to `count` - 1."""

    division: int
    number: int
    count: int


def fold_of(config: RunConfig) -> Fold | None:
    """The fold of a run, None for a run without cross-validation."""
    if not config.folds:
        return None
    return Fold(*divmod(config.seed, config.folds), config.folds)


def is_evaluated(labels: Sequence[int] | np.ndarray, fold: Fold) -> np.ndarray:
    """Which images a fold evaluates, (n,) bool: a share of each class, and of all, that differs by at most one image.

    Args:
        labels: (n,) class numbers of train and val, in this order.
        fold: The fold.
    """
    labels = np.asarray(labels, dtype=np.int64)
    shuffled = np.random.default_rng([fold.division, fold.count]).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class, at random within
    evaluated = np.zeros(len(labels), dtype=bool)
    evaluated[order[fold.number :: fold.count]] = True
    return evaluated
