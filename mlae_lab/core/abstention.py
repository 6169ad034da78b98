"""Below which confidence a run abstains, chosen on images whose labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlae_lab.core.proportions import wilson
from mlae_lab.errors import LabError

_ROUNDING = 1e-9  # percent: 95 of 100 are 95 %


class AbstentionError(LabError):
    """A threshold that cannot be chosen; its text says why and what would work."""


@dataclass(frozen=True)
class Abstention:
    """A threshold of the confidence, and what it does on the images that it was chosen on.

    Attributes:
        threshold: Predictions with at least this confidence are kept, 0 to 1.
        wanted: Accuracy that the kept predictions should have, in percent.
        kept: Number of predictions that are kept.
        correct: Number of those that are correct.
        images: Number of images that it was chosen on.
    """

    threshold: float
    wanted: float
    kept: int
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """Of the kept predictions, in percent."""
        return 100 * self.correct / self.kept

    @property
    def sentence(self) -> str:
        """What the threshold does, on which images, and what that does not say."""
        return (
            f"Below a confidence of {self.threshold:.4f} the run abstains. Of its {self.images:,} evaluation images it "
            f"keeps {_share(self.kept, self.images)}; of these {_share(self.correct, self.kept)} are correct. The "
            "threshold was chosen on these images, so expect somewhat less on others."
        )


def _share(part: int, total: int) -> str:
    low, high = wilson(part, total)
    return f"{part:,} ({100 * part / total:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f})"


def chosen_threshold(correct: Sequence[bool], confidence: Sequence[float], wanted: float) -> Abstention:
    """The smallest confidence at which the accuracy of the predictions with at least that confidence is the wanted one.

        threshold = min {t : mean of correct over the images with confidence ≥ t is at least wanted / 100}

    (Selective classification: Geifman and El-Yaniv 2017, without their bound, which intervals replace here.)

    Args:
        correct: Whether each prediction is correct.
        confidence: Of each prediction, 0 to 1.
        wanted: Accuracy in percent, above 0 and at most 100.

    Raises:
        AbstentionError: The accuracy is out of range, or no confidence reaches it.
    """
    if not 0 < wanted <= 100:
        raise AbstentionError(f"the accuracy is {wanted:g}: it must be above 0 and at most 100 percent")
    order = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    hits, chosen, best = 0, None, 0.0
    for kept, i in enumerate(order, 1):
        hits += bool(correct[i])
        if kept < len(order) and confidence[order[kept]] == confidence[i]:
            continue  # equal confidences are kept or not together
        best = max(best, 100 * hits / kept)
        if 100 * hits >= (wanted - _ROUNDING) * kept:
            chosen = Abstention(confidence[i], wanted, kept, hits, len(order))
    if chosen is None:
        raise AbstentionError(
            f"no confidence gives an accuracy of {wanted:g} % on the {len(order):,} evaluation images, the highest is "
            f"{best:.1f} %: choose a lower accuracy"
        )
    return chosen
