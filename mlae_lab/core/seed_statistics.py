"""Mean and spread over seeds, how many seeds would settle a difference, and how points are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

MAX_COUNTED = 1_000  # seeds; a difference that needs more is not asked about any further
_POWER = 0.8
_SLICES = 400  # of the integral of `power`
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class SeedStatistics:
    """What several seeds say of one number at one epoch: of an accuracy in percent, or of B - A in points. n: seeds.
    deviation: over seeds (n - 1 in the denominator); low, high: 95 % interval of the mean by Student's t; all three
    None for one seed."""

    epoch: int
    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    least: float
    most: float

    @property
    def spread(self) -> tuple[float, float, float] | None:
        """(deviation, low, high), None for one seed."""
        if self.deviation is None or self.low is None or self.high is None:
            return None
        return self.deviation, self.low, self.high


def seed_statistics(epoch: int, values: Sequence[float]) -> SeedStatistics:
    """Mean and spread of at least one value."""
    n, mean = len(values), fmean(values)
    if n < 2:
        return SeedStatistics(epoch, n, mean, None, None, None, mean, mean)
    deviation = stdev(values)
    reach = t_quantile(n - 1) * deviation / math.sqrt(n)
    return SeedStatistics(epoch, n, mean, deviation, mean - reach, mean + reach, min(values), max(values))


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to three digits. degrees: of freedom, 1 or more."""
    return _T[degrees - 1] if degrees <= len(_T) else 1.96 + 2.4 / degrees


# ---------------------------------------------------------------- how many seeds


@dataclass(frozen=True)
class SampleSize:
    """How many pairs of seeds would settle a difference, were its mean and its spread over seeds the ones seen so far.
    Each is None where more than `MAX_COUNTED` would be needed, or where the mean is 0.

    clear: the smallest n >= 2 for which the half-width of the 95 % interval is below the difference,
    t(97.5 %, n - 1) s / √n < |d|: the interval would then just miss 0.
    likely: the smallest n >= 2 with which a difference of this size is found four times out of five (see `power`).
    It is the larger one: an n that makes the interval just miss 0 on average does so only every other time.
    """

    n: int
    clear: int | None
    likely: int | None


def sample_size(seen: SeedStatistics) -> SampleSize | None:
    """None where it cannot be told: for one pair, and for pairs without any spread."""
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
    """How often n pairs find a true mean difference: the share of samples whose 95 % interval leaves 0 out.

    effect: true mean / true standard deviation of the paired differences (Cohen's d_z), 0 or more; n: 2 or more.
    With t = t(97.5 %, ν), ν = n - 1 and u = s/σ, which follows √(χ²(ν)/ν),

        power = ∫ [Φ(effect √n - t u) + Φ(-effect √n - t u)] f(u) du,   ln f(u) = c + (ν - 1) ln u - ν u²/2

    the paired t-test's, integrated by the trapezoid rule; within 0.001.
    """
    degrees, t, shift, phi = n - 1, t_quantile(n - 1), effect * math.sqrt(n), NormalDist().cdf
    reach = 6 / math.sqrt(2 * degrees)  # u has a standard deviation of about 1/√(2ν)
    low, high = max(0.0, 1 - reach), 1 + reach
    step = (high - low) / _SLICES
    log = math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
    total = 0.0
    for i in range(_SLICES + 1):
        u = low + i * step
        if u > 0:
            density = math.exp(log + (degrees - 1) * math.log(u) - degrees * u * u / 2)
        else:
            density = math.exp(log) if degrees == 1 else 0.0
        found = phi(shift - t * u) + phi(-shift - t * u)
        total += density * found * (0.5 if i in (0, _SLICES) else 1.0)
    return min(1.0, total * step)


def seeds_needed(seen: SeedStatistics) -> str:
    """How many seeds would settle a difference, as one or two sentences; "" where the pairs seen have settled it."""
    if seen.spread is None:
        return "How many seeds would settle it cannot be told from one pair."
    found = sample_size(seen)
    if found is None:
        return "How many seeds would settle it cannot be told from pairs without any spread."
    _, low, high = seen.spread
    if not low <= 0 <= high:
        return ""
    if found.clear is None:
        return f"Even {MAX_COUNTED:,} pairs would not tell a mean of {points(seen.mean, signed=True)} points from 0."
    rough = " With so few pairs the spread itself is a guess, and so is this number." if seen.n < 5 else ""
    likely = f"more than {MAX_COUNTED:,}" if found.likely is None else f"{found.likely:,}"
    return (
        f"If mean and spread stay as they are, {found.clear:,} pairs of seeds would bring the 95 % interval clear of 0, and "
        f"{likely} would find a difference of this size four times out of five.{rough}"
    )


# ---------------------------------------------------------------- words


def points(value: float, signed: bool = False) -> str:
    """Points as text, one digit behind the point, a second where the first would show 0."""
    digits = 1 if abs(value) >= 0.05 or value == 0 else 2
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return "0"
    sign = "−" if value < 0 else "+" if signed else ""
    return sign + text.lstrip("-")


def between(low: float, high: float, signed: bool = True) -> str:
    """An interval as text."""
    return f"{points(low, signed)} to {points(high, signed)}"
