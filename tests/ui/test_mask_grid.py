"""What a browser may and may not do to a plan."""

from __future__ import annotations

import pytest

from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.ui.mask_grid import edited

PLAN = uniform(0.5)


def edit(rev: int = 3, **changes) -> dict:
    return {"rev": rev, "keep": [[1] * 8 for _ in range(12)], "rate": [[0.5] * 8 for _ in range(12)]} | changes


def test_an_edit_of_this_revision_becomes_a_plan() -> None:
    keep = [[1] * 8 for _ in range(12)]
    keep[4][2] = 0
    new = edited(PLAN, 3, edit(keep=keep))
    assert new is not None and new.experts == 95 and not new.keep[4][2]
    assert (new.targets, new.expert_rank) == (PLAN.targets, PLAN.expert_rank)


def test_a_stale_edit_is_dropped() -> None:
    keep = [[0] * 8 for _ in range(12)]
    assert edited(PLAN, 4, edit(rev=3, keep=keep)) is None


def test_an_edit_that_changes_nothing_is_no_edit() -> None:
    assert edited(PLAN, 3, edit()) is None


@pytest.mark.parametrize(
    "bad",
    [
        None, "text", 7, {}, {"rev": 3}, edit(keep="11111111"), edit(keep=[[2] * 8] * 12), edit(rate=[[1.0] * 8] * 12),
        edit(rate=[[float("nan")] * 8] * 12), edit(keep=[[1] * 9] * 12, rate=[[0.1] * 9] * 12), edit(keep=[[1] * 8] * 11),
        edit(keep=[], rate=[]), edit(keep=None), edit(rate=[["0.5"] * 8] * 12),
    ],
)  # fmt: skip
def test_what_a_browser_sends_is_not_trusted(bad: object) -> None:
    assert edited(PLAN, 3, bad) is None


def test_removed_experts_keep_no_rate() -> None:
    keep = [[0] * 8 for _ in range(12)]
    new = edited(pattern("uniform", drop_rate=0.3), 3, edit(keep=keep))
    assert new is not None and new.experts == 0 and all(p == 0 for row in new.drop_rate for p in row)
