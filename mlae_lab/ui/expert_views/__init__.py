"""The views of the Experts page, one module each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlae_lab.runs.store import Run
from mlae_lab.ui.expert_views import (
    activation,
    attention,
    diversity,
    errors,
    grids,
    importance,
    predict,
    seeds,
    similarity,
    whatif,
)


@dataclass(frozen=True)
class View:
    """One view of a trained run.

    Args:
        title: Label of the view.
        about: What it shows, in a sentence.
        draw: Draws it.
        of_heads: Whether it also applies to runs without experts, such as a linear probe.
        of_live: Whether it also applies to runs that are not over.
    """

    title: str
    about: str
    draw: Callable[[Run], None]
    of_heads: bool = False
    of_live: bool = False


def views_of(run: Run) -> dict[str, View]:
    """Return the views that apply to a run, by their names in the URL."""
    return {name: view for name, view in VIEWS.items() if view.of_heads or run.config.has_mask}


VIEWS: dict[str, View] = {
    "grids": View("Grids", "Statistics that the run recorded while it trained.", grids.draw, of_live=True),
    "whatif": View(
        "What if",
        "Switch experts off and see the effect at once. Nothing is trained, and the run does not change.",
        whatif.draw,
    ),
    "importance": View(
        "Expert importance",
        "How much each expert and each layer contributes to the result, and how robust the run is without them.",
        importance.draw,
    ),
    "similarity": View(
        "Similarity",
        "How similar the experts of a layer are, and properties of ΔW that do not depend on its decomposition.",
        similarity.draw,
        of_live=True,
    ),
    "diversity": View(
        "Diversity", "The central experiment: does masking make experts less similar?", diversity.draw, of_live=True
    ),
    "activation": View(
        "Activation",
        "How much each expert adds to its layer, by class and by image.",
        activation.draw,
    ),
    "attention": View(
        "Attention",
        "Where each expert of a layer acts, and what the network attends to with and without the experts.",
        attention.draw,
    ),
    "predict": View(
        "Predict",
        "One image: the prediction, the nearest training images, and the layers that the prediction depends on.",
        predict.draw,
        of_heads=True,
    ),
    "errors": View(
        "Errors",
        "Which classes the run confuses, how well it is calibrated, and how it compares with another run.",
        errors.draw,
        of_heads=True,
    ),
    "seeds": View(
        "Seeds",
        "How much the result varies with the seed, and whether another mask changes it more.",
        seeds.draw,
        of_heads=True,
        of_live=True,
    ),
}
