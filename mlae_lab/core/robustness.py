"""Robustness of runs to random masks, summarized from answers to the query `robustness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

_ROUNDING = 1e-9  # points; a difference of exactly one image counts


@dataclass(frozen=True)
class Robustness:
    """Accuracy of a run under random masks, in percent.

    Attributes:
        trained: Top-1 accuracy with all experts.
        mean: Mean over the masks.
        deviation: Standard deviation over the masks, None for a single mask.
    """

    trained: float
    mean: float
    deviation: float | None

    @property
    def loss(self) -> float:
        """Points lost on average."""
        return self.trained - self.mean

    @property
    def change(self) -> str:
        """The mean change as text: "loses 9.0 points" or "gains 1.5 points"."""
        return f"{'gains' if self.loss < 0 else 'loses'} {abs(self.loss):.1f} points"


def robustness_of(answer: Mapping) -> Robustness:
    """The numbers of an answer to `robustness`."""
    return Robustness(answer["trained"]["accuracy"], answer["mean"], answer["deviation"])


def summary(answer: Mapping, name: str) -> str:
    """One run in a sentence."""
    run = robustness_of(answer)
    deviation = "" if run.deviation is None else f", standard deviation {run.deviation:.1f}"
    return (
        f"{name}: {run.trained:.1f} % with all experts, {run.mean:.1f} % on average over {answer['samples']} random "
        f"masks at p = {answer['rate']:g}{deviation}; minimum {answer['lowest']:.1f} %"
    )


def verdict(answer_a: Mapping, answer_b: Mapping, names: Sequence[str]) -> str:
    """Compare two runs under the same random masks, paired by mask.

    d is the mean over the masks of A's change minus B's, in points. A run is called more robust where |d| > 2 SE(d)
    over the masks and |d| is at least one image, 100 / images points. The masks allow no conclusion about other images
    or seeds; the last sentence says so.

    Args:
        answer_a: Answer of run A.
        answer_b: Answer of run B.
        names: Names of both runs.
    """
    a, b = robustness_of(answer_a), robustness_of(answer_b)
    pairs = zip(answer_a["accuracies"], answer_b["accuracies"], strict=False)
    differences = [(x - a.trained) - (y - b.trained) for x, y in pairs]
    images = min(answer_a["images"], answer_b["images"])
    d = mean(differences)
    error = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    masks = f"{len(differences)} mask{'s' * (len(differences) != 1)}"
    if error is None or abs(d) <= 2 * error:
        result = f"with {masks}, neither is significantly more robust"
    elif abs(d) < 100 / images - _ROUNDING:  # many masks make the error small, but the images remain few
        result = f"the difference, {abs(d):.2g} points, is less than one image and not conclusive"
    else:
        better = names[0] if d > 0 else names[1]
        count = sum(g > 0 for g in differences) if d > 0 else sum(g < 0 for g in differences)
        result = (
            f"{better} is more robust to these random masks by {abs(d):.1f} points and loses less under {count} of "
            f"{masks}"
        )
    return (
        f"{names[0]} {a.change}, {names[1]} {b.change}: {result}. This compares one seed per run on {images:,} "
        f"image{'s' * (images != 1)}; use Seeds (repeats) to judge the effect of training with masking."
    )
