"""MLAE Lab. From Python: `load("RUN").predict("image.jpg")`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlae_lab.exports.predictor import Predictor

__all__ = ["load"]


def load(run: str, store: str | Path | None = None, weights: str | Path | None = None) -> Predictor:
    """A trained run that classifies images: `load("RUN").predict("image.jpg")`.

    Its images are not needed. torch is imported now, not with `import mlae_lab`.

    Args:
        run: Its id.
        store: Folder of the runs, by default $MLAE_LAB_STORE or ~/.mlae_lab.
        weights: A file with its frozen weights, if they are not where the run found them.

    Raises:
        LabError: There is no such run, or it cannot be loaded; the text says what would work.
    """
    from mlae_lab.exports.predictor import load as loaded

    return loaded(run, store, weights)
