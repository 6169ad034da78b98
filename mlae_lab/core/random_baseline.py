"""What experts would show that have nothing to do with each other: the null line of the similarity figures.

For two random directions in d dimensions

    E|cos| = Γ(d/2) / (√π Γ((d+1)/2))        E cos² = 1/d        E cos = 0

and a rank-1 expert b aᵀ has cos = cos(a, a') cos(b, b') with both factors independent. Any two pairs of experts are
independent too, also where they share one, so the mean over n pairs has 1/√n of the deviation of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RandomBaseline:
    """Mean |cosine| of random experts and the standard deviation of such a mean. The signed mean has 0."""

    mean: float
    deviation: float


def mean_cosine(dimension: int) -> float:
    """E|cos| of two random directions. dimension: 1 or more."""
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)


def random_experts(d_in: int, d_out: int, experts: int) -> RandomBaseline | None:
    """Of one layer with that many rank-1 experts, over its pairs; None for fewer than two."""
    if experts < 2:
        return None
    mean = mean_cosine(d_in) * mean_cosine(d_out)
    of_one = math.sqrt(max(0.0, 1 / (d_in * d_out) - mean**2))
    return RandomBaseline(mean, of_one / math.sqrt(experts * (experts - 1) / 2))


def over_layers(layers: Sequence[RandomBaseline | None]) -> RandomBaseline | None:
    """The mean over layers, those without pairs left out; None if none has any."""
    there = [layer for layer in layers if layer is not None]
    if not there:
        return None
    return RandomBaseline(
        sum(layer.mean for layer in there) / len(there),
        math.sqrt(sum(layer.deviation**2 for layer in there)) / len(there),
    )


def random_overlap(rank: int, other: int, dimension: int) -> float:
    """Mean squared cosine of the principal angles of two random spaces: max(r, s) / d."""
    return max(rank, other) / dimension
