"""Similarity of independent random experts: the random baseline of the similarity figures.

For two random directions in d dimensions

    E|cos| = Γ(d/2) / (√π Γ((d+1)/2))        E cos² = 1/d        E cos = 0

and two rank-1 experts b aᵀ have cos = cos(a, a') cos(b, b') with independent factors. Any two pairs of experts are
independent, even if they share an expert, so the mean over n pairs has 1/√n of the deviation of a single pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RandomBaseline:
    """Mean |cosine| of random experts and its standard deviation; the mean of the signed cosine is 0."""

    mean: float
    deviation: float


def mean_cosine(dimension: int) -> float:
    """E|cos| of two random directions. dimension: 1 or more."""
    return math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi)


def random_experts(d_in: int, d_out: int, experts: int) -> RandomBaseline | None:
    """Baseline over the pairs of rank-1 experts of one layer; None for fewer than two experts."""
    if experts < 2:
        return None
    mean = mean_cosine(d_in) * mean_cosine(d_out)
    pair_deviation = math.sqrt(max(0.0, 1 / (d_in * d_out) - mean**2))
    return RandomBaseline(mean, pair_deviation / math.sqrt(experts * (experts - 1) / 2))


def over_layers(layers: Sequence[RandomBaseline | None]) -> RandomBaseline | None:
    """Baseline of the mean over layers, without layers that have no pairs; None if none has any."""
    present = [layer for layer in layers if layer is not None]
    if not present:
        return None
    return RandomBaseline(
        sum(layer.mean for layer in present) / len(present),
        math.sqrt(sum(layer.deviation**2 for layer in present)) / len(present),
    )


def random_overlap(rank_a: int, rank_b: int, dimension: int) -> float:
    """Mean squared cosine of the principal angles of two random subspaces of ranks r_a and r_b: max(r_a, r_b) / d."""
    return max(rank_a, rank_b) / dimension
