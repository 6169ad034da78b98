"""How a plan looks in words and numbers: readout, warnings, pattern cards."""

from __future__ import annotations

from dataclasses import replace

from mlae_lab.core import catalog, paper
from mlae_lab.core.budget import budget
from mlae_lab.core.patterns import BUDGET, paper_patterns
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


def pattern_cards(rate: float, current: MaskPlan) -> list[Card]:
    """The sixteen masks of the paper, with its scores."""
    found = []
    for entry in paper_patterns(rate):
        score = paper.PATTERN_AVERAGE.get((entry.name, entry.kind))
        same = (entry.plan.keep, entry.plan.drop_rate) == (current.keep, current.drop_rate)
        name = "Dense" if entry.kind is Kind.DENSE else entry.name.capitalize()
        found.append(
            Card(
                id=f"{entry.name}.{entry.kind.value}",
                title=name,
                images=(mask_image(entry.plan),),
                chosen=same,
                line=entry.kind.value + (f" · {score.value}" if score else ""),
            )
        )
    return found


def plan_meaning(plan: MaskPlan, backbone_name: str) -> None:
    """Kind, budget and expectation of a plan, from the plan alone."""
    backbone = catalog.backbone(backbone_name)
    cost = budget(plan, backbone.shapes(plan.targets))
    page.section(_KIND_TEXT[plan.kind])
    page.facts(
        ("Experts", f"{cost.experts}"),
        ("At work in a step, on average", f"{cost.expected_active:.1f}"),
        ("A layer is empty in", f"{100 * cost.any_empty_chance:.1f} % of steps"),
        (f"Parameters on {backbone.title}", f"{cost.parameters:,}"),
        ("Share of the backbone", f"{100 * cost.parameters / backbone.parameters:.2f} %"),
    )


def plan_warnings(plan: MaskPlan) -> list[str]:
    """What a person should know before starting, none of it a reason not to."""
    found = []
    empty = [str(i + 1) for i, kept in enumerate(plan.kept) if kept == 0]
    if plan.experts == 0:
        return ["No expert is left: the run would train nothing but the head, as a linear probe does."]
    if empty:
        layers = f"Layer {empty[0]} keeps" if len(empty) == 1 else f"Layers {', '.join(empty)} keep"
        found.append(f"{layers} no expert and will equal the frozen network there.")
    if plan.experts != BUDGET:
        found.append(f"The paper's masks all have {BUDGET} experts, this one has {plan.experts}.")
    if any(p > 0.85 for row in plan.drop_rate for p in row):
        found.append("At p above 0.85 most steps train few experts or none: it learns slowly in a short run.")
    return found


def resized(plan: MaskPlan, columns: int) -> MaskPlan:
    """The plan on a canvas of another width: cells are cut off, or added as experts with their row's drop rate."""
    if columns == plan.columns:
        return plan
    keep, rates = [], []
    for kept, row in zip(plan.keep, plan.drop_rate):
        present = [p for k, p in zip(kept, row) if k]
        more = max(0, columns - plan.columns)
        keep.append(kept[:columns] + (True,) * more)
        rates.append(row[:columns] + ((present[-1] if present else 0.0),) * more)
    return replace(plan, keep=tuple(keep), drop_rate=tuple(rates))
