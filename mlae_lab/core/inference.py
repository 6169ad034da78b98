"""Statistics over paired seeds: comparisons with a reference, equivalence, and the seeds that would settle it.

All arms of a study share their seeds, so the difference to the reference is taken seed by seed, d_i = x_i - r_i, and
Student's t with n - 1 degrees of freedom is used on the differences. Several arms are corrected with Holm's procedure,
which keeps the probability of one or more false verdicts at `ALPHA`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev

ALPHA = 0.05
POWER = 0.8
MAX_SEEDS = 1_000
_TINY = 1e-9  # points; below it differences do not vary: the evaluation is too coarse


@dataclass(frozen=True)
class Comparison:
    """The difference of an arm to the reference, in percentage points.

    Attributes:
        seeds: Those that both have.
        mean: Mean of the differences; positive: the arm is better.
        deviation: Their standard deviation, None for one seed.
        low: Lower end of the interval at `level`, None without one.
        high: Its upper end.
        level: 1 - alpha / k where Holm's procedure tests this arm at alpha / k.
        p: Two-sided p of the paired t-test, None without an interval.
        adjusted: p adjusted by Holm's procedure.
        equivalent: Whether two one-sided tests at alpha / m find |difference| < margin; None if they cannot.
        settling: Seeds that detect the mean seen so far with a power of 80 % at this level; None if it is not known or
            more than `MAX_SEEDS`.
    """

    seeds: tuple[int, ...]
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 1 - ALPHA
    p: float | None = None
    adjusted: float | None = None
    equivalent: bool | None = None
    settling: int | None = None

    @property
    def is_different(self) -> bool:
        """Whether Holm's procedure finds a difference."""
        return self.adjusted is not None and self.adjusted < ALPHA


CEILING = 98.0  # percent; above it the errors of 200 images are four at most


def saturation(accuracies: Iterable[float]) -> str:
    """A sentence where every mean accuracy, in percent, is above `CEILING`; "" elsewhere or without any."""
    known = list(accuracies)
    if len(known) < 2 or min(known) < CEILING:
        return ""
    return (
        f"All mean accuracies are above {CEILING:g} %: the task is nearly solved and leaves little room for a "
        "difference. A harder task, such as dSprites-Loc, shows more."
    )


def half_width(deviation: float, n: int, alpha: float = ALPHA) -> float:
    """Half of the width of the interval of a mean, t(1 - alpha/2, n - 1) s / √n. n: 2 or more."""
    return t_quantile(1 - alpha / 2, n - 1) * deviation / math.sqrt(n)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def comparisons(
    values: Mapping[str, Mapping[int, float]], reference: str | Mapping[str, str], margin: float | None = None
) -> dict[str, Comparison]:
    """Compare every arm with its reference.

    Args:
        values: Arm to seed to accuracy in percent.
        reference: An arm, or for each arm the one that it is compared with.
        margin: For the test of equivalence, in points; None for none.

    Returns:
        One comparison for each arm that is no reference and has a seed in common with its own.
    """
    references = dict.fromkeys(values, reference) if isinstance(reference, str) else reference
    paired = {
        arm: _paired(of_arm, values.get(references[arm], {}))
        for arm, of_arm in values.items()
        if arm != references[arm]
    }
    results = {arm: _alone(pairs) for arm, pairs in paired.items() if pairs}
    results = _holm(results, ALPHA)
    tests = sum(result.p is not None for result in results.values())
    return {
        arm: replace(result, equivalent=_equivalent(result, margin, ALPHA / max(1, tests)), settling=_settling(result))
        for arm, result in results.items()
    }


def _paired(values: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    return {seed: values[seed] - base[seed] for seed in sorted(values) if seed in base}


def _alone(pairs: Mapping[int, float]) -> Comparison:
    from scipy.special import stdtr

    seeds, differences = tuple(pairs), list(pairs.values())
    mean, n = fmean(differences), len(differences)
    if n < 2:
        return Comparison(seeds, mean)
    deviation = stdev(differences)
    if deviation < _TINY:
        return Comparison(seeds, mean, deviation)
    t = abs(mean) * math.sqrt(n) / deviation
    return Comparison(seeds, mean, deviation, p=float(2 * stdtr(n - 1, -t)))


def _holm(results: Mapping[str, Comparison], alpha: float) -> dict[str, Comparison]:
    """With adjusted p and an interval at the level at which the procedure tests each arm.

    The i-th smallest of m p-values is tested at alpha / (m - i + 1). An arm after the first that is not rejected is
    tested at the level of that one, so that an interval excludes 0 exactly where a difference is found.
    """
    tested = sorted(
        ((result.p, arm) for arm, result in results.items() if result.p is not None), key=lambda entry: entry[0]
    )
    adjusted, steps, reached, stopped = 0.0, len(tested), dict(results), None
    for number, (p, arm) in enumerate(tested):
        share = stopped or steps - number
        adjusted = max(adjusted, min(1.0, (steps - number) * p))
        result = results[arm]
        assert result.deviation is not None
        width = half_width(result.deviation, len(result.seeds), alpha / share)
        reached[arm] = replace(
            result, adjusted=adjusted, level=1 - alpha / share, low=result.mean - width, high=result.mean + width
        )
        if stopped is None and adjusted >= alpha:
            stopped = share
    return reached


def _equivalent(result: Comparison, margin: float | None, alpha: float) -> bool | None:
    """Two one-sided t-tests: the interval at 1 - 2 alpha lies within ± margin."""
    if margin is None or result.deviation is None or result.p is None:
        return None
    width = half_width(result.deviation, len(result.seeds), 2 * alpha)
    return bool(-margin < result.mean - width and result.mean + width < margin)


# ---------------------------------------------------------------- sample size


def power(effect: float, n: int, alpha: float = ALPHA) -> float:
    """Power of the paired t-test, from the noncentral t distribution.

    Args:
        effect: True mean / true standard deviation of the differences (Cohen's d_z), 0 or more.
        n: Number of pairs, 2 or more.
        alpha: Of the two-sided test.
    """
    from scipy.special import nctdtr

    bound, shift = t_quantile(1 - alpha / 2, n - 1), effect * math.sqrt(n)
    return float(1 - nctdtr(n - 1, shift, bound) + nctdtr(n - 1, shift, -bound))


def seeds_for(effect: float, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """The smallest number of pairs with this power, None if it is more than `MAX_SEEDS`."""
    low, high = 1, 2  # power rises with n: double until it is enough, then halve
    while power(effect, high, alpha) < wanted:
        low, high = high, 2 * high
        if high > 2 * MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, middle, alpha) < wanted else (low, middle)
    return high if high <= MAX_SEEDS else None


def _settling(result: Comparison) -> int | None:
    if result.deviation is None or result.deviation < _TINY or abs(result.mean) < _TINY:
        return None
    return seeds_for(abs(result.mean) / result.deviation, 1 - result.level)
