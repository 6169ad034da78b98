"""Warnings and resizing of a plan."""

from __future__ import annotations

from mlae_lab.core.patterns import allocation, dense, paper_patterns, uniform
from mlae_lab.ui.plan_view import pattern_cards, plan_warnings, resized


def test_the_papers_masks_draw_no_warning() -> None:
    for found in paper_patterns():
        assert plan_warnings(found.plan) == [], found.title


def test_empty_layers_are_named() -> None:
    texts = plan_warnings(allocation([8, 0, 8, 0] + [10] * 8))
    assert any("Layers 2, 4 keep no expert" in text for text in texts)


def test_nothing_left_is_called_a_linear_probe() -> None:
    assert "linear probe" in plan_warnings(allocation([0] * 12, columns=8))[0]


def test_another_budget_is_named() -> None:
    assert any("this one has 48" in text for text in plan_warnings(dense(experts=4)))


def test_widening_adds_experts_with_the_rows_rate_and_narrowing_cuts() -> None:
    plan = uniform(0.3)
    wider = resized(plan, 10)
    assert wider.kept == (10,) * 12 and wider.row_rates() == (0.3,) * 12
    assert resized(wider, 8) == plan


def test_sixteen_cards_and_the_current_one_is_marked() -> None:
    shown = pattern_cards(0.5, dense())
    assert len(shown) == 16 and [card.id for card in shown if card.chosen] == ["dense.dense"]
    assert len({card.id for card in shown}) == 16
