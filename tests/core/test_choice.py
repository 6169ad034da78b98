"""Choosing an arm: the rule on small cases, its standard error, and how it does where the truth is known."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest

from benchmarks.choice import SITUATIONS, outcomes, simulated
from mlae_lab.core import choice
from mlae_lab.core.choice import ChoiceRule, FirstStage, Scores, choose, cross_validated, honesty, kept_arms


def scores(**correct: tuple[str, ...]) -> dict[str, Scores]:
    """Arms with one text of 0 and 1 for each seed."""
    return {
        arm: Scores(
            {seed: 100 * text.count("1") / len(text) for seed, text in enumerate(texts)},
            {seed: [letter == "1" for letter in text] for seed, text in enumerate(texts)},
            len(texts[0]),
        )
        for arm, texts in correct.items()
    }


def one_away(arms: dict[str, Scores], default: str) -> dict[str, int]:
    return {arm: int(arm != default) for arm in arms}


def test_default_is_kept_within_one_standard_error_and_given_up_beyond() -> None:
    near = scores(default=("1" * 70 + "0" * 30,), better=("1" * 69 + "0" + "11" + "0" * 28,))
    kept = choose(near, "default", one_away(near, "default"))
    assert kept is not None
    assert (kept.chosen, kept.best, kept.gain) == ("default", "better", 0.0)
    # 3 of 100 images differ, 2 for and 1 against: mean 1 point, deviation of an image √(3 · 100 - 1) / √99 points
    assert kept.of("default").error == pytest.approx((3 - 1 / 100) ** 0.5 / 99**0.5 * 100 / 100**0.5)
    assert kept.of("default").is_within
    far = scores(default=("1" * 70 + "0" * 30,), better=("1" * 80 + "0" * 20,))
    taken = choose(far, "default", one_away(far, "default"))
    assert taken is not None
    assert (taken.chosen, taken.gain) == ("better", pytest.approx(10.0))
    assert not taken.of("default").is_within


def test_of_the_arms_within_the_error_the_nearest_to_the_default_is_chosen() -> None:
    arms = scores(
        default=("1" * 50 + "0" * 50,), one=("1" * 80 + "0" * 20,), two=("1" * 80 + "01" + "0" * 18,),
        also_one=("0" + "1" * 79 + "0" * 20,),
    )  # fmt: skip
    chosen = choose(arms, "default", {"default": 0, "one": 1, "two": 2, "also_one": 1})
    assert chosen is not None
    assert (chosen.best, chosen.chosen) == ("two", "one")
    assert [entry.arm for entry in chosen.candidates] == ["two", "one", "also_one", "default"]


def test_an_arm_below_the_default_is_never_chosen_for_being_near_it() -> None:
    arms = scores(
        default=("1" * 60 + "0" * 40,), far=("1" * 62 + "0" * 38,),
        near=("0" * 41 + "1" * 59,),
    )  # fmt: skip
    chosen = choose(arms, "default", {"default": 0, "far": 2, "near": 1})
    assert chosen is not None
    assert chosen.of("near").is_within
    assert not chosen.of("default").is_within
    assert chosen.chosen == "far"


def test_error_of_two_seeds_is_that_of_the_two_way_analysis_of_variance() -> None:
    draws = np.random.default_rng(3)
    table = draws.random((2, 3, 60)) < np.array([0.8, 0.7])[:, None, None]
    arms = {
        name: Scores({s: 100 * table[i, s].mean() for s in range(3)}, {s: table[i, s].tolist() for s in range(3)}, 60)
        for i, name in enumerate("ab")
    }
    d = table[0].astype(float) - table[1]
    mean, rows, columns = d.mean(), d.mean(axis=1), d.mean(axis=0)
    squares = [60 * sum((rows - mean) ** 2) / 2, 3 * sum((columns - mean) ** 2) / 59]
    rest = sum((d[s, i] - rows[s] - columns[i] + mean) ** 2 for s in range(3) for i in range(60)) / (2 * 59)
    expected = (max(squares[1], squares[0] + squares[1] - rest) / 180) ** 0.5
    chosen = choose(arms, "b", {"a": 1, "b": 0})
    assert chosen is not None
    assert max(entry.error for entry in chosen.candidates) == pytest.approx(100 * expected)


def test_without_correctness_by_image_the_error_is_larger_and_the_certainty_unknown() -> None:
    known = scores(default=("1" * 70 + "0" * 30,) * 2, better=("1" * 76 + "0" * 24,) * 2)
    unknown = {arm: Scores(entry.accuracies, {}, entry.images) for arm, entry in known.items()}
    with_images, without = (choose(arms, "default", one_away(arms, "default")) for arms in (known, unknown))
    assert with_images is not None
    assert without is not None
    assert (with_images.chosen, without.chosen) == ("better", "default")
    assert without.of("default").error > with_images.of("default").error
    assert without.optimism is None
    assert {entry.share for entry in without.candidates} == {None}
    assert sum(entry.share or 0 for entry in with_images.candidates) == pytest.approx(1)


def test_only_seeds_that_all_arms_have_count() -> None:
    arms = {"a": Scores({0: 80.0, 1: 10.0}), "b": Scores({0: 70.0})}
    chosen = choose(arms, "b", {"a": 1, "b": 0})
    assert chosen is not None
    assert (chosen.seeds, chosen.chosen, chosen.gain) == ((0,), "a", 10.0)
    assert choose({"a": Scores({0: 1.0}), "b": Scores({1: 1.0})}, "a", {"a": 0, "b": 1}) is None


def test_a_choice_is_the_same_every_time() -> None:
    draw = random.Random(0)
    arms = scores(**{name: tuple("".join(draw.choice("011") for _ in range(50)) for _ in "12") for name in "abc"})
    assert choose(arms, "a", one_away(arms, "a")) == choose(arms, "a", one_away(arms, "a"))


def test_kept_arms_are_the_default_and_the_best_of_the_others() -> None:
    means = {"default": 10.0, "a": 30.0, "b": 20.0, "c": 20.0}
    assert kept_arms(means, "default", {"default": 0, "a": 2, "b": 2, "c": 1}, 3) == ("default", "a", "c")
    assert kept_arms(means, "default", {"default": 0, "a": 2, "b": 2, "c": 1}, 1) == ("default",)


def test_test_images_give_optimism_and_regret() -> None:
    arms = scores(default=("1" * 70 + "0" * 30,), better=("1" * 80 + "0" * 20,), third=("1" * 60 + "0" * 40,))
    chosen = choose(arms, "default", one_away(arms, "default"))
    assert chosen is not None
    nothing = honesty(chosen, {"default": {}, "better": {}})
    assert (nothing.test_gain, nothing.optimism, nothing.regret, nothing.tested) == (None, None, None, 0)
    checked = honesty(chosen, {"default": {0: 70.0, 1: 71.0}, "better": {0: 76.0, 1: 77.0, 2: 0.0}})
    assert (checked.test_gain, checked.optimism, checked.seeds) == (6.0, pytest.approx(4.0), (0, 1))
    assert (checked.regret, checked.best, checked.tested) == (0.0, "better", 2)
    worse = honesty(chosen, {"default": {0: 70.0}, "better": {0: 66.0}, "third": {0: 73.0}})
    assert (worse.test_gain, worse.regret, worse.best) == (-4.0, 7.0, "third")


def test_the_rule_survives_json_and_refuses_another_unit() -> None:
    rule = ChoiceRule(12.0, "runs", ((4, 12), (16, 3)))
    assert ChoiceRule.from_dict(rule.to_dict()) == rule
    assert rule.epochs == 16
    with pytest.raises(ValueError, match="needs runs or seconds"):
        ChoiceRule(12.0, "hours", ((4, 2),))


# Bounds of a simulation with a fixed seed; `python -m benchmarks choice` prints more (LOG.md, 2026-11-28)
@pytest.mark.parametrize(
    ("name", "near_best", "regret", "optimism"),
    [("8, default best by 2", 0.8, 0.4, 1.0), ("8, one better by 5", 0.7, 1.3, 1.2)],
)
def test_rule_finds_the_best_of_simulated_arms(
    monkeypatch: pytest.MonkeyPatch, name: str, near_best: float, regret: float, optimism: float
) -> None:
    monkeypatch.setattr(choice, "RESAMPLES", 20)  # the resamples decide nothing here
    truth, draws = SITUATIONS[name], np.random.default_rng(1)
    results = [outcomes(truth, simulated(truth, draws)) for _ in range(60)]
    assert fmean(result["rule"].regret <= 1 for result in results) > near_best
    assert fmean(result["rule"].regret for result in results) < regret
    assert abs(fmean(result["rule"].seen - result["rule"].true for result in results)) < optimism


def test_expected_optimism_is_near_that_of_equal_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "RESAMPLES", 200)
    truth, draws = SITUATIONS["8 equal"], np.random.default_rng(2)
    choices = [simulated(truth, draws) for _ in range(40)]
    seen = fmean(entry.gain for entry in choices)  # the arms are equal, so all of it is optimism
    expected = fmean(entry.optimism or 0.0 for entry in choices)
    assert 1.0 < seen < 2.5
    assert abs(expected - seen) < 0.6


def test_a_cross_validation_counts_whole_divisions_and_orders_their_images() -> None:
    """Images 0, 2 are fold 0 and 1, 3 fold 1 of division 0; division 1 lacks its second fold."""
    entry = cross_validated(
        2,
        {0: 50.0, 1: 100.0, 2: 0.0},
        {0: (True, False), 1: (True, True), 2: (False, False)},
        {0: (0, 2), 1: (1, 3), 2: (0, 1)},
    )
    assert entry == Scores({0: 75.0}, {0: (True, True, False, True)}, 4, {0: (50.0, 100.0)})
    assert cross_validated(2, {0: 50.0, 1: 100.0}, {}, {}) == Scores({0: 75.0}, {}, 0, {0: (50.0, 100.0)})


def test_the_error_of_a_cross_validation_is_at_least_that_of_its_runs() -> None:
    """Differences 0, 10, 20, 30 of four runs: standard error √(500/3) / √4."""
    base = Scores({0: 50.0, 1: 50.0}, folds={0: (50.0, 50.0), 1: (50.0, 50.0)})
    other = Scores({0: 55.0, 1: 75.0}, folds={0: (50.0, 60.0), 1: (70.0, 80.0)})
    choice = choose({"a": base, "b": other}, "a", {"a": 0, "b": 1})
    assert choice is not None
    assert choice.gain_error == pytest.approx(10.0), "of two divisions: √200 / √2, larger than that of the runs"
    base, other = Scores({0: 50.0}, folds={0: (50.0,) * 4}), Scores({0: 65.0}, folds={0: (50.0, 60.0, 70.0, 80.0)})
    single = choose({"a": base, "b": other}, "a", {"a": 0, "b": 1})
    assert single is not None
    assert single.gain_error == pytest.approx((500 / 3) ** 0.5 / 2)


def test_a_first_stage_is_resampled_with_the_last() -> None:
    """b and c differ by one image of 40 in the first stage, so that c would often stay in the place of b."""

    def of(*names: str, **correct: range) -> dict[str, Scores]:
        known = {name: tuple(image in correct[name] for image in range(40)) for name in names}
        return {name: Scores({0: 2.5 * sum(values)}, {0: values}, 40) for name, values in known.items()}

    last = of("a", "b", a=range(0, 20), b=range(5, 40))
    away = {"a": 0, "b": 1, "c": 1}
    shorter = of("a", "b", "c", a=range(0, 10), b=range(10, 30), c=range(20, 39))
    alone = choose(last, "a", away)
    first = FirstStage(shorter, away, 2)
    whole = choose(last, "a", away, first)
    assert alone is not None
    assert whole is not None
    assert (whole.chosen, whole.gain, whole.gain_error) == (alone.chosen, alone.gain, alone.gain_error)
    assert alone.unknown is None
    assert whole.unknown is not None
    assert 0.3 < whole.unknown < 0.6
    assert whole.of("b").share == pytest.approx((alone.of("b").share or 0) - whole.unknown, abs=0.05)
    clear = choose(last, "a", away, FirstStage(of("a", "b", a=range(0, 10), b=range(10, 40)), away, 2))
    assert clear is not None
    assert (clear.unknown, clear.of("b").share) == (0.0, alone.of("b").share)
