"""Warnings, summary and resizing of a plan, and the cards of the patterns."""

from __future__ import annotations

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.edits import with_modules
from mlae_lab.core.patterns import allocation, dense, lessons, paper_patterns, pattern, uniform
from mlae_lab.ui.plan_view import (
    LESSONS,
    _nearest_sentence,
    _step_sentence,
    kind_text,
    pattern_cards,
    pattern_plans,
    plan_warnings,
    resized,
)

LAB = catalog.backbone("lab_vit_12x128")


def test_the_papers_masks_draw_no_warning() -> None:
    for entry in paper_patterns():
        assert plan_warnings(entry.plan) == [], entry.title


def test_empty_layers_are_named() -> None:
    texts = plan_warnings(allocation([8, 0, 8, 0] + [10] * 8))
    assert any("Layers 2, 4 keep no expert" in text for text in texts)
    assert "and 6 more keep no expert" in plan_warnings(allocation([0] * 12 + [8] * 12))[0]
    two_kinds = with_modules(allocation([8] * 11 + [0]), LAB, LAB.modules[:2])
    assert plan_warnings(two_kinds)[0].startswith("Layers 12 qkv, 12 proj keep no expert")


def test_nothing_left_is_called_a_linear_probe() -> None:
    cleared = allocation([0] * 12, columns=8)
    assert "linear probe" in plan_warnings(cleared)[0]
    assert kind_text(cleared) == "Empty: no expert exists, a run trains only the head"
    assert RunConfig("digits", cleared).what == "empty mask"
    assert RunConfig("digits", uniform(0.5), learned_drop_rates="layer").what == "stochastic mask, learned p"
    assert RunConfig("digits", allocation([0] + [1] * 11)).what == "fixed mask"


def test_another_budget_is_named() -> None:
    assert any("this one has 48" in text for text in plan_warnings(dense(experts=4)))


def test_rates_that_are_all_gone_are_named_where_there_were_some() -> None:
    assert plan_warnings(dense(), was_random=True) == [
        "p is 0 everywhere now: no step drops an expert, so this mask is no longer stochastic."
    ]
    assert plan_warnings(uniform(0.3), was_random=True) == plan_warnings(dense()) == []


def test_widening_adds_experts_with_the_rows_rate_and_narrowing_cuts() -> None:
    plan = uniform(0.3)
    wider = resized(plan, 10)
    assert wider.kept == (10,) * 12
    assert wider.row_rates() == (0.3,) * 12
    assert resized(wider, 8) == plan


def test_sixteen_cards_and_five_and_the_current_one_is_marked() -> None:
    shown = pattern_cards(0.5, dense())
    assert len(shown) == 21
    assert [card.id for card in shown if card.chosen] == ["dense.dense"]
    assert {card.id for card in shown} == set(pattern_plans(0.5))
    assert len(pattern_plans(0.5)) == 21
    assert [card.line for card in shown if card.group == LESSONS] == [lesson.teaches for lesson in lessons()]
    assert all(card.line for card in shown), "each of the paper's has its score"


@pytest.mark.parametrize("name", list(pattern_plans(0.5)))
def test_a_pattern_is_marked_on_other_layers_too(name: str) -> None:
    plan = with_modules(pattern_plans(0.5)[name], LAB, LAB.modules)
    assert [card.id for card in pattern_cards(0.5, plan) if card.chosen] == [name]


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (pattern("hourglass"), "This is hourglass, fixed."),
        (uniform(0.7), "This is uniform, stochastic (p = 0.7)."),
        (allocation([7] + [8] * 11), "Nearest mask of the paper: dense; 1 cell differs."),
        (
            pattern("incremental", "stochastic").with_rates(
                [0.8] * 2 + [0.7] * 2 + [0.6] * 2 + [0.5, 0.4, 0.3, 0.2, 0.2, 0.0]
            ),
            "Nearest mask of the paper: incremental, stochastic; the rates differ by 0.80 in sum.",
        ),
    ],
)
def test_the_nearest_mask_is_named(plan, sentence: str) -> None:
    assert _nearest_sentence(plan) == sentence


def test_what_is_computed_once_is_named() -> None:
    assert "every step computes all of them" in _step_sentence(dense(), LAB)
    assert "Block 1 lies before the first expert" in _step_sentence(allocation([0] + [8] * 11), LAB)
    assert "Blocks 1 to 6 lie before the first expert" in _step_sentence(lessons()[0].plan, LAB)
    assert "as for a linear probe" in _step_sentence(allocation([0] * 12, columns=8), LAB)
    swin = catalog.backbone("swin_base_patch4_window7_224.ms_in22k")
    assert "Swin-B" in _step_sentence(allocation([8] * 24), swin)
