"""What a browser may and may not do to a plan."""

from __future__ import annotations

import pytest

from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.core.plan import block_targets
from mlae_lab.ui.mask_grid import edited

PLAN = uniform(0.5)


def edit(rev: int = 3, **changes) -> dict:
    return {"rev": rev, "keep": [[1] * 8 for _ in range(12)], "rate": [[0.5] * 8 for _ in range(12)]} | changes


def test_an_edit_of_this_revision_becomes_a_plan() -> None:
    keep = [[1] * 8 for _ in range(12)]
    keep[4][2] = 0
    new = edited(PLAN, 3, edit(keep=keep))
    assert new is not None
    assert new.experts == 95
    assert not new.keep[4][2]
    assert (new.targets, new.expert_rank) == (PLAN.targets, PLAN.expert_rank)


def test_a_stale_edit_is_dropped() -> None:
    keep = [[0] * 8 for _ in range(12)]
    assert edited(PLAN, 4, edit(rev=3, keep=keep)) is None


def test_an_edit_that_changes_nothing_is_no_edit() -> None:
    assert edited(PLAN, 3, edit()) is None
    assert edited(PLAN, 3, edit(targets=list(PLAN.targets))) is None


def test_undo_may_restore_another_width_and_other_rows() -> None:
    wide = edited(PLAN, 3, edit(keep=[[1] * 14] * 12, rate=[[0.1] * 14] * 12))
    assert wide == uniform(0.1, experts=14)
    layers_of_two_kinds = block_targets(12) + block_targets(12, "mlp.fc1")
    larger = edit(keep=[[1] * 8] * 24, rate=[[0.5] * 8] * 24, targets=list(layers_of_two_kinds))
    assert edited(PLAN, 3, larger) is None  # this canvas has no such rows
    new = edited(PLAN, 3, larger, layers=layers_of_two_kinds)
    assert new is not None
    assert new.targets == layers_of_two_kinds


@pytest.mark.parametrize(
    "bad",
    [
        None, "text", 7, {}, {"rev": 3}, edit(keep="11111111"), edit(keep=[[2] * 8] * 12), edit(rate=[[1.0] * 8] * 12),
        edit(rate=[[float("nan")] * 8] * 12), edit(keep=[[1] * 9] * 12), edit(keep=[[1] * 8] * 11),
        edit(keep=[[1] * 17] * 12, rate=[[0.1] * 17] * 12), edit(keep=[], rate=[]), edit(keep=None),
        edit(rate=[["0.5"] * 8] * 12), edit(targets=None), edit(targets="blocks"), edit(targets=[["a"]] * 12),
        edit(targets=["head"] * 12), edit(targets=[f"layers.{i}" for i in range(12)]),
        edit(targets=list(PLAN.targets[:11])), edit(targets=[{}] * 12),
    ],
)  # fmt: skip
def test_what_a_browser_sends_is_not_trusted(bad: object) -> None:
    assert edited(PLAN, 3, bad) is None


def test_removed_experts_keep_no_rate() -> None:
    keep = [[0] * 8 for _ in range(12)]
    new = edited(pattern("uniform", drop_rate=0.3), 3, edit(keep=keep))
    assert new is not None
    assert new.experts == 0
    assert all(p == 0 for row in new.drop_rate for p in row)
