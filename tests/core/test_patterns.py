"""The masks of the paper: every number of appendix A.5, and combinations that the paper does not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget
from mlae_lab.core.patterns import (
    FIXED_NAMES,
    NAMES,
    STOCHASTIC_NAMES,
    allocation,
    dense,
    lessons,
    paper_patterns,
    pattern,
    random_counts,
    uniform,
)
from mlae_lab.core.plan import Kind, MaskPlan, PlanError, block_targets

VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")

COUNTS = {
    "incremental": [2, 2, 2, 6, 6, 6, 10, 10, 10, 14, 14, 14],
    "decremental": [14, 14, 14, 10, 10, 10, 6, 6, 6, 2, 2, 2],
    "hourglass": [14, 14, 14, 2, 2, 2, 2, 2, 2, 14, 14, 14],
    "protruding": [2, 2, 2, 14, 14, 14, 14, 14, 14, 2, 2, 2],
}
RATES = {
    "incremental": [0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0],
    "decremental": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8],
    "hourglass": [0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.8, 0.6, 0.5, 0.3, 0.1, 0],
    "protruding": [0.8, 0.6, 0.5, 0.3, 0.1, 0, 0, 0.1, 0.3, 0.5, 0.6, 0.8],
}
ACTIVE = {"incremental": 50.4, "decremental": 50.4, "hourglass": 59.2, "protruding": 59.2}


@pytest.mark.parametrize("name", COUNTS)
def test_fixed(name: str) -> None:
    plan = pattern(name, "fixed")
    assert list(plan.kept) == COUNTS[name]
    assert plan.kind is Kind.FIXED
    assert set(plan.row_rates()) == {0.0}
    assert plan == pattern(name)  # fixed is the default kind


@pytest.mark.parametrize("name", COUNTS)
def test_mixed(name: str) -> None:
    plan = pattern(name, "mixed", drop_rate=0.3)
    assert list(plan.kept) == COUNTS[name]
    assert plan.kind is Kind.MIXED
    assert set(plan.row_rates()) == {0.3}
    assert set(pattern(name, "mixed").row_rates()) == {0.5}
    assert budget(plan, VIT_B16.shapes(plan.targets)).expected_active == pytest.approx(96 * 0.7)


@pytest.mark.parametrize("name", RATES)
def test_stochastic(name: str) -> None:
    plan = pattern(name, "stochastic")
    assert plan.kept == (8,) * 12
    assert list(plan.row_rates()) == RATES[name]
    assert plan.kind is Kind.STOCHASTIC
    assert budget(plan, VIT_B16.shapes(plan.targets)).expected_active == pytest.approx(ACTIVE[name])


@pytest.mark.parametrize(("rate", "active"), [(0.5, 48), (0.7, 28.8), (0.0, 96)])
def test_uniform(rate: float, active: float) -> None:
    plan = pattern("uniform", drop_rate=rate)
    assert plan == uniform(rate)
    assert plan.kind is (Kind.STOCHASTIC if rate else Kind.DENSE)
    assert budget(plan, VIT_B16.shapes(plan.targets)).expected_active == pytest.approx(active)


def test_all_patterns_of_the_paper_have_one_budget() -> None:
    entries = paper_patterns()
    assert len(entries) == 16
    assert Counter(p.kind for p in entries) == {Kind.DENSE: 1, Kind.FIXED: 5, Kind.STOCHASTIC: 5, Kind.MIXED: 5}
    assert len({p.plan.hash for p in entries}) == 16
    for entry in entries:
        assert entry.plan.kind is entry.kind
        assert entry.plan.targets == block_targets(12)
        assert entry.plan.experts == 96
        assert budget(entry.plan, VIT_B16.shapes(entry.plan.targets)).parameters == 295_008


def test_all_sixteen_titles_differ() -> None:
    titles = [p.title for p in paper_patterns()]
    assert len(set(titles)) == 16
    assert titles[0] == "Dense"
    assert "Incremental, mixed" in titles


def test_paper_patterns_uses_its_drop_rate() -> None:
    by_key = {(p.name, p.kind): p.plan for p in paper_patterns(drop_rate=0.7)}
    assert set(by_key["uniform", Kind.STOCHASTIC].row_rates()) == {0.7}
    assert set(by_key["hourglass", Kind.MIXED].row_rates()) == {0.7}


# ---------------------------------------------------------------- the random allocation


def test_random_counts_are_1_to_14_and_sum_to_96() -> None:
    draws = [random_counts(seed) for seed in range(300)]
    for counts in draws:
        assert len(counts) == 12
        assert sum(counts) == 96
        assert all(type(count) is int and 1 <= count <= 14 for count in counts)
    assert len(set(draws)) == 300
    for row in range(12):  # by symmetry the mean of each row is 8; its deviation over 300 draws is some 0.22
        assert sum(counts[row] for counts in draws) / 300 == pytest.approx(8, abs=0.8)


def test_random_counts_is_the_same_on_every_machine() -> None:
    assert random_counts(0) == (13, 4, 10, 8, 5, 2, 6, 11, 8, 14, 9, 6)
    assert random_counts(1) == (1, 10, 3, 1, 11, 7, 6, 6, 12, 14, 14, 11)


def test_every_random_allocation_is_equally_likely() -> None:
    possible = [counts for counts in product((1, 2, 3), repeat=3) if sum(counts) == 6]
    seen = Counter(random_counts(seed, budget=6, layers=3, low=1, high=3) for seed in range(1400))
    assert set(seen) == set(possible)
    assert len(possible) == 7
    for times in seen.values():  # 200 expected, standard deviation 13
        assert times == pytest.approx(200, abs=45)


@pytest.mark.parametrize("budget_", [11, 169])
def test_an_impossible_budget_is_refused(budget_: int) -> None:
    with pytest.raises(PlanError, match=f"a budget of {budget_} experts over 12 layers.*between 12 and 168"):
        random_counts(0, budget=budget_)


def test_smallest_and_largest_budget() -> None:
    assert random_counts(5, budget=12) == (1,) * 12
    assert random_counts(5, budget=168) == (14,) * 12


def test_random_pattern_follows_its_seed() -> None:
    assert pattern("random", seed=3) == pattern("random", seed=3)
    assert pattern("random", seed=3) != pattern("random", seed=4)
    assert pattern("random", "mixed", seed=3).kept == pattern("random", "fixed", seed=3).kept == random_counts(3)


# ---------------------------------------------------------------- what the paper does not have


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pattern("spiral"), ["'spiral' is not a pattern", *NAMES]),
        (lambda: pattern("incremental", "soft"), ["'soft' is not a kind of mask", "fixed, stochastic or mixed"]),
        (lambda: pattern("dense", "fixed"), ["dense has no fixed mask", "it can be dense"]),
        (lambda: pattern("uniform", "fixed"), ["uniform has no fixed mask", "it can be stochastic"]),
        (lambda: pattern("uniform", "mixed"), ["uniform has no mixed mask"]),
        (lambda: pattern("random", "stochastic"), ["random has no stochastic mask", "it can be fixed or mixed"]),
        (lambda: pattern("incremental", "dense"), ["incremental has no dense mask"]),
        (
            lambda: pattern("incremental", "fixed", 0.5),
            ["0.5 does not apply to incremental, fixed", "it drops nothing"],
        ),
        (
            lambda: pattern("hourglass", "stochastic", 0.5),
            ["0.5 does not apply to hourglass, stochastic", "the paper's"],
        ),
        (lambda: pattern("dense", drop_rate=0.5), ["0.5 does not apply to dense"]),
        (lambda: pattern("dense", drop_rate=0.0), ["0.0 does not apply to dense"]),
        (
            lambda: pattern("incremental", "fixed", experts=4),
            ["4 experts per layer does not apply to incremental, fixed"],
        ),
        (lambda: pattern("random", "mixed", experts=4), ["4 experts per layer does not apply to random, mixed"]),
        (lambda: pattern("uniform", experts=0), ["0 experts per layer", "from 1 to 16"]),
        (lambda: pattern("uniform", experts=17), ["17 experts per layer"]),
        (lambda: pattern("dense", experts=2.0), ["2.0 experts per layer"]),  # type: ignore[arg-type]
        (lambda: pattern("uniform", drop_rate=1.0), ["a drop rate is 1.0"]),
        (lambda: pattern("uniform", drop_rate=-0.1), ["a drop rate is -0.1"]),
        (lambda: allocation((1, 17)), ["a row keeps 17 experts", "from 0 to 16"]),
        (lambda: allocation((1, -1)), ["a row keeps -1 experts"]),
        (lambda: allocation((1, True)), ["a row keeps True experts"]),
        (lambda: allocation((1, 5), columns=4), ["a row keeps 5 experts on a canvas of 4 columns"]),
        (lambda: allocation((1, 5), columns=17), ["17 columns"]),
    ],
)
def test_an_impossible_mask_is_an_error(call: Callable[[], MaskPlan], words: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        call()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("call", [lambda: allocation(()), lambda: dense(layers=0), lambda: uniform(0.5, layers=0)])
def test_a_plan_without_rows_is_a_plan_error(call: Callable[[], MaskPlan]) -> None:
    with pytest.raises(PlanError):
        call()


def test_names_are_all_reachable() -> None:
    assert set(FIXED_NAMES) | set(STOCHASTIC_NAMES) | {"dense"} == set(NAMES)
    for name in NAMES:
        assert pattern(name).experts == 96


# ---------------------------------------------------------------- building blocks


def test_allocation_keeps_the_first_experts_of_each_row() -> None:
    plan = allocation((0, 2, 1), drop_rate=0.5)
    assert plan.keep == ((False, False), (True, True), (True, False))
    assert plan.drop_rate == ((0, 0), (0.5, 0.5), (0.5, 0))
    assert allocation((0, 0)).columns == 1
    assert allocation((1,), columns=16).columns == 16


def test_scaled_changes_the_experts_and_not_the_mask() -> None:
    plan = replace(uniform(0.5), expert_rank=4, coefficient_init=0.25, train_coefficients=False)
    assert plan.keep == uniform(0.5).keep
    assert plan.drop_rate == uniform(0.5).drop_rate
    assert (plan.expert_rank, plan.coefficient_init, plan.train_coefficients) == (4, 0.25, False)


def test_the_papers_masks_are_computed_once_and_cannot_be_changed() -> None:
    assert paper_patterns(0.3) is paper_patterns(0.3)
    assert isinstance(paper_patterns(), tuple)


def test_five_lessons() -> None:
    plans = {lesson.name: lesson.plan for lesson in lessons()}
    assert list(plans) == ["single layer", "single expert", "checkerboard", "bottleneck", "p = 0.9"]
    assert [plan.experts for plan in plans.values()] == [8, 1, 48, 74, 96]
    assert [plan.kind for plan in plans.values()] == [Kind.FIXED] * 4 + [Kind.STOCHASTIC]
    assert plans["checkerboard"].kept == (4,) * 12
    assert plans["checkerboard"].keep[0] != plans["checkerboard"].keep[1]
    assert all(lesson.teaches[-1] in ".?" and len(lesson.teaches) < 90 for lesson in lessons())
    papers = {entry.plan.keep for entry in paper_patterns()}
    assert all(plan.keep not in papers for name, plan in plans.items() if name != "p = 0.9")


def test_nearly_every_step_of_the_last_lesson_has_an_empty_layer() -> None:
    plan = lessons()[-1].plan
    assert budget(plan, VIT_B16.shapes(plan.targets)).any_empty_probability > 0.99
