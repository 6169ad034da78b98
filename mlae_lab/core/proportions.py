"""Shares of images that are right: how sure one is, and whether two on the same images differ. Plain counts in."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(right: int, of: int) -> tuple[float, float]:
    """95 % interval of a share, (low, high) in [0, 1] (Wilson 1927; also Brown, Cai and DasGupta 2001).

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n),   p = right/n, z = 1.96

    It stays within [0, 1] and has a width at p = 0 and 1, where the interval p ± z √(p(1-p)/n) has none.
    right: 0 to of. (0, 1) for of = 0: nothing is known. Raises ValueError for counts that cannot be.
    """
    if not 0 <= right <= of:
        raise ValueError(f"right is {right} of {of}: it must be from 0 to {of}")
    if of == 0:
        return 0.0, 1.0
    share, square = right / of, Z * Z / of
    middle = (share + square / 2) / (1 + square)
    reach = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return (0.0 if right == 0 else middle - reach), (1.0 if right == of else middle + reach)


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Two-sided p of "A and B are right equally often" on the same images, (exact, mid-p), both in (0, 1].

    Of the n = only_a + only_b images on which the two differ, each is A's with probability 1/2:

        exact = min(1, 2 P(X ≤ m)),   mid-p = 2 P(X ≤ m) - P(X = m),   X ~ Bin(n, 1/2), m = min(only_a, only_b)

    (McNemar 1947; Fagerland, Lydersen and Laake 2013, who prefer mid-p: the exact test is too careful.)
    Raises ValueError for negative counts.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"the counts are {only_a} and {only_b}: neither may be below 0")
    n, m = only_a + only_b, min(only_a, only_b)
    base = math.lgamma(n + 1) - n * math.log(2)
    p_values = [math.exp(base - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(m + 1)]
    tail = 2 * math.fsum(p_values)
    return min(1.0, tail), min(1.0, tail - p_values[-1])


def holm(p_values: Sequence[float]) -> list[float]:
    """p of each of several tests after Holm's (1979) correction: of all together, one is wrongly called different in 5 %.

    The i-th smallest of k is multiplied by k - i + 1; none is then below a smaller one, none above 1.
    """
    found, largest = [0.0] * len(p_values), 0.0
    for place, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[at]))
        found[at] = largest
    return found
