"""The order of the queue."""

from __future__ import annotations

import pytest

from mlae_lab.runs.fair_queue import fair_order


@pytest.mark.parametrize(
    ("waiting", "served", "order"),
    [
        ("", {}, ""),
        ("a1 a2 a3", {}, "a1 a2 a3"),
        ("a1 a2 a3", {"a": 9}, "a1 a2 a3"),
        ("a1 a2 a3 b1 b2", {}, "a1 b1 a2 b2 a3"),
        ("a1 a2 b1", {"a": 1}, "b1 a1 a2"),
        ("a1 b1 c1", {"a": 3, "b": 1, "c": 2}, "b1 c1 a1"),
        ("a1 a2 b1 b2", {"a": 1, "b": 2, "z": 7}, "a1 b1 a2 b2"),  # another owner's run started much later
    ],
)
def test_owners_alternate(waiting: str, served: dict[str, int], order: str) -> None:
    assert " ".join(fair_order([(name[0], name) for name in waiting.split()], served)) == order


def test_an_owner_waits_for_at_most_one_run_of_each_other_owner() -> None:
    waiting = [(owner, f"{owner}{i}") for owner in "abcd" for i in range(25)]
    order = fair_order(waiting, {"a": 3, "c": 9})
    assert sorted(order) == sorted(name for _, name in waiting)
    for at in range(0, 100, 4):
        assert {name[0] for name in order[at : at + 4]} == set("abcd")
