"""What a browser sends about the switches is checked before it counts."""

from __future__ import annotations

import pytest

from mlae_lab.core.patterns import allocation
from mlae_lab.ui.expert_switch import switched

PLAN = allocation((2, 0, 3))


def test_a_click_becomes_cells() -> None:
    assert switched(PLAN, 3, {"rev": 3, "off": [[2, 1], [0, 0]]}) == ((0, 0), (2, 1))
    assert switched(PLAN, 3, {"rev": 3, "off": []}) == ()


@pytest.mark.parametrize(
    "edit",
    [
        None,
        "x",
        {},
        {"rev": 2, "off": []},
        {"rev": 3},
        {"rev": 3, "off": "all"},
        {"rev": 3, "off": [[1, 0]]},
        {"rev": 3, "off": [[0, 9]]},
        {"rev": 3, "off": [["0", 0]]},
        {"rev": 3, "off": [[0, 0], [0, 0]]},
        {"rev": 3, "off": [0]},
        {"rev": 3, "off": [[0]]},
        {"rev": 3, "off": [[0.0, 0]]},
    ],
)
def test_what_is_old_or_malformed_does_not(edit: object) -> None:
    assert switched(PLAN, 3, edit) is None
