"""Paired comparisons against scipy, and against simulated truth."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from mlae_lab.core.inference import comparisons, power, saturation, seeds_for

A, B = [80.1, 81.2, 79.9, 80.7], [79.0, 80.9, 79.1, 80.6]


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_only_a_task_on_which_every_arm_is_nearly_perfect_is_saturated() -> None:
    assert "above 98 %" in saturation([98.5, 99.2])
    assert saturation([97.9, 99.2]) == saturation([99.5]) == saturation([]) == ""


def test_one_comparison_is_the_paired_t_test() -> None:
    result = comparisons({"a": by_seed(*A), "b": by_seed(*B)}, "b")["a"]
    expected = stats.ttest_rel(A, B)
    low, high = expected.confidence_interval()
    assert (result.p, result.adjusted) == pytest.approx((expected.pvalue, expected.pvalue))
    assert (result.low, result.high, result.level) == pytest.approx((low, high, 0.95))
    assert not result.is_different


def test_only_seeds_that_both_have_are_compared() -> None:
    results = comparisons({"a": {0: 90.0, 1: 91.0, 5: 10.0}, "b": {0: 80.0, 1: 80.0, 7: 1.0}, "c": {9: 1.0}}, "b")
    assert results["a"].seeds == (0, 1)
    assert results["a"].mean == pytest.approx(10.5)
    assert set(results) == {"a"}
    assert comparisons({"a": by_seed(*A)}, "missing") == {}


def test_one_seed_and_equal_differences_have_no_interval() -> None:
    single = comparisons({"a": {0: 81.0}, "b": {0: 80.0}}, "b", margin=5.0)["a"]
    assert (single.mean, single.low, single.p, single.equivalent, single.settling, single.is_different) == (
        1.0,
        None,
        None,
        None,
        None,
        False,
    )
    flat = comparisons({"a": by_seed(81, 82), "b": by_seed(80, 81)}, "b", margin=5.0)["a"]
    assert (flat.deviation, flat.low, flat.equivalent, flat.is_different) == (0.0, None, None, False)


def test_holm_adjusts_and_intervals_agree_with_its_decisions() -> None:
    draw = random.Random(0)
    reference = [80 + draw.gauss(0, 1) for _ in range(6)]
    values = {"r": by_seed(*reference)}
    for arm, shift in (("far", 6.0), ("near", 2.5), ("same", 0.0)):
        values[arm] = by_seed(*(x + shift + draw.gauss(0, 1) for x in reference))
    results = comparisons(values, "r")
    alone = {arm: stats.ttest_rel(list(of.values()), reference).pvalue for arm, of in values.items() if arm != "r"}
    order = sorted(alone, key=lambda arm: alone[arm])
    expected, highest = {}, 0.0
    for number, arm in enumerate(order):
        highest = max(highest, min(1.0, (3 - number) * alone[arm]))
        expected[arm] = highest
    assert {arm: result.adjusted for arm, result in results.items()} == pytest.approx(expected)
    for result in results.values():
        assert result.low is not None
        assert result.high is not None
        assert result.is_different == (not result.low <= 0 <= result.high)
    assert results["far"].is_different
    assert not results["same"].is_different


def test_equivalence_is_two_one_sided_tests() -> None:
    differences = [0.1, -0.1, 0.2, 0.0, -0.2]
    values = {"a": by_seed(*(80 + d for d in differences)), "b": by_seed(*[80.0] * 5)}
    half = stats.t.ppf(0.95, 4) * stats.sem(differences)  # the 90 % interval
    assert comparisons(values, "b", margin=half * 1.01)["a"].equivalent is True
    assert comparisons(values, "b", margin=half * 0.99)["a"].equivalent is False
    assert comparisons(values, "b")["a"].equivalent is None


def test_power_is_that_of_the_noncentral_t() -> None:
    t = stats.t.ppf(0.975, 9)
    expected = stats.nct.sf(t, 9, 10**0.5) + stats.nct.cdf(-t, 9, 10**0.5)
    assert power(1.0, 10) == pytest.approx(expected)
    assert (seeds_for(0.5), seeds_for(1.0)) == (34, 10)  # tables of the paired t-test: power 80 %, two-sided 5 %
    assert seeds_for(0.01) is None


@pytest.mark.parametrize("arms", [2, 5])
def test_false_verdicts_are_as_rare_as_stated(arms: int) -> None:
    """1,000 studies with three seeds in which no arm differs: at most one in twenty finds a difference, and the
    intervals cover the truth at least as often as 95 %, up to three standard errors of the simulation."""
    draw = random.Random(arms)
    false = covered = intervals = 0
    for _ in range(1000):
        seed_effects = [draw.gauss(0, 2) for _ in range(3)]
        values = {f"a{k}": by_seed(*(80 + e + draw.gauss(0, 1) for e in seed_effects)) for k in range(arms)}
        results = comparisons(values, "a0").values()
        false += any(result.is_different for result in results)
        covered += sum(
            result.low <= 0 <= result.high for result in results if result.low is not None and result.high is not None
        )
        intervals += len(results)
    assert false / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    assert covered / intervals >= 0.95 - 3 * (0.05 * 0.95 / intervals) ** 0.5
