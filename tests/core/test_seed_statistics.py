"""Statistics over seeds and sample sizes, compared with tables of the paired t-test and with simulations."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest

from mlae_lab.core.inference import MAX_SEEDS, half_width, power
from mlae_lab.core.seed_statistics import (
    PERCENT,
    SampleSize,
    SeedStatistics,
    between,
    mean_text,
    points,
    sample_size,
    seed_statistics,
    seeds_needed,
)


def seen(mean: float, deviation: float | None, n: int = 5) -> SeedStatistics:
    reach = None if deviation is None else half_width(deviation, n)
    low, high = (None, None) if reach is None else (mean - reach, mean + reach)
    return SeedStatistics(4, n, mean, deviation, low, high, mean, mean)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_sample_size_for_80_percent_power_as_in_tables(effect: float, pairs: int) -> None:
    """Paired t-test, two-sided, 5 %: Cohen's small, medium and large effects and one of a standard deviation."""
    size = sample_size(seen(effect * 2.5, 2.5))
    assert size is not None
    assert size.power_80 == pairs
    assert power(effect, pairs) >= 0.8 > power(effect, pairs - 1)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 60])
def test_the_power_without_a_difference_is_5_percent(n: int) -> None:
    assert power(0.0, n) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("effect", "n"), [(0.6, 4), (1.5, 3), (1.0, 8), (4.0, 2)])
def test_power_is_the_share_of_intervals_that_exclude_zero(effect: float, n: int) -> None:
    draw, samples, excluding = random.Random(0), 20_000, 0
    for _ in range(samples):
        values = [draw.gauss(effect, 1) for _ in range(n)]
        excluding += abs(fmean(values)) > half_width(stdev(values), n)
    assert excluding / samples == pytest.approx(power(effect, n), abs=4 * math.sqrt(0.25 / samples))


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 2.6458), (-0.4, 1.0), (0.05, 0.6), (10.0, 1.0)])
def test_the_interval_excludes_zero_from_the_sample_size_on(mean: float, deviation: float) -> None:
    size = sample_size(seen(mean, deviation))
    assert size is not None
    assert size.excludes_zero is not None
    assert half_width(deviation, size.excludes_zero) < abs(mean)
    assert size.excludes_zero == 2 or half_width(deviation, size.excludes_zero - 1) >= abs(mean)
    assert size.power_80 is None or size.power_80 >= size.excludes_zero


def test_sample_sizes_that_are_unknown_or_too_large() -> None:
    assert sample_size(seen(3.0, None, 1)) is None
    assert seeds_needed(seen(3.0, None, 1)).startswith("One pair is not enough")
    assert sample_size(seen(1.5, 0.0, 3)) is None
    assert "The pairs do not vary" in seeds_needed(seen(1.5, 0.0, 3))
    assert sample_size(seen(0.0, 1.0)) == SampleSize(5, None, None)
    assert f"Even {MAX_SEEDS:,} pairs would not separate a mean difference of 0 points" in seeds_needed(seen(0.0, 1.0))
    assert sample_size(seen(0.09, 1.0)) == SampleSize(5, 477, 971)
    assert sample_size(seen(0.07, 1.0)) == SampleSize(5, 787, None)
    assert "787 pairs" in seeds_needed(seen(0.07, 1.0))
    assert "more than 1,000 pairs detect" in seeds_needed(seen(0.07, 1.0))


def test_sample_sizes_as_text() -> None:
    assert seeds_needed(seen(3.0, 1.0)) == ""  # the interval excludes 0
    assert seeds_needed(seen(0.5, 1.0)) == (
        "If the mean and standard deviation stay the same, the 95 % interval excludes 0 with 18 pairs of seeds; 34 "
        "pairs detect a difference of this size with 80 % power."
    )
    assert seeds_needed(seen(0.5, 1.0, 3)).endswith(
        "With so few pairs, the standard deviation and these numbers are rough estimates."
    )


def test_statistics_by_hand() -> None:
    assert seed_statistics(4, [60.0]) == SeedStatistics(4, 1, 60.0, None, None, None, 60.0, 60.0)
    statistics = seed_statistics(4, [1.0, 2.0, 6.0])
    assert (statistics.n, statistics.mean, statistics.minimum, statistics.maximum) == (3, 3.0, 1.0, 6.0)
    assert statistics.deviation == pytest.approx(math.sqrt(7))
    assert statistics.high is not None
    assert statistics.high - 3 == pytest.approx(4.30265273 * math.sqrt(7 / 3))


def test_points_as_text() -> None:
    assert [points(v) for v in (2.54, -2.54, 0.0, 0.04, -0.04, 0.001)] == ["2.5", "−2.5", "0", "0.04", "−0.04", "0"]
    assert between(-0.25, 1.0) == "−0.2 to +1.0"


def test_the_interval_of_an_accuracy_stays_within_0_and_100() -> None:
    near_the_top = seed_statistics(8, [99.0, 100.0, 99.5], PERCENT)
    assert near_the_top.high == 100.0
    assert near_the_top.low == seed_statistics(8, [99.0, 100.0, 99.5]).low
    assert seed_statistics(8, [0.0, 1.0], PERCENT).low == 0.0
    assert mean_text(near_the_top, 1) == "99.5 (98.3 to 100.0)"
    assert mean_text(seed_statistics(8, [50.0, 51.0, 52.0], PERCENT), 1) == "51.0 ± 2.5"
    assert mean_text(seed_statistics(8, [50.0], PERCENT), 1) == "50.0"
