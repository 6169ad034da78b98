"""The views of the Experts page, one module each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlae_lab.core.method import Trait
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
        traits: Traits of a method of which it needs one; empty for a view of every run.
        of_live: Whether it also applies to runs that are not over.
    """

    title: str
    about: str
    draw: Callable[[Run], None]
    traits: frozenset[Trait] = frozenset({Trait.MASK})
    of_live: bool = False


def views_of(run: Run) -> dict[str, View]:
    """Return the views that apply to a run, by their names in the URL."""
    traits = run.config.tuning.traits
    return {name: view for name, view in VIEWS.items() if not view.traits or view.traits & traits}


# Traits of a view to why it does not apply to a method without them: its verb with one and with several views.
_REASONS: dict[frozenset[Trait], tuple[str, str, str]] = {
    frozenset({Trait.MASK}): ("shows", "show", "the experts of a mask, which {what} does not have"),
    frozenset({Trait.MASK, Trait.LOW_RANK}): (
        "compares", "compare", "the experts of a mask or the ranks of a low-rank update, and {what} has neither",
    ),
    frozenset({Trait.MASK, Trait.PER_LAYER_GRID}): (
        "shows", "show", "what a method records by layer, and {what} records nothing",
    ),
}  # fmt: skip


def reasons(run: Run) -> list[str]:
    """A sentence for each reason why some views do not apply to a run."""
    shown = views_of(run)
    sentences = []
    for traits, (verb, verbs, reason) in _REASONS.items():
        titles = [view.title for name, view in VIEWS.items() if name not in shown and view.traits == traits]
        if titles:
            subject = " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[1:] else titles)
            sentences.append(
                f"{subject} {verbs if titles[1:] else verb} {reason.format(what=run.config.tuning.title)}."
            )
    return sentences


VIEWS: dict[str, View] = {
    "grids": View(
        "Grids",
        "Statistics that the run recorded while it trained.",
        grids.draw,
        frozenset({Trait.MASK, Trait.PER_LAYER_GRID}),
        of_live=True,
    ),
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
        frozenset({Trait.MASK, Trait.LOW_RANK}),
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
        "One image: the prediction, the nearest training images, the layers that it depends on. Many images: a table.",
        predict.draw,
        frozenset(),
    ),
    "errors": View(
        "Errors",
        "Which classes the run confuses, how well it is calibrated, and how it compares with another run.",
        errors.draw,
        frozenset(),
    ),
    "seeds": View(
        "Seeds",
        "How much the result varies with the seed, and the studies that compare it with other settings.",
        seeds.draw,
        frozenset(),
        of_live=True,
    ),
}
