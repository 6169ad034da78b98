"""Looking into a trained run: the views of the Experts page, one module each."""

from __future__ import annotations

from collections.abc import Callable

from mlae_lab.runs.store import Run
from mlae_lab.ui.inside import (
    activation,
    attention,
    diversity,
    errors,
    grids,
    matters,
    predict,
    seeds,
    similarity,
    whatif,
)

# name in the address: (words on the screen, what it shows in a sentence, what draws it)
VIEWS: dict[str, tuple[str, str, Callable[[Run], None]]] = {
    "grids": ("Grids", "What the run measured of itself while it learned.", grids.draw),
    "whatif": (
        "What if",
        "Switch experts off and see at once what is lost. Nothing is trained, and the run stays as it is.",
        whatif.draw,
    ),
    "matters": (
        "Who matters",
        "What each expert and each layer is worth, and how the run stands without some of them.",
        matters.draw,
    ),
    "similarity": ("Similarity", "How alike the experts of a layer are, and what ΔW is however it is cut.", similarity.draw),
    "diversity": ("Diversity", "The central experiment: does masking make experts less alike?", diversity.draw),
    "activation": (
        "Activation",
        "What each expert adds to its layer, for each class and for single pictures.",
        activation.draw,
    ),
    "attention": (
        "Attention",
        "Where each expert of a layer looks, and what the network draws on with and without them.",
        attention.draw,
    ),
    "predict": (
        "Predict",
        "One picture: the answer, the training pictures nearest to it, and the layers that it hangs on.",
        predict.draw,
    ),
    "errors": (
        "Errors",
        "Which classes it takes for which, how sure it may be, and what another run gets right.",
        errors.draw,
    ),
    "seeds": (
        "Seeds",
        "How far the seed alone moves the result, and whether another mask moves it farther.",
        seeds.draw,
    ),
}
