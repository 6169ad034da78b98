"""How a plan looks in words and numbers: readout, warnings, pattern cards."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core import catalog, paper
from mlae_lab.core.backbones import Backbone
from mlae_lab.core.budget import Budget, budget, step_cost
from mlae_lab.core.nearest_pattern import matches, nearest
from mlae_lab.core.patterns import BUDGET, dense, fitted, lessons, paper_patterns
from mlae_lab.core.plan import Kind, MaskPlan
from mlae_lab.ui import page
from mlae_lab.ui.cards import Card
from mlae_lab.ui.thumbnails import mask_image

_KIND_TEXT = {
    Kind.DENSE: "Dense: every expert exists and learns in every step",
    Kind.FIXED: "Fixed: some experts do not exist, the others learn in every step",
    Kind.STOCHASTIC: "Stochastic: all experts exist, each step drops some at random",
    Kind.MIXED: "Mixed: some experts do not exist, each step drops some of the rest",
}
_GROUPS = {
    Kind.DENSE: "Dense",
    Kind.FIXED: "Fixed: some experts do not exist",
    Kind.STOCHASTIC: "Stochastic: each step drops some",
    Kind.MIXED: "Mixed: both",
}
LESSONS = "Five of our own that teach something"


@lru_cache(maxsize=8)
def pattern_plans(rate: float) -> dict[str, MaskPlan]:
    """Every mask that a card stands for, by the card's id. rate: p of uniform and mixed masks."""
    papers = {f"{entry.name}.{entry.kind.value}": entry.plan for entry in paper_patterns(rate)}
    return papers | {f"lesson.{lesson.name}": lesson.plan for lesson in lessons()}


@lru_cache(maxsize=8)
def _cards(rate: float) -> tuple[Card, ...]:
    found = []
    for entry in paper_patterns(rate):
        score = paper.PATTERN_AVERAGE.get((entry.name, entry.kind))
        found.append(
            Card(
                id=f"{entry.name}.{entry.kind.value}",
                title="Dense" if entry.kind is Kind.DENSE else entry.name.capitalize(),
                images=(mask_image(entry.plan),),
                line=str(score.value) if score else "",
                group=_GROUPS[entry.kind],
            )
        )
    found.sort(key=lambda card: list(_GROUPS.values()).index(card.group))
    for lesson in lessons():
        title = lesson.name[:1].upper() + lesson.name[1:] if not lesson.name.startswith("p =") else lesson.name
        found.append(Card(f"lesson.{lesson.name}", title, lesson.teaches, (mask_image(lesson.plan),), group=LESSONS))
    return tuple(found)


def pattern_cards(rate: float, current: MaskPlan) -> list[Card]:
    """The sixteen masks of the paper with its scores, and five of our own with what they teach.

    rate: p of uniform and mixed masks. current: the plan whose pattern is marked, whatever layers it has.
    """
    plans = pattern_plans(rate)
    return [replace(card, chosen=matches(plans[card.id], current)) for card in _cards(rate)]


# ---------------------------------------------------------------- what it means


@lru_cache(maxsize=32)
def _dense_step(backbone: Backbone, rank: int) -> int:
    plan = replace(fitted(dense(), backbone.default_targets), expert_rank=rank)
    cost = step_cost(plan, backbone)
    return cost.total if cost else 0


def plan_meaning(plan: MaskPlan, backbone_name: str) -> Budget:
    """Kind, budget, expectation, arithmetic and the nearest mask of the paper, from the plan alone."""
    backbone = catalog.backbone(backbone_name)
    cost, step = budget(plan, backbone.shapes(plan.targets)), step_cost(plan, backbone)
    st.html(f'<div style="min-height:3.4rem"><h2 class="lab-section">{_KIND_TEXT[plan.kind]}</h2></div>')
    used = sum(kept > 0 for kept in plan.kept)
    _facts(
        ("Experts", f"{cost.experts} of {plan.rows * plan.columns}"),
        ("At work in a step (mean)", f"{cost.expected_active:.1f}"),
        ("Parameters", f"{cost.parameters:,}"),
        ("Share of the backbone", f"{100 * cost.parameters / backbone.parameters:.2f} %"),
        ("Layers with experts", f"{used} of {plan.rows}"),
        ("Some layer draws none in", f"{100 * cost.any_empty_probability:.1f} % of steps"),
        ("A step, beside dense", f"{100 * step.total / _dense_step(backbone, plan.expert_rank):.0f} %" if step else "–"),
        ("A step, beside a probe", f"× {step.total / step.forward:.2f}" if step else "–"),
    )  # fmt: skip
    page.note(escape(_nearest_sentence(plan)))
    page.note(_step_sentence(plan, backbone))
    return cost


