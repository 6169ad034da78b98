"""Expert states as plain data: parsing, formatting and other masks."""

from __future__ import annotations

import math

import pytest

from mlae_lab.core.expert_state import (
    all_on,
    cells_on,
    checked,
    existing,
    kept_plan,
    off_text,
    read_off,
    scaled,
    through_mask,
    with_cells,
)
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan, PlanError, block_targets

PLAN = allocation((2, 0, 3), drop_rate=0.4)


def test_all_on_has_one_for_each_expert_and_nothing_elsewhere() -> None:
    assert all_on(PLAN) == ((1.0, 1.0, None), (None, None, None), (1.0, 1.0, 1.0))
    assert existing(PLAN) == ((0, 0), (0, 1), (2, 0), (2, 1), (2, 2))


def test_cells_and_scale() -> None:
    state = scaled(with_cells(all_on(PLAN), [(0, 1), (1, 1)], 0.0), 0.5)
    assert state == ((0.5, 0.0, None), (None, None, None), (0.5, 0.5, 0.5))
    assert cells_on(state) == ((0, 0), (2, 0), (2, 1), (2, 2))


def test_the_kept_plan_has_the_experts_that_are_on_and_their_rates() -> None:
    kept = kept_plan(PLAN, with_cells(scaled(all_on(PLAN), 0.5), [(0, 1), (2, 0)], 0.0))
    assert kept.kept == (1, 0, 2)
    assert kept.drop_rate == ((0.4, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.4, 0.4))
    assert kept_plan(PLAN, all_on(PLAN)) == PLAN


@pytest.mark.parametrize(("text", "cells"), [
    ("", ()), ("L3E2", ((2, 1),)), ("l1", ((0, 0), (0, 1))), ("L3E2,L1", ((2, 1), (0, 0), (0, 1))), ("L2", ()),
    (" L1E1 , L1E2 ", ((0, 0), (0, 1))),
])  # fmt: skip
def test_experts_are_parsed(text: str, cells: tuple) -> None:
    assert read_off(PLAN, text) == cells


@pytest.mark.parametrize(("text", "says"), [
    ("E2", "'E2' names no expert: write L3E2"), ("L0", "names layer 0: this run has layers 1 to 3"),
    ("L4E1", "names layer 4"), ("L1E3", "layer 1 has 1, 2"), ("L2E1", "layer 2 has none"),
    ("L3E0", "layer 3 has 1, 2, 3"), ("L3E2L1", "names no expert"),
])  # fmt: skip
def test_unknown_experts_are_refused(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        read_off(PLAN, text)


def test_off_text_is_short_and_can_be_parsed() -> None:
    assert off_text(PLAN, [(2, 1), (0, 1), (0, 0)]) == "L1,L3E2"
    for cells in ((), ((0, 0),), existing(PLAN), ((0, 0), (0, 1), (2, 2))):
        assert sorted(read_off(PLAN, off_text(PLAN, cells))) == sorted(cells)


def test_rows_of_several_kinds_of_layers_are_named_by_their_labels_or_numbers() -> None:
    targets = (*block_targets(2), *block_targets(2, "mlp.fc1"))
    plan = MaskPlan(((True, True),) * 4, ((0.0, 0.0),) * 4, targets)
    assert off_text(plan, [(0, 0), (3, 0), (3, 1)]) == "L1.qkvE1,L2.fc1"
    assert read_off(plan, "L1.qkvE1,L2.fc1") == ((0, 0), (3, 0), (3, 1))
    assert read_off(plan, "L1E1,L4") == ((0, 0), (3, 0), (3, 1)), "a link of version 0.5 counts rows"
    for cells in (((1, 1),), existing(plan)):
        assert read_off(plan, off_text(plan, cells)) == cells
    with pytest.raises(PlanError, match=r"L3.fc1 names layer 3.fc1: this run has layers 1 to 4 \(L1.qkv to L2.fc1\)"):
        read_off(plan, "L3.fc1")


def test_another_mask_becomes_factors_and_lists_missing_experts() -> None:
    factors, ignored = through_mask(dense(), pattern("decremental"))
    assert [sum(value for value in row) for row in factors] == [8] * 6 + [6] * 3 + [2] * 3
    assert len(ignored) == 3 * 6 + 3 * 2
    assert ignored[0] == "layer 1, expert 9"
    assert through_mask(PLAN, PLAN) == (all_on(PLAN), ())
    missing = ("layer 1, expert 3", "layer 2, expert 1", "layer 2, expert 2", "layer 2, expert 3")
    assert through_mask(PLAN, uniform(0.9, 3, 3)) == (all_on(PLAN), missing)


def test_masks_are_matched_by_layer_name() -> None:
    plan = MaskPlan(((True,), (True,)), ((0.0,),) * 2, ("blocks.0.attn.qkv", "blocks.0.mlp.fc1"))
    mask = MaskPlan(((True,), (True,)), ((0.0,),) * 2, ("blocks.0.mlp.fc1", "blocks.0.mlp.fc2"))
    assert through_mask(plan, mask) == (((0.0,), (1.0,)), ("layer 1 fc2, expert 1",))
    stretched = allocation((1, 0), columns=1)  # of two other layers: stretched over the four
    run = MaskPlan(((True,),) * 4, ((0.0,),) * 4, block_targets(4, "mlp.fc1"))
    assert through_mask(run, stretched) == (((1.0,), (1.0,), (0.0,), (0.0,)), ())


def test_untrusted_factors_are_validated() -> None:
    assert checked(PLAN, [[1, 0.5, 9], [0, 0, 0], [0, -2, 1]]) == ((1.0, 0.5, None), (None,) * 3, (0.0, -2.0, 1.0))
    for wrong, says in (
        ([[1, 1, 1]] * 2, "a list of 3 rows"), ("abc", "a list of 3 rows"), ([[1, 1]] * 3, "must have 3 values"),
        ([[1, None, 0]] + [[1, 1, 1]] * 2, "is None"), ([[1, math.nan, 0]] + [[1, 1, 1]] * 2, "number from"),
        ([[1, 1e9, 0]] + [[1, 1, 1]] * 2, "number from"), ([[1, True, 0]] + [[1, 1, 1]] * 2, "is True"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=says):
            checked(PLAN, wrong)
