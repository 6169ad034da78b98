"""The tour "From a frozen weight to a verdict": texts, and the diagram that they switch (`tour.js`).

Every number of the texts is taken from the recording, which `assets/record_tour.py` makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from mlae_lab.core import tour as recorded
from mlae_lab.core.inference import Comparison, comparisons
from mlae_lab.core.patterns import allocation
from mlae_lab.core.random_baseline import random_experts
from mlae_lab.locations import ASSETS
from mlae_lab.ui import served, terms
from mlae_lab.ui.bundle import bundled

RECORDING = ASSETS / "tour.json"
SHORT = ("update", "parts", "grid", "drop", "verdict")  # the pages that Home offers
_COMPONENT = bundled("tour", ("palette.js", "tour.js"), "tour.html", "tour.css")
_MASK = allocation((8, 8, 8, 2, 2, 2, 2, 2, 2, 8, 8, 8), columns=8)  # the paper's hourglass in eight columns
_NAMES = {3: "three", 6: "six"}
_STRONGEST = 10  # experts whose share of all contributions the text gives


@dataclass(frozen=True)
class Step:
    """One page of the tour. name: of its scene; text and formula: HTML; alt: what the diagram shows."""

    name: str
    title: str
    text: str
    formula: str
    alt: str


@lru_cache(maxsize=1)
def recording() -> dict[str, Any]:
    """The recording."""
    return json.loads(RECORDING.read_text())


@lru_cache(maxsize=1)
def verdict() -> dict[str, Comparison]:
    """Masked minus dense, by seed: "similarity" and "accuracy"."""
    arms = recording()["arms"]
    return {
        name: comparisons(
            {arm: {run["seed"]: run[name] for run in runs} for arm, runs in arms.items()}, reference="dense"
        )["masked"]
        for name in ("similarity", "accuracy")
    }


def _mean(arm: str, name: str) -> float:
    values = [run[name] for run in recording()["arms"][arm]]
    return sum(values) / len(values)


def random_similarity() -> float:
    """Mean |cos| of random experts of the shapes of the recorded run."""
    weights = recording()["weights"]
    baseline = random_experts(weights["inputs"], weights["outputs"], recording()["columns"])
    assert baseline is not None
    return baseline.mean


@dataclass(frozen=True)
class Finding:
    """What the recorded runs say: a title, and a sentence or two each about similarity and accuracy."""

    title: str
    similarity: str
    accuracy: str


def finding() -> Finding:
    """The finding, by the intervals of the paired differences."""
    similarity, accuracy = verdict()["similarity"], verdict()["accuracy"]
    assert similarity.low is not None
    assert similarity.high is not None
    assert accuracy.low is not None
    assert accuracy.high is not None
    runs = recording()["arms"]
    pairs = list(zip(runs["masked"], runs["dense"], strict=True))
    lower = sum(masked["similarity"] < dense["similarity"] for masked, dense in pairs)
    masked_mean, dense_mean = _mean("masked", "similarity"), _mean("dense", "similarity")
    is_settled = similarity.low > 0 or similarity.high < 0
    title = "Masking makes the experts less alike" if similarity.mean < 0 else "Masking makes the experts more alike"
    return Finding(
        f"{title}: |cos| {dense_mean:.3f} → {masked_mean:.3f}" if is_settled else "Not settled by these runs",
        f"The mean similarity is {masked_mean:.3f} with the mask and {dense_mean:.3f} without, and it is lower in "
        f"{lower} of {len(pairs)} pairs. The 95 % interval of the difference goes from {similarity.low:+.3f} to "
        f"{similarity.high:+.3f}" + ("." if is_settled else ", so it is not settled."),
        f"Accuracy is {_mean('masked', 'accuracy'):.1f} % against {_mean('dense', 'accuracy'):.1f} %. The 95 % "
        f"interval of the difference goes from {accuracy.low:+.1f} to {accuracy.high:+.1f} points"
        + (", so it is not settled." if accuracy.low < 0 < accuracy.high else "."),
    )


@lru_cache(maxsize=1)
def steps() -> tuple[Step, ...]:
    """All pages of the tour."""
    run = recording()
    weights, rows, columns = run["weights"], run["rows"], run["columns"]
    inputs, outputs, layer = weights["inputs"], weights["outputs"], run["layer"]
    sorted_values = sorted((value for row in run["contribution"][-1] for value in row), reverse=True)
    share = 100 * sum(sorted_values[:_STRONGEST]) / sum(sorted_values)
    similar = run["arms"]["masked"][0]["similarity"]
    pages = (
        Step(
            "weight",
            "A frozen weight",
            "<p>A network sees an image as lists of numbers. Each layer turns one list into another, with a table of "
            "numbers, its weight W, and with other fixed operations that we leave out.</p><p>Here is a corner of a "
            f"real one, from layer {layer} of the network of this lab. Orange is above 0, blue below. It took a long "
            "training to find these numbers: they were "
            "changed a little after each group of example images, until the answers fitted. We leave them as they "
            "are: W is frozen.</p>",
            "y = <b>W</b> x",
            f"A heat map of the frozen weight of layer {layer} between the input x and the output y",
        ),
        Step(
            "update",
            "Add a small change",
            "<p>The network has never seen clothes. To teach it clothes, we add a change to W and train only that: ΔW."
            f"</p><p>An unrestricted change needs as many numbers as W has: {outputs * inputs:,}. The method LoRA "
            f"allows a cheaper kind only: it multiplies a tall table B by a flat table A. With {columns} columns "
            "this needs only "
            f"{columns * (outputs + inputs):,} numbers.</p>",
            "y = (W + <b>ΔW</b>) x, &nbsp; <b>ΔW = B A</b>",
            "The frozen weight plus the trained update, which is the product of a tall and a flat matrix",
        ),
        Step(
            "parts",
            "Eight experts",
            "<p>B times A is the same as a sum of eight parts. Each part takes one column b of B and one row aᵀ of "
            "A.</p><p>A part compares its input with one pattern, a: aᵀx is large if they are alike. It adds that "
            "many times one direction, b, to the output. It is as simple as a change can be: it has rank 1. The "
            "paper behind this lab (MLAE) calls it an expert.</p>",
            "ΔW = <b>b₁a₁ᵀ + … + b₈a₈ᵀ</b>",
            "The update as the sum of its eight rank-1 experts",
        ),
        Step(
            "grid",
            f"{rows * columns} cells",
            f"<p>The network has {rows} layers, one after another. Each gets {columns} experts. That makes "
            f"{rows * columns}.</p><p>So we draw a grid. A row is a layer, a cell is an expert. The top row is near "
            "the image, the bottom row is near the answer. You will meet this grid on many pages of the lab.</p>",
            "for each layer &nbsp; ΔW = Σ <b>b aᵀ</b>, a sum of its eight",
            f"A grid of {rows} rows, the layers, by {columns} columns, the experts",
        ),
        Step(
            "coefficient",
            "How loud is each expert?",
            "<p>Each expert has a number that makes it louder or softer: its coefficient λ. It starts at 1, and it is "
            "trained like the rest.</p><p>The colours show λ after the training. Orange went up, blue went down. At 0 "
            "an expert would be silent.</p>",
            "ΔW = Σ <b>λ</b> b aᵀ",
            "The grid, coloured by the coefficient of each expert after training",
        ),
        Step(
            "mask",
            "A mask",
            "<p>Must every expert be there? A mask says which ones are. A crossed cell has no expert, and its layer "
            "uses the experts that it has.</p><p>This one is like the hourglass of the paper: many experts at both "
            "ends. You can "
            "paint your own on the page Masks.</p>",
            "ΔW = Σ <b>m</b> λ b aᵀ, &nbsp; m is 0 or 1",
            f"The grid with a fixed mask: {_MASK.experts} of {rows * columns} experts exist",
        ),
        Step(
            "drop",
            "Let chance decide",
            "<p>The paper proposes another kind of mask. All experts exist, but in each step of the training some are "
            f"left out at random. With p = {recorded.DROP_RATE:g}, each misses half of the steps on "
            "average.</p><p>You see the masks of a real run. A ring marks an expert that takes part. The idea: an "
            "expert that cannot rely on its "
            "neighbours may learn something else than they do.</p>",
            "ΔW = Σ <b>m</b> λ b aᵀ, &nbsp; m is 0 with probability <b>p</b>, else 1/(1 − p)",
            "The grid with the masks of one step after another; rings mark the active experts",
        ),
        Step(
            "train",
            "Watch them learn",
            f"<p>Now the run trains. It goes {run['epochs']} times over 800 images of clothes; each time is an epoch. "
            "After each one the lab tests it on 200 images that it did not train on.</p><p>The curve shows how "
            "many of these it names correctly. The stronger a cell's colour, the more that expert adds to its "
            "layer.</p>",
            "contribution = ‖<b>λ b aᵀ</b> x‖ / ‖W x + bias‖",
            f"The grid coloured by contribution, next to the accuracy curve, which ends at "
            f"{run['accuracy'][-1][1]:.1f} %",
        ),
        Step(
            "ranking",
            "Who does the work?",
            "<p>Here are the same cells again, sorted by what they add. No expert is new, they only changed places.</p>"
            f"<p>The first {_STRONGEST} of {rows * columns} add {share:.0f} % of all contributions. Adding much is "
            "not the same as helping. The page Experts switches experts off and counts the errors.</p>",
            "sorted by contribution",
            "The 96 experts as bars, sorted by their contribution",
        ),
        Step(
            "similarity",
            "Do two do the same?",
            "<p>The same cells again, now on the diagonals of small maps. Each map is one layer: row i and column j "
            "compare experts i and j.</p><p>A dark square off the diagonal means that two experts change the layer in "
            "the same or the exactly "
            f"opposite direction (1); 0 means directions at right angles. The mean here is {similar:.3f}. Random "
            f"experts would have {random_similarity():.3f}.</p>",
            "|cos| of <b>λᵢ bᵢ aᵢᵀ</b> and <b>λⱼ bⱼ aⱼᵀ</b>",
            f"Twelve similarity maps with the 96 experts on the diagonals; the mean similarity is {similar:.3f}",
        ),
        Step(
            "verdict",
            "One run proves nothing",
            "<p>All this was one run: one dot. So we train six, from three random starts (seeds): three with the mask "
            "and three without. Lines join runs of the same "
            f"seed.</p><p>{finding().similarity}</p><p>{finding().accuracy}</p><p>That is a verdict about one task "
            "and one small network, after a short training. To ask your own "
            "question, open Studies.</p>",
            "difference by seed, with its interval",
            "Similarity and accuracy of six runs, joined by seed",
        ),
    )  # fmt: skip
    return tuple(replace(page, text=terms.marked(page.text, with_common=True)) for page in pages)


def tour(
    key: str, step: int = 0, names: Sequence[str] = (), close: str = "", on_close: Callable[[], None] = lambda: None
) -> int:
    """Draw the tour.

    Args:
        key: Unique on the page.
        step: The page that it opens with, from 0.
        names: Of the pages that are shown, all by default.
        close: Label of a button that closes it, "" for none.

        on_close: Called when it is closed.

    Returns:
        The page that is shown, from 0.
    """
    shown = [page for page in steps() if not names or page.name in names]
    result: Any = _COMPONENT(
        key=key,
        data={
            "steps": [asdict(page) for page in shown],
            "step": min(max(step, 0), len(shown) - 1),
            "recording": _address(),
            "mask": _MASK.keep,
            "random": random_similarity(),
            "close": close,
        },
        default={"step": step},
        on_step_change=lambda: None,
        on_closed_change=on_close,
        height="content",
    )
    return int(result.step)


@lru_cache(maxsize=1)
def _address() -> str:
    content = RECORDING.read_bytes()
    return served.address(f"tour-{hashlib.sha256(content).hexdigest()[:12]}.json", content)
