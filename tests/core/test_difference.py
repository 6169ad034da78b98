"""The difference of two plans, cell by cell."""

from __future__ import annotations

from dataclasses import replace

from mlae_lab.core.difference import Change, plan_difference
from mlae_lab.core.patterns import allocation, dense, uniform
from mlae_lab.core.plan import block_targets


def test_every_cell_is_one_of_five() -> None:
    a = allocation((2, 1, 3), columns=3)
    b = replace(allocation((2, 2, 0), columns=4), drop_rate=((0.0, 0.5, 0, 0), (0.0, 0.25, 0, 0), (0.0, 0.0, 0.0, 0.0)))
    difference = plan_difference(a, b)
    assert (difference.targets, difference.columns, len(difference.cells)) == (block_targets(3), 4, 12)
    cells = {(cell.row, cell.column): cell for cell in difference.cells}
    assert cells[0, 0].change is Change.SAME
    assert (cells[0, 1].change, cells[0, 1].a, cells[0, 1].b) == (Change.RATE, 0.0, 0.5)
    assert (cells[1, 1].change, cells[1, 1].a, cells[1, 1].b) == (Change.ONLY_B, None, 0.25)
    assert {cells[2, c].change for c in range(3)} == {Change.ONLY_A}
    assert cells[2, 3].change is Change.NEITHER
    assert difference.counts == {
        Change.ONLY_A: 3, Change.ONLY_B: 1, Change.RATE: 1, Change.SAME: 2, Change.NEITHER: 5,
    }  # fmt: skip
    assert sum(difference.counts.values()) == 12


def test_the_counts_as_text() -> None:
    assert plan_difference(dense(), dense()).summary() == "All 96 experts are the same"
    assert plan_difference(dense(), uniform(0.5)).summary() == "Experts: 96 with another drop rate, 0 the same"
    difference = plan_difference(allocation((2, 1), columns=2), allocation((1, 2), columns=2))
    assert difference.summary("yours", "the other") == "Experts: 1 only in yours, 1 only in the other, 2 the same"


def test_swapping_the_plans_swaps_the_counts() -> None:
    a, b = allocation((3, 1)), uniform(0.5, layers=2, experts=2)
    counts, swapped = plan_difference(a, b).counts, plan_difference(b, a).counts
    assert counts[Change.ONLY_A] == swapped[Change.ONLY_B]
    assert counts[Change.ONLY_B] == swapped[Change.ONLY_A]
    assert counts[Change.RATE] == swapped[Change.RATE]


def test_layers_are_matched_by_name() -> None:
    qkv, fc1 = dense(2, 2), replace(dense(2, 2), targets=block_targets(2, "mlp.fc1"))
    difference = plan_difference(qkv, fc1)
    assert difference.targets == (*block_targets(2), *block_targets(2, "mlp.fc1"))
    assert difference.counts[Change.ONLY_A] == difference.counts[Change.ONLY_B] == 4
    reordered = replace(qkv, targets=qkv.targets[::-1])
    assert plan_difference(qkv, reordered).summary() == "All 4 experts are the same"
