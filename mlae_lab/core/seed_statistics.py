"""Mean and standard deviation over seeds, sample size for a paired difference, and points as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mlae_lab.core.inference import MAX_SEEDS, half_width, seeds_for

PERCENT = (0.0, 100.0)  # bounds of an accuracy


@dataclass(frozen=True)
class SeedStatistics:
    """Statistics over seeds at one epoch, of an accuracy in percent or of a difference B - A in points.

    Attributes:
        epoch: The epoch.
        n: Number of seeds.
        mean: Mean over seeds.
        deviation: Standard deviation over seeds (n - 1 in the denominator), None for one seed.
        low: Lower end of the 95 % interval of the mean by Student's t, None for one seed; that of an accuracy lies
            within 0 to 100 %.
        high: Its upper end.
        minimum: Over seeds.
        maximum: Over seeds.
    """

    epoch: int
    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    minimum: float
    maximum: float

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """(deviation, low, high), None for one seed."""
        if self.deviation is None or self.low is None or self.high is None:
            return None
        return self.deviation, self.low, self.high


def seed_statistics(
    epoch: int, values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> SeedStatistics:
    """Statistics of at least one value.

    Args:
        epoch: The epoch.
        values: One for each seed.
        bounds: Lowest and highest possible value; the interval, symmetric about the mean, is cut there.
    """
    n, mean = len(values), fmean(values)
    if n < 2:
        return SeedStatistics(epoch, n, mean, None, None, None, mean, mean)
    deviation = stdev(values)
    reach = half_width(deviation, n)
    low, high = max(bounds[0], mean - reach), min(bounds[1], mean + reach)
    return SeedStatistics(epoch, n, mean, deviation, low, high, min(values), max(values))


# ---------------------------------------------------------------- sample size


@dataclass(frozen=True)
class SampleSize:
    """Number of pairs of seeds needed for a difference with the mean and standard deviation seen so far.

    Both sizes are None where more than `MAX_SEEDS` pairs would be needed, or where the mean is 0.

    Attributes:
        n: Pairs seen.
        excludes_zero: The smallest n >= 2 for which the half-width of the 95 % interval is below the difference,
            t(97.5 %, n - 1) s / √n < |d|, so that the interval just excludes 0.
        power_80: The smallest n >= 2 with a power of 80 % (see `inference.power`). It is larger than `excludes_zero`,
            with which the interval excludes 0 in only about half of all samples.
    """

    n: int
    excludes_zero: int | None
    power_80: int | None


def sample_size(seen: SeedStatistics) -> SampleSize | None:
    """The sample size; None for one pair and for pairs that do not vary."""
    if seen.deviation is None or seen.deviation < 1e-9:
        return None
    effect = abs(seen.mean) / seen.deviation
    clear = next((n for n in range(2, MAX_SEEDS + 1) if half_width(1.0, n) < effect), None)
    return SampleSize(seen.n, clear, seeds_for(effect) if clear else None)


def seeds_needed(seen: SeedStatistics) -> str:
    """The seeds needed, in one or two sentences; "" where the interval of the pairs seen already excludes 0."""
    if seen.interval is None:
        return "One pair is not enough to estimate how many seeds are needed."
    size = sample_size(seen)
    if size is None:
        return "The pairs do not vary, so the number of seeds needed cannot be estimated."
    _, low, high = seen.interval
    if not low <= 0 <= high:
        return ""
    if size.excludes_zero is None:
        mean = points(seen.mean, signed=True)
        return f"Even {MAX_SEEDS:,} pairs would not separate a mean difference of {mean} points from 0."
    rough = " With so few pairs, the standard deviation and these numbers are rough estimates." if seen.n < 5 else ""
    likely = f"more than {MAX_SEEDS:,}" if size.power_80 is None else f"{size.power_80:,}"
    return (
        f"If the mean and standard deviation stay the same, the 95 % interval excludes 0 with {size.excludes_zero:,} "
        f"pairs of seeds; {likely} pairs detect a difference of this size with 80 % power.{rough}"
    )


# ---------------------------------------------------------------- points as text


def points(value: float, signed: bool = False) -> str:
    """Points as text, with one decimal, or two where one would show 0."""
    digits = 1 if abs(value) >= 0.05 or value == 0 else 2
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return "0"
    sign = "−" if value < 0 else "+" if signed else ""
    return sign + text.lstrip("-")


def between(low: float, high: float, signed: bool = True) -> str:
    """An interval as text."""
    return f"{points(low, signed)} to {points(high, signed)}"


def mean_text(statistics: SeedStatistics, digits: int) -> str:
    """A mean with half the width of its 95 % interval, "98.2 ± 0.4"; with both ends if the interval is cut."""
    mean = f"{statistics.mean:.{digits}f}"
    if statistics.interval is None:
        return mean
    _, low, high = statistics.interval
    if abs((statistics.mean - low) - (high - statistics.mean)) > 1e-9:
        return f"{mean} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{mean} ± {(high - low) / 2:.{digits}f}"
