"""A plan as text and numbers: summary, warnings, pattern cards."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import paper
from mlae_lab.core.backbones import Backbone
from mlae_lab.core.budget import Budget, budget, step_cost
from mlae_lab.core.nearest_pattern import matches, nearest
from mlae_lab.core.patterns import BUDGET, dense, fitted, lessons, paper_patterns
from mlae_lab.core.plan import Kind, MaskPlan
from mlae_lab.ui import page, terms
from mlae_lab.ui.cards import Card
from mlae_lab.ui.thumbnails import mask_image

_KIND_TEXT = {
    Kind.DENSE: "Dense: every expert exists and is active in every step",
    Kind.FIXED: "Fixed: some experts do not exist, the others are active in every step",
    Kind.STOCHASTIC: "Stochastic: all experts exist, each step drops some at random",
    Kind.MIXED: "Mixed: some experts do not exist, each step drops some of the rest",
}
_EMPTY_TEXT = "Empty: no expert exists, a run trains only the head"
_GROUPS = {
    Kind.DENSE: "Dense",
    Kind.FIXED: "Fixed: some experts do not exist",
    Kind.STOCHASTIC: "Stochastic: each step drops some",
    Kind.MIXED: "Mixed: both",
}
LESSONS = "Five additional masks, each with a lesson"


@lru_cache(maxsize=8)
def pattern_plans(rate: float) -> dict[str, MaskPlan]:
    """The masks of all pattern cards, by card id. rate: p of uniform and mixed masks."""
    papers = {f"{entry.name}.{entry.kind.value}": entry.plan for entry in paper_patterns(rate)}
    return papers | {f"lesson.{lesson.name}": lesson.plan for lesson in lessons()}


@lru_cache(maxsize=8)
def _cards(rate: float) -> tuple[Card, ...]:
    cards = []
    for entry in paper_patterns(rate):
        score = paper.PATTERN_AVERAGE.get((entry.name, entry.kind))
        cards.append(
            Card(
                id=f"{entry.name}.{entry.kind.value}",
                title="Dense" if entry.kind is Kind.DENSE else entry.name.capitalize(),
                images=(mask_image(entry.plan),),
                line=str(score.value) if score else "",
                group=_GROUPS[entry.kind],
            )
        )
    cards.sort(key=lambda card: list(_GROUPS.values()).index(card.group))
    for lesson in lessons():
        title = lesson.name[:1].upper() + lesson.name[1:] if not lesson.name.startswith("p =") else lesson.name
        cards.append(Card(f"lesson.{lesson.name}", title, lesson.teaches, (mask_image(lesson.plan),), group=LESSONS))
    return tuple(cards)


def pattern_cards(rate: float, current: MaskPlan) -> list[Card]:
    """Cards of the sixteen masks of the paper with their scores, and of five additional ones, each with a lesson.

    Args:
        rate: p of uniform and mixed masks.
        current: The plan whose pattern is marked, whatever layers it has.
    """
    plans = pattern_plans(rate)
    return [replace(card, chosen=matches(plans[card.id], current)) for card in _cards(rate)]


# ---------------------------------------------------------------- summary


@lru_cache(maxsize=32)
def _dense_step(backbone: Backbone, rank: int) -> int:
    plan = replace(fitted(dense(), backbone.default_targets), expert_rank=rank)
    cost = step_cost(plan, backbone)
    return cost.total if cost else 0


def kind_text(plan: MaskPlan) -> str:
    """The kind of a plan with its meaning, in one line."""
    return _KIND_TEXT[plan.kind] if plan.experts else _EMPTY_TEXT


def _marked_kind(plan: MaskPlan) -> str:
    """The kind with its meaning as HTML; its first word opens the definition."""
    word, _, rest = kind_text(plan).partition(":")
    if not plan.experts or plan.kind is Kind.DENSE:
        return kind_text(plan)
    return f"{terms.button(f'{plan.kind.value}-mask', word)}:{rest}"


def plan_meaning(plan: MaskPlan, backbone: Backbone) -> Budget:
    """Draw kind, budget, expected values, cost and the nearest mask of the paper; returns the budget."""
    cost, step = budget(plan, backbone.shapes(plan.targets)), step_cost(plan, backbone)
    st.html(f'<div style="min-height:3.4rem"><h2 class="lab-section">{_marked_kind(plan)}</h2></div>')
    used = sum(kept > 0 for kept in plan.kept)
    _facts(
        ("Experts", f"{cost.experts} of {plan.rows * plan.columns}"),
        ("Active experts per step (mean)", f"{cost.expected_active:.1f}"),
        ("Parameters", f"{cost.parameters:,}"),
        ("Share of the backbone", f"{100 * cost.parameters / backbone.parameters:.2f} %"),
        ("Layers with experts", f"{used} of {plan.rows}"),
        ("Steps with an empty layer", f"{100 * cost.any_empty_probability:.1f} %"),
        (
            "Cost per step, relative to dense",
            f"{100 * step.total / _dense_step(backbone, plan.expert_rank):.0f} %" if step else "–",
        ),
        ("Cost per step, relative to a linear probe", f"× {step.total / step.forward:.2f}" if step else "–"),
    )
    page.note(escape(_nearest_sentence(plan)))
    page.note(_step_sentence(plan, backbone))
    return cost


def _facts(*pairs: tuple[str, str]) -> None:
    """Like `page.facts`, in columns of equal width, so that a longer number moves no other."""
    grid = "display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: .8rem 1rem"
    st.html(f'<dl class="lab-facts" style="{grid}">{page.fact_cells(*pairs)}</dl>')


def _nearest_sentence(plan: MaskPlan) -> str:
    match = nearest(plan)
    if match.same:
        return f"This is {match.title}."
    parts = []
    if match.cells:
        parts.append("1 cell differs" if match.cells == 1 else f"{match.cells} cells differ")
    if match.rate >= 5e-5:
        parts.append(f"the rates differ by {match.rate:.2f} in sum")
    return f"Nearest mask of the paper: {match.title}; {' and '.join(parts)}."


def _step_sentence(plan: MaskPlan, backbone: Backbone) -> str:
    step = step_cost(plan, backbone)
    if step is None:
        return f"The cost of a step is counted only for plain vision transformers, which {backbone.title} is not."
    if plan.experts == 0:
        return (
            "The cost of a step is counted in multiply-adds. Without experts it is one forward pass, as for a linear "
            "probe."
        )
    before = round(backbone.layers * step.cached / step.forward)
    blocks = "Block 1 lies" if before == 1 else f"Blocks 1 to {before} lie"
    once = (
        f"{blocks} before the first expert: computed once, without augmentation."
        if before
        else ("The first block has experts, so every step computes all of them.")
    )
    return (
        f"The cost of a step is counted in multiply-adds, forward and backward. {once} "
        "Dropping an expert saves nothing: its output is multiplied by 0."
    )


def plan_warnings(plan: MaskPlan, was_random: bool = False) -> list[str]:
    """Hints about a plan that do not prevent a start.

    Args:
        plan: The plan.
        was_random: Whether the plan had drop rates before the last edit.
    """
    warnings = []
    empty = [label for label, kept in zip(plan.row_labels, plan.kept, strict=True) if kept == 0]
    if plan.experts == 0:
        return ["The mask has no expert: the run would train only the head, as a linear probe does."]
    if empty:
        named = ", ".join(empty[:6]) + (f" and {len(empty) - 6} more" if len(empty) > 6 else "")
        layers = f"Layer {empty[0]} keeps" if len(empty) == 1 else f"Layers {named} keep"
        warnings.append(f"{layers} no expert and will equal the frozen network there.")
    if plan.experts != BUDGET:
        warnings.append(f"The paper's masks all have {BUDGET} experts, this one has {plan.experts}.")
    if was_random and plan.kind in (Kind.DENSE, Kind.FIXED):
        warnings.append("p is 0 everywhere now: no step drops an expert, so this mask is no longer stochastic.")
    if any(p > 0.85 for row in plan.drop_rate for p in row):
        warnings.append("At p above 0.85 most steps train few experts or none: a short run learns slowly.")
    return warnings


def show_warnings(texts: list[str]) -> None:
    """Draw the sentences with room for two of them, so that the elements below seldom move."""
    mark = '<b class="lab-status warning">Note</b> &nbsp;'
    items = "".join(f'<p class="lab-note">{mark}{escape(text)}</p>' for text in texts)
    st.html(f'<div style="min-height:5.6rem" role="status">{items}</div>')


def resized(plan: MaskPlan, columns: int) -> MaskPlan:
    """The plan with another number of columns: cut off, or added as experts with the drop rate of their row."""
    if columns == plan.columns:
        return plan
    keep, rates = [], []
    for kept, row in zip(plan.keep, plan.drop_rate, strict=True):
        present = [p for k, p in zip(kept, row, strict=True) if k]
        more = max(0, columns - plan.columns)
        keep.append(kept[:columns] + (True,) * more)
        rates.append(row[:columns] + ((present[-1] if present else 0.0),) * more)
    return replace(plan, keep=tuple(keep), drop_rate=tuple(rates))
