"""Looking into a trained run: the views of the Experts page, one module each."""

from __future__ import annotations

from collections.abc import Callable

from mlae_lab.runs.store import Run
from mlae_lab.ui.inside import diversity, grids, similarity

# name in the address: (words on the screen, what it shows in a sentence, what draws it)
VIEWS: dict[str, tuple[str, str, Callable[[Run], None]]] = {
    "grids": ("Grids", "What the run measured of itself while it learned.", grids.draw),
    "similarity": (
        "Similarity",
        "How alike the experts of a layer are, and what ΔW is however it is cut.",
        similarity.draw,
    ),
    "diversity": ("Diversity", "The central experiment: does masking make experts less alike?", diversity.draw),
}
