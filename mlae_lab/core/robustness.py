"""How two runs stand the same random masks, in words. Answers are those of the question `robust`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev


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


def stand(answer: Mapping) -> Stand:
    """Read off an answer of `robust`."""
    return Stand(answer["trained"]["accuracy"], answer["mean"], answer["deviation"])


def words(answer: Mapping, name: str) -> str:
    """One run in a sentence."""
    found = stand(answer)
    spread = "" if found.deviation is None else f", standard deviation {found.deviation:.1f}"
    return (
        f"{name}: {found.trained:.1f} % with all experts, {found.mean:.1f} % on average over {answer['draws']} random "
        f"masks at p = {answer['rate']:g}{spread}; the worst left {answer['lowest']:.1f} %"
    )


def verdict(one: Mapping, other: Mapping, names: Sequence[str]) -> str:
    """Which of two runs loses less under the masks that both saw, draw by draw. names: of both."""
    a, b = stand(one), stand(other)
    gained = [(x - a.trained) - (y - b.trained) for x, y in zip(one["accuracies"], other["accuracies"])]
    middle = mean(gained)
    error = stdev(gained) / len(gained) ** 0.5 if len(gained) > 1 else None
    falls = f"{names[0]} loses {a.fall:.1f} points, {names[1]} {b.fall:.1f}"
    if error is None or abs(middle) <= 2 * error:
        return f"{falls}: with {len(gained)} masks neither stands them better."
    better = names[0] if middle > 0 else names[1]
    share = sum(g > 0 for g in gained) if middle > 0 else sum(g < 0 for g in gained)
    return (
        f"{falls}: {better} stands random masks better, by {abs(middle):.1f} points; it lost less under {share} of "
        f"{len(gained)} masks that both saw."
    )
