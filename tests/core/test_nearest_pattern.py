"""Distance of plans from the paper's masks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.edits import onto, with_modules
from mlae_lab.core.nearest_pattern import difference, matches, nearest
from mlae_lab.core.patterns import Pattern, allocation, dense, fitted, lessons, paper_patterns, pattern, uniform
from mlae_lab.core.plan import Kind, MaskPlan, block_targets
from tests.reference import cleared

ALL = [entry for rate in (0.5, 0.3) for entry in paper_patterns(rate)]
LAB = catalog.backbone("lab_vit_12x128")


@pytest.mark.parametrize("entry", ALL, ids=lambda e: f"{e.title}-{e.plan.drop_rate[0][0]}")
def test_each_mask_of_the_paper_is_its_own_nearest(entry: Pattern) -> None:
    result = nearest(entry.plan)
    assert result.same
    assert (result.name, result.kind) == (entry.name, entry.kind)


def test_titles_name_kind_and_rate() -> None:
    assert nearest(dense()).title == "dense"
    assert nearest(pattern("hourglass")).title == "hourglass, fixed"
    assert nearest(uniform(0.7)).title == "uniform, stochastic (p = 0.7)"
    assert nearest(pattern("protruding", "stochastic")).title == "protruding, stochastic"


def test_one_cell_away() -> None:
    plan = pattern("hourglass")
    keep = tuple(tuple(k and (r, c) != (0, 3) for c, k in enumerate(row)) for r, row in enumerate(plan.keep))
    result = nearest(replace(plan, keep=keep))
    assert (result.name, result.cells, result.rate, result.same) == ("hourglass", 1, 0.0, False)


def test_one_rate_away() -> None:
    rates = (0.7, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
    result = nearest(pattern("incremental", "stochastic").with_rates(rates))
    assert (result.name, result.cells, result.rate) == ("incremental", 0, pytest.approx(0.8))


def test_the_experts_of_a_layer_have_no_order() -> None:
    plan = pattern("incremental")
    assert nearest(replace(plan, keep=tuple(row[::-1] for row in plan.keep))).same


def test_rates_are_matched_to_give_the_smallest_sum() -> None:
    """Three experts and two with p = 0.5 differ in one cell; the two rates closest to 0.5 are compared."""
    plan = MaskPlan(((1, 1, 1),), ((0.9, 0.4, 0.5),), block_targets(1))
    assert difference(allocation((2,), drop_rate=0.5), plan) == (1, pytest.approx(0.1))


@pytest.mark.parametrize("entry", ALL[:16], ids=lambda e: e.title)
def test_patterns_are_recognized_on_deeper_networks_and_several_kinds_of_layers(entry: Pattern) -> None:
    deep = fitted(entry.plan, block_targets(24))
    wide = with_modules(entry.plan, LAB, LAB.modules)
    assert nearest(deep).title == nearest(wide).title == nearest(entry.plan).title
    assert nearest(deep).same
    assert nearest(wide).same
    assert matches(entry.plan, deep)
    assert matches(entry.plan, wide)


def test_an_empty_plan_has_a_nearest_pattern() -> None:
    result = nearest(cleared(dense()))
    assert result.cells == 96
    assert result.rate == 0
    assert result.kind in (Kind.DENSE, Kind.FIXED)


def test_matches_compares_every_cell() -> None:
    board = lessons()[2].plan
    assert matches(board, board)
    assert matches(board, onto(board, uniform(0.3)))
    assert not matches(board, allocation((4,) * 12, columns=8))
    assert not matches(board, uniform(0.3))
    assert not matches(dense(), dense(experts=9))
