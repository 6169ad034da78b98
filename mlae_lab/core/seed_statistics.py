"""Mean and standard deviation over seeds, sample size for a paired difference, and points as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

MAX_COUNTED = 1_000  # seeds; larger sample sizes are not computed
PERCENT = (0.0, 100.0)  # bounds of an accuracy
_POWER = 0.8
_INTERVALS = 400  # of the integral in `power`
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


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
    half_width = t_quantile(n - 1) * deviation / math.sqrt(n)
    low, high = max(bounds[0], mean - half_width), min(bounds[1], mean + half_width)
    return SeedStatistics(epoch, n, mean, deviation, low, high, min(values), max(values))


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to three digits. degrees: of freedom, 1 or more."""
    return _T[degrees - 1] if degrees <= len(_T) else 1.96 + 2.4 / degrees


# ---------------------------------------------------------------- sample size


@dataclass(frozen=True)
class SampleSize:
    """Number of pairs of seeds needed for a difference with the mean and standard deviation seen so far.

    Both sizes are None where more than `MAX_COUNTED` pairs would be needed, or where the mean is 0.

    Attributes:
        n: Pairs seen.
        excludes_zero: The smallest n >= 2 for which the half-width of the 95 % interval is below the difference,
            t(97.5 %, n - 1) s / √n < |d|, so that the interval just excludes 0.
        power_80: The smallest n >= 2 with a power of 80 % (see `power`). It is larger than `excludes_zero`, with which
            the interval excludes 0 in only about half of all samples.
    """

    n: int
    excludes_zero: int | None
    power_80: int | None


def sample_size(seen: SeedStatistics) -> SampleSize | None:
    """The sample size; None for one pair and for pairs that do not vary."""
    if seen.deviation is None or seen.deviation < 1e-9:
        return None
    effect = abs(seen.mean) / seen.deviation
    clear = next((n for n in range(2, MAX_COUNTED + 1) if t_quantile(n - 1) < effect * math.sqrt(n)), None)
    if clear is None:
        return SampleSize(seen.n, None, None)
    low, high = clear - 1, clear  # power rises with n: double until it is enough, then halve
    while high <= MAX_COUNTED and power(effect, high) < _POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, middle) < _POWER else (low, middle)
    return SampleSize(seen.n, clear, high if high <= MAX_COUNTED else None)


def power(effect: float, n: int) -> float:
    """Power of the paired t-test: the probability that the 95 % interval of n pairs excludes 0.

    With t = t(97.5 %, ν), ν = n - 1 and u = s/σ, which follows √(χ²(ν)/ν),

        power = ∫ [Φ(effect √n - t u) + Φ(-effect √n - t u)] f(u) du,   ln f(u) = c + (ν - 1) ln u - ν u²/2

    integrated by the trapezoid rule; accurate to 0.001.

    Args:
        effect: True mean / true standard deviation of the paired differences (Cohen's d_z), 0 or more.
        n: Number of pairs, 2 or more.
    """
    degrees, t, shift, phi = n - 1, t_quantile(n - 1), effect * math.sqrt(n), NormalDist().cdf
    reach = 6 / math.sqrt(2 * degrees)  # u has a standard deviation of about 1/√(2ν)
    low, high = max(0.0, 1 - reach), 1 + reach
    step = (high - low) / _INTERVALS
    log = math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
    total = 0.0
    for i in range(_INTERVALS + 1):
        u = low + i * step
        if u > 0:
            density = math.exp(log + (degrees - 1) * math.log(u) - degrees * u * u / 2)
        else:
            density = math.exp(log) if degrees == 1 else 0.0
        excluded = phi(shift - t * u) + phi(-shift - t * u)
        total += density * excluded * (0.5 if i in (0, _INTERVALS) else 1.0)
    return min(1.0, total * step)


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
        return f"Even {MAX_COUNTED:,} pairs would not separate a mean difference of {mean} points from 0."
    rough = " With so few pairs, the standard deviation and these numbers are rough estimates." if seen.n < 5 else ""
    likely = f"more than {MAX_COUNTED:,}" if size.power_80 is None else f"{size.power_80:,}"
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
