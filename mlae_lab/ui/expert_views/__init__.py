"""Looking into a trained run: the views of the Experts page, one module each."""

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
    """title: on the screen; about: what it shows, in a sentence; draw: draws it; of_heads: a run that trained a head
    alone, such as a linear probe, has it too; of_live: also a run that is not over has something to show in it."""

    title: str
    about: str
    draw: Callable[[Run], None]
    of_heads: bool = False
    of_live: bool = False


def views_of(run: Run) -> dict[str, View]:
    """The views that a run has, by their names in the address."""
    return {name: view for name, view in VIEWS.items() if view.of_heads or run.config.method == "mlae"}


VIEWS: dict[str, View] = {
    "grids": View("Grids", "What the run measured of itself while it learned.", grids.draw, of_live=True),
    "whatif": View(
        "What if",
        "Switch experts off and see at once what is lost. Nothing is trained, and the run stays as it is.",
        whatif.draw,
    ),
    "importance": View(
        "Who matters",
        "What each expert and each layer is worth, and how the run stands without some of them.",
        importance.draw,
    ),
    "similarity": View(
        "Similarity",
        "How alike the experts of a layer are, and what ΔW is however it is cut.",
        similarity.draw,
        of_live=True,
    ),
    "diversity": View(
        "Diversity", "The central experiment: does masking make experts less alike?", diversity.draw, of_live=True
    ),
    "activation": View(
        "Activation",
        "What each expert adds to its layer, for each class and for single images.",
        activation.draw,
    ),
    "attention": View(
        "Attention",
        "Where each expert of a layer looks, and what the network draws on with and without them.",
        attention.draw,
    ),
    "predict": View(
        "Predict",
        "One image: the answer, the training images nearest to it, and the layers that it hangs on.",
        predict.draw,
        of_heads=True,
    ),
    "errors": View(
        "Errors",
        "Which classes it takes for which, how sure it may be, and what another run gets right.",
        errors.draw,
        of_heads=True,
    ),
    "seeds": View(
        "Seeds",
        "How far the seed alone moves the result, and whether another mask moves it farther.",
        seeds.draw,
        of_heads=True,
        of_live=True,
    ),
}
