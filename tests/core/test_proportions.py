"""Intervals and tests of proportions, compared with their equations and with exact counts of all outcomes."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, sqrt

import pytest

from mlae_lab.core.proportions import Z, holm, mcnemar, wilson


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (1, 200), (73, 100), (999, 2000)]
)
def test_the_ends_of_the_interval_solve_its_equation(correct: int, total: int) -> None:
    """An end q is a proportion from which correct/total is exactly z standard deviations of q away."""
    low, high = wilson(correct, total)
    share = correct / total
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(Z * sqrt(end * (1 - end) / total), rel=1e-9)
    assert (low == 0) == (correct == 0)
    assert (high == 1) == (correct == total)


def test_intervals_from_the_literature() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662, 15 of 148 is 0.0624 to 0.1605."""
    assert wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson(15, 148) == (pytest.approx(0.0624, abs=5e-5), pytest.approx(0.1605, abs=5e-5))


def test_no_images_and_impossible_counts() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for correct, total in ((-1, 3), (4, 3), (0, -1)):
        with pytest.raises(ValueError, match=f"correct is {correct} of {total}"):
            wilson(correct, total)


@pytest.mark.parametrize(("a", "b"), [(a, b) for a in range(7) for b in range(7)] + [(3, 40), (500, 440), (0, 60)])
def test_mcnemar_is_the_sum_over_all_outcomes(a: int, b: int) -> None:
    """exact: probability of an outcome at least as extreme; mid-p: this outcome counted by half on either side."""
    n = a + b
    exact = sum(Fraction(comb(n, k), 2**n) for k in range(n + 1) if abs(2 * k - n) >= abs(a - b))
    point = Fraction(comb(n, a), 2**n)
    result = mcnemar(a, b)
    assert result == (pytest.approx(float(exact)), pytest.approx(float(exact - point if a != b else 1)))
    assert result == mcnemar(b, a)


def test_mcnemar_of_eight_images_by_enumeration() -> None:
    outcomes = [sum(coins) for coins in product((0, 1), repeat=8)]
    assert mcnemar(1, 7)[0] == pytest.approx(sum(k in (0, 1, 7, 8) for k in outcomes) / 2**8)


def test_mcnemar_of_many_images_and_impossible_counts() -> None:
    assert 0 <= mcnemar(0, 50_000)[0] < 1e-300
    assert mcnemar(25_000, 25_000) == (1.0, 1.0)
    assert mcnemar(0, 0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="-1 and 2"):
        mcnemar(-1, 2)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]