def _facts(*pairs: tuple[str, str]) -> None:
    """Like `page.facts`, in columns of one width, so that a longer number moves no other."""
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    grid = "display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: .8rem 1rem"
    st.html(f'<dl class="lab-facts" style="{grid}">{cells}</dl>')


def _nearest_sentence(plan: MaskPlan) -> str:
    found = nearest(plan)
    if found.same:
        return f"This is {found.title}."
    parts = []
    if found.cells:
        parts.append("1 cell differs" if found.cells == 1 else f"{found.cells} cells differ")
    if found.rate >= 5e-5:
        parts.append(f"the rates differ by {found.rate:.2f} in sum")
    return f"Nearest mask of the paper: {found.title}; {' and '.join(parts)}."


def _step_sentence(plan: MaskPlan, backbone: Backbone) -> str:
    step = step_cost(plan, backbone)
    if step is None:
        return f"The arithmetic of a step is counted for plain vision transformers, which {backbone.title} is not."
    if plan.experts == 0:
        return "A step counts as multiply-adds. Without experts it is one pass forward, as a linear probe's."
    before = round(backbone.layers * step.cached / step.forward)
    blocks = "Block 1 lies" if before == 1 else f"Blocks 1 to {before} lie"
    once = f"{blocks} before the first expert: computed once, if nothing is augmented." if before else (
        "The first block has experts, so every step computes all of them."
    )  # fmt: skip
    return f"A step is counted in multiply-adds, forward and back. {once} Dropping makes no step cheaper: it multiplies by 0."


def plan_warnings(plan: MaskPlan, meant_random: bool = False) -> list[str]:
    """What a person should know before starting, none of it a reason not to.

    meant_random: whether the plan had drop rates until a moment ago.
    """
    found = []
    empty = [label for label, kept in zip(plan.row_labels, plan.kept, strict=False) if kept == 0]
    if plan.experts == 0:
        return ["No expert is left: the run would train nothing but the head, as a linear probe does."]
    if empty:
        named = ", ".join(empty[:6]) + (f" and {len(empty) - 6} more" if len(empty) > 6 else "")
        layers = f"Layer {empty[0]} keeps" if len(empty) == 1 else f"Layers {named} keep"
        found.append(f"{layers} no expert and will equal the frozen network there.")
    if plan.experts != BUDGET:
        found.append(f"The paper's masks all have {BUDGET} experts, this one has {plan.experts}.")
    if meant_random and plan.kind in (Kind.DENSE, Kind.FIXED):
        found.append("p is 0 everywhere now: no step drops an expert, so this is no stochastic mask any more.")
    if any(p > 0.85 for row in plan.drop_rate for p in row):
        found.append("At p above 0.85 most steps train few experts or none: it learns slowly in a short run.")
    return found


def show_warnings(texts: list[str]) -> None:
    """The sentences in a place that two of them fit in, so that what stands below seldom moves."""
    items = "".join(f'<p class="lab-note"><b class="lab-status warning">Note</b> &nbsp;{escape(text)}</p>' for text in texts)  # fmt: skip
    st.html(f'<div style="min-height:5.6rem" role="status">{items}</div>')


def resized(plan: MaskPlan, columns: int) -> MaskPlan:
    """The plan on a canvas of another width: cells are cut off, or added as experts with their row's drop rate."""
    if columns == plan.columns:
        return plan
    keep, rates = [], []
    for kept, row in zip(plan.keep, plan.drop_rate, strict=False):
        present = [p for k, p in zip(kept, row, strict=False) if k]
        more = max(0, columns - plan.columns)
        keep.append(kept[:columns] + (True,) * more)
        rates.append(row[:columns] + ((present[-1] if present else 0.0),) * more)
    return replace(plan, keep=tuple(keep), drop_rate=tuple(rates))
