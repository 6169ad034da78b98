"""The difference of two plans, cell by cell."""

from __future__ import annotations

from dataclasses import replace

from mlae_lab.core.difference import Change, plan_difference
from mlae_lab.core.patterns import allocation, dense, uniform
from mlae_lab.core.plan import block_targets


def test_every_cell_is_one_of_five() -> None:
    a = allocation((2, 1, 3), columns=3)
    b = replace(allocation((2, 2, 0), columns=4), drop_rate=((0.0, 0.5, 0, 0), (0.0, 0.25, 0, 0), (0.0, 0.0, 0.0, 0.0)))
    found = plan_difference(a, b)
    assert (found.targets, found.columns, len(found.cells)) == (block_targets(3), 4, 12)
    by_place = {(cell.row, cell.column): cell for cell in found.cells}
    assert by_place[0, 0].change is Change.SAME
    assert (by_place[0, 1].change, by_place[0, 1].a, by_place[0, 1].b) == (Change.RATE, 0.0, 0.5)
    assert (by_place[1, 1].change, by_place[1, 1].a, by_place[1, 1].b) == (Change.ONLY_B, None, 0.25)
    assert {by_place[2, c].change for c in range(3)} == {Change.ONLY_A}
    assert by_place[2, 3].change is Change.NEITHER
    assert found.counts == {
        Change.ONLY_A: 3, Change.ONLY_B: 1, Change.RATE: 1, Change.SAME: 2, Change.NEITHER: 5,
    }  # fmt: skip
    assert sum(found.counts.values()) == 12


def test_the_counts_in_words() -> None:
    assert plan_difference(dense(), dense()).words() == "All 96 experts are the same"
    assert plan_difference(dense(), uniform(0.5)).words() == "Experts: 96 with another drop rate, 0 the same"
    found = plan_difference(allocation((2, 1), columns=2), allocation((1, 2), columns=2))
    assert found.words("yours", "the other") == "Experts: 1 only in yours, 1 only in the other, 2 the same"


def test_the_other_way_round_is_the_mirror() -> None:
    one, other = allocation((3, 1)), uniform(0.5, layers=2, experts=2)
    there, back = plan_difference(one, other).counts, plan_difference(other, one).counts
    assert there[Change.ONLY_A] == back[Change.ONLY_B]
    assert there[Change.ONLY_B] == back[Change.ONLY_A]
    assert there[Change.RATE] == back[Change.RATE]


def test_layers_are_matched_by_name() -> None:
    qkv, fc1 = dense(2, 2), replace(dense(2, 2), targets=block_targets(2, "mlp.fc1"))
    found = plan_difference(qkv, fc1)
    assert found.targets == (*block_targets(2), *block_targets(2, "mlp.fc1"))
    assert found.counts[Change.ONLY_A] == found.counts[Change.ONLY_B] == 4
    turned = replace(qkv, targets=qkv.targets[::-1])
    assert plan_difference(qkv, turned).words() == "All 4 experts are the same"
