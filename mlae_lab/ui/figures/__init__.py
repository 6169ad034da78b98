"""Figures as functions of arrays. No Streamlit here: what goes in is data, what comes out is a picture.

Colours are names of meanings (`@accent`, `@quiet`, ...; `ui/palette.js` knows the values).
"""

from mlae_lab.ui.figures.bars import active_figure, balance_figure
from mlae_lab.ui.figures.base import MAX_POINTS, Figure, Reference, Running, thinned
from mlae_lab.ui.figures.compare import (
    MASK_KEY,
    difference_caption,
    difference_figure,
    mask_difference_figure,
    two_curves_figure,
)
from mlae_lab.ui.figures.curves import accuracy_figure, loss_figure, paper_figure, similarity_curve
from mlae_lab.ui.figures.grids import QUANTITIES, expert_figure, similarity_tiles

__all__ = [
    "MASK_KEY", "MAX_POINTS", "QUANTITIES", "Figure", "Reference", "Running", "accuracy_figure", "active_figure", "balance_figure",
    "difference_caption", "difference_figure", "expert_figure", "loss_figure", "mask_difference_figure", "paper_figure",
    "similarity_curve", "similarity_tiles", "thinned", "two_curves_figure",
]  # fmt: skip
