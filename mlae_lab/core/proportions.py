"""Intervals and tests for accuracies, from plain counts: Wilson, McNemar, Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927; also Brown, Cai and DasGupta 2001).

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n),   p = correct/n, n = total, z = 1.96

    It stays within [0, 1] and has a width at p = 0 and 1, where the interval p ± z √(p(1-p)/n) has none.

    Args:
        correct: 0 to `total`.
        total: Number of trials.

    Returns:
        (low, high) in [0, 1]; (0, 1) for a total of 0.

    Raises:
        ValueError: If `correct` is not from 0 to `total`.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"correct is {correct} of {total}: it must be from 0 to {total}")
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, Z * Z / total
    center = (share + square / 2) / (1 + square)
    half_width = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return (0.0 if correct == 0 else center - half_width), (1.0 if correct == total else center + half_width)


def balanced_accuracy(correct: Sequence[int], images: Sequence[int]) -> float:
    """The mean recall of the classes that have images, in [0, 1]: every class counts alike, whatever its size.

    Args:
        correct: Number of correctly classified images of each class.
        images: Number of images of each class, at least one of them above 0.
    """
    recalls = [hits / total for hits, total in zip(correct, images, strict=True) if total]
    return sum(recalls) / len(recalls)


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Two-sided McNemar test of equal accuracy of A and B on the same images.

    Under the null hypothesis, each of the n = only_a + only_b discordant images is A's with probability 1/2:

        exact = min(1, 2 P(X ≤ m)),   mid-p = 2 P(X ≤ m) - P(X = m),   X ~ Bin(n, 1/2), m = min(only_a, only_b)

    (McNemar 1947; Fagerland, Lydersen and Laake 2013, who prefer mid-p because the exact test is too conservative.)

    Args:
        only_a: Images that only A classifies correctly.
        only_b: Images that only B classifies correctly.

    Returns:
        (exact p, mid-p), both in (0, 1].

    Raises:
        ValueError: If a count is negative.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"the counts are {only_a} and {only_b}: they must be 0 or more")
    n, m = only_a + only_b, min(only_a, only_b)
    base = math.lgamma(n + 1) - n * math.log(2)
    p_values = [math.exp(base - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(m + 1)]
    tail = 2 * math.fsum(p_values)
    return min(1.0, tail), min(1.0, tail - p_values[-1])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's (1979) correction, which controls the family-wise error rate.

    The i-th smallest of k is multiplied by k - i + 1, capped at 1 and made non-decreasing in rank.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
