"""How many seeds would settle a difference: against the tables of the paired t-test and against throwing the dice."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest

from mlae_lab.core.seed_statistics import (
    MAX_COUNTED,
    SampleSize,
    SeedStatistics,
    between,
    points,
    power,
    sample_size,
    seed_statistics,
    seeds_needed,
    t_quantile,
)


def seen(mean: float, deviation: float | None, n: int = 5) -> SeedStatistics:
    reach = None if deviation is None else t_quantile(n - 1) * deviation / math.sqrt(n)
    low, high = (None, None) if reach is None else (mean - reach, mean + reach)
    return SeedStatistics(4, n, mean, deviation, low, high, mean, mean)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_eighty_percent_power_as_the_tables_have_it(effect: float, pairs: int) -> None:
    """Paired t-test, two sides, 5 %: Cohen's small, medium and large effects and one of a standard deviation."""
    found = sample_size(seen(effect * 2.5, 2.5))
    assert found is not None
    assert found.likely == pairs
    assert power(effect, pairs) >= 0.8 > power(effect, pairs - 1)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 60])
def test_without_a_difference_one_in_twenty_is_called_one(n: int) -> None:
    assert power(0.0, n) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("effect", "n"), [(0.6, 4), (1.5, 3), (1.0, 8), (4.0, 2)])
def test_power_is_how_often_an_interval_leaves_zero_out(effect: float, n: int) -> None:
    dice, times, found = random.Random(0), 20_000, 0
    for _ in range(times):
        values = [dice.gauss(effect, 1) for _ in range(n)]
        reach = t_quantile(n - 1) * stdev(values) / math.sqrt(n)
        found += abs(fmean(values)) > reach
    assert found / times == pytest.approx(power(effect, n), abs=4 * math.sqrt(0.25 / times))


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 2.6458), (-0.4, 1.0), (0.05, 0.6), (10.0, 1.0)])
def test_the_interval_is_clear_of_zero_from_that_number_on(mean: float, deviation: float) -> None:
    found = sample_size(seen(mean, deviation))
    assert found is not None
    assert found.clear is not None

    def half_width(n: int) -> float:
        return t_quantile(n - 1) * deviation / math.sqrt(n)

    assert half_width(found.clear) < abs(mean)
    assert found.clear == 2 or half_width(found.clear - 1) >= abs(mean)
    assert found.likely is None or found.likely >= found.clear


def test_what_cannot_be_told() -> None:
    assert sample_size(seen(3.0, None, 1)) is None
    assert "cannot be told from one pair" in seeds_needed(seen(3.0, None, 1))
    assert sample_size(seen(1.5, 0.0, 3)) is None
    assert "without any spread" in seeds_needed(seen(1.5, 0.0, 3))
    assert sample_size(seen(0.0, 1.0)) == SampleSize(5, None, None)
    assert f"Even {MAX_COUNTED:,} pairs would not tell a mean of 0 points from 0" in seeds_needed(seen(0.0, 1.0))
    assert sample_size(seen(0.09, 1.0)) == SampleSize(5, 477, 971)
    assert sample_size(seen(0.07, 1.0)) == SampleSize(5, 787, None)
    assert "787 pairs" in seeds_needed(seen(0.07, 1.0))
    assert "more than 1,000 would find" in seeds_needed(seen(0.07, 1.0))


def test_words() -> None:
    assert seeds_needed(seen(3.0, 1.0)) == ""  # it is settled
    assert seeds_needed(seen(0.5, 1.0)) == (
        "If mean and spread stay as they are, 18 pairs of seeds would bring the 95 % interval clear of 0, and 34 would find "
        "a difference of this size four times out of five."
    )
    assert seeds_needed(seen(0.5, 1.0, 3)).endswith(
        "With so few pairs the spread itself is a guess, and so is this number."
    )


def test_spread_by_hand() -> None:
    assert seed_statistics(4, [60.0]) == SeedStatistics(4, 1, 60.0, None, None, None, 60.0, 60.0)
    found = seed_statistics(4, [1.0, 2.0, 6.0])
    assert (found.n, found.mean, found.least, found.most) == (3, 3.0, 1.0, 6.0)
    assert found.deviation == pytest.approx(math.sqrt(7))
    assert found.high - 3 == pytest.approx(4.303 * math.sqrt(7 / 3))


def test_points_as_text() -> None:
    assert [points(v) for v in (2.54, -2.54, 0.0, 0.04, -0.04, 0.001)] == [
        "2.5",
        "−2.5",
        "0",
        "0.04",
        "−0.04",
        "0",
    ]
    assert between(-0.25, 1.0) == "−0.2 to +1.0"


@pytest.mark.parametrize("degrees", [*range(1, 31), 31, 60, 1000])
def test_the_quantiles_are_those_of_students_t(degrees: int) -> None:
    """The density integrated from 0 to the quantile is 0.475."""
    t, n = t_quantile(degrees), 20_000
    log = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    heights = [math.exp(log - (degrees + 1) / 2 * math.log1p((t * i / n) ** 2 / degrees)) for i in range(n + 1)]
    area = t / n * (sum(heights) - (heights[0] + heights[-1]) / 2)
    assert area == pytest.approx(0.475, abs=4e-4)
