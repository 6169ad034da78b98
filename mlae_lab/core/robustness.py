"""How two runs stand the same random masks, in words. Answers are those of the question `robustness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

_ROUNDING = 1e-9  # points: a difference of exactly one image is one


@dataclass(frozen=True)
class Stand:
    """How a run stands random masks. trained: top-1 in percent with all experts; mean, deviation: under the masks;
    fall: points lost on average."""

    trained: float
    mean: float
    deviation: float | None

    @property
    def fall(self) -> float:
        return self.trained - self.mean

    @property
    def loses(self) -> str:
        """The fall in words: "loses 9.0 points", or "gains" where the masks do it good."""
        return f"{'gains' if self.fall < 0 else 'loses'} {abs(self.fall):.1f} points"


def stand(answer: Mapping) -> Stand:
    """Read off an answer of `robustness`."""
    return Stand(answer["trained"]["accuracy"], answer["mean"], answer["deviation"])


def words(answer: Mapping, name: str) -> str:
    """One run in a sentence."""
    found = stand(answer)
    spread = "" if found.deviation is None else f", standard deviation {found.deviation:.1f}"
    return (
        f"{name}: {found.trained:.1f} % with all experts, {found.mean:.1f} % on average over {answer['samples']} random "
        f"masks at p = {answer['rate']:g}{spread}; the worst left {answer['lowest']:.1f} %"
    )


def verdict(one: Mapping, other: Mapping, names: Sequence[str]) -> str:
    """Which of two runs loses less under the masks that both saw, draw by draw, and how far that goes. names: of both.

    d: mean over the samples of one's change less the other's, in points. A run is called better where |d| > 2 SE(d) over
    the samples and |d| is at least one image, 100 / images points. The samples say nothing of other images or seeds,
    and the second sentence says so.
    """
    a, b = stand(one), stand(other)
    gained = [(x - a.trained) - (y - b.trained) for x, y in zip(one["accuracies"], other["accuracies"], strict=False)]
    images = min(one["images"], other["images"])
    middle = mean(gained)
    error = stdev(gained) / len(gained) ** 0.5 if len(gained) > 1 else None
    masks = f"{len(gained)} mask{'s' * (len(gained) != 1)}"
    if error is None or abs(middle) <= 2 * error:
        found = f"with {masks} neither stands them better"
    elif abs(middle) < 100 / images - _ROUNDING:  # many samples make the error small, but not the images many
        found = f"the difference, {abs(middle):.2g} points, is no more than an image's worth and settles nothing"
    else:
        better = names[0] if middle > 0 else names[1]
        share = sum(g > 0 for g in gained) if middle > 0 else sum(g < 0 for g in gained)
        found = (
            f"{better} stands these random masks better, by {abs(middle):.1f} points; it lost less under {share} of "
            f"{masks} that both saw"
        )
    return (
        f"{names[0]} {a.loses}, {names[1]} {b.loses}: {found}. That is one seed per run on {images:,} "
        f"image{'s' * (images != 1)}; what training with masking does, only Seeds (repeats) can say."
    )
