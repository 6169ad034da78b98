"""Masks: paint which experts exist and how often each is dropped, with a summary of the mask."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog, paper, patterns
from mlae_lab.core.edits import groups, onto, with_modules
from mlae_lab.core.plan import MAX_COLUMNS, Kind, MaskPlan, PlanError
from mlae_lab.ui import draft, page, terms
from mlae_lab.ui.library_view import library
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.mask_grid import mask_grid
from mlae_lab.ui.mask_samples import mask_samples
from mlae_lab.ui.navigation import go
from mlae_lab.ui.pattern_strip import pattern_strip
from mlae_lab.ui.plan_view import (
    pattern_cards,
    pattern_plans,
    plan_meaning,
    plan_warnings,
    resized,
    show_warnings,
)
from mlae_lab.ui.task_view import use_tuned

_WAS_RANDOM = "masks_was_random"  # the revision of the plan that had drop rates last


def take(plan: MaskPlan) -> None:
    """Replace the plan on the canvas and rerun the page."""
    draft.change(plan=plan)
    draft.write_address("mask")
    st.rerun()


def choose_pattern() -> None:
    """Draw the masks of the paper and five additional ones, under the canvas."""
    left, right = st.columns([7, 2], vertical_alignment="bottom")
    with left:
        page.section("Start from a mask of the paper")
        page.note(
            "The number is the paper's mean over the VTAB-1k groups with ViT-B/16, Table 4, dense Table 9. "
            "Only uniform was tuned by task."
        )
    p = right.number_input(
        "p of uniform and mixed masks", 0.05, 0.95, patterns.MIXED_DROP_RATE, 0.05, key="masks_rate",
        help=terms.help_text("drop-rate"),
    )  # fmt: skip
    rate = round(p, 2)
    picked = pattern_strip(pattern_cards(rate, draft.current().plan), key="masks_patterns")
    if picked:
        take(onto(pattern_plans(rate)[picked], draft.current().plan))
    task = catalog.task(draft.current().task)
    if task.name in paper.TUNED:
        with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
            page.note(f"The paper's best for {task.title} (Table 10):")
            use_tuned(task)


def expert_settings(plan: MaskPlan) -> None:
    """Draw the layers with experts, their number and the settings of an expert."""
    backbone = catalog.backbone(draft.current().backbone)
    shown = [module for module in groups(plan.targets) if module in backbone.modules]
    modules = st.pills(
        "Layers with experts",
        backbone.modules,
        selection_mode="multi",
        default=shown,
        key=f"masks_modules_{backbone.name}_{','.join(shown)}",
        help=terms.help_text(
            "target",
            first="The paper adapts qkv. Another kind of layer adds a row per block, with the experts of the first "
            "kind.",
        ),
    )
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        columns = st.number_input(
            "Experts per layer", 1, MAX_COLUMNS, plan.columns, 1, key=f"masks_width_{plan.columns}", width=140,
            help=terms.help_text("expert"),
        )  # fmt: skip
        k = st.number_input(
            "Rank of an expert",
            1,
            16,
            plan.expert_rank,
            1,
            key=f"masks_rank_{plan.expert_rank}",
            width=150,
            help=terms.help_text("rank", first="The paper's experts have rank 1."),
        )
        init = st.number_input(
            "Initial λ",
            value=plan.coefficient_init,
            step=0.25,
            format="%g",
            key=f"masks_init_{plan.coefficient_init}",
            width=140,
            help=terms.help_text("coefficient", first="The paper starts at 1 or tunes it from 0.125 to 4 (Table 10)."),
        )
        learn = st.checkbox("λ is trained", plan.train_coefficients, key=f"masks_train_{plan.train_coefficients}")
    try:
        new = plan if set(modules) == set(shown) else with_modules(plan, backbone, modules)
        new = replace(resized(new, int(columns)), expert_rank=int(k), coefficient_init=init, train_coefficients=learn)
        if new != plan:
            take(new)
    except PlanError as error:
        st.error(plain(sentence(error)))


problem = draft.read_address()
if page.heading(
    "Paint a mask",
    "Each row is a layer, each cell an expert. Drag over cells, or start from a mask below.",
    action="Next: set up the run",
):
    go("train", mask=draft.current().plan.code)
if problem:
    st.warning(problem)
backbone = catalog.backbone(draft.current().backbone)
with st.container(key="studio"):  # page.css: the summary is next to the canvas, in a narrow window under the masks
    canvas, masks, meaning = st.container(), st.container(), st.container()
with canvas:
    mask_grid(
        draft.current().plan,
        draft.revision(),
        draft.painted,
        key="masks_grid",
        family=backbone.name,
        layers=[name for module in backbone.modules for name in backbone.targets(module)],
    )
    if (per := draft.current().learned_drop_rates) != "off":
        page.note(f"Drop rates are learned in this run, one for each {per}: p is the initial value, from 0.01 to 0.9.")
with masks:
    choose_pattern()
plan = draft.current().plan
with meaning:
    cost = plan_meaning(plan, draft.current().network)
    if plan.kind in (Kind.STOCHASTIC, Kind.MIXED):
        st.session_state[_WAS_RANDOM] = draft.revision()
    show_warnings(plan_warnings(plan, st.session_state.get(_WAS_RANDOM) == draft.revision()))
    page.section("A hundred sampled masks")
    mask_samples(plan, cost, key="masks_samples")
    page.note("Sampled in the browser with the same probabilities; a run samples its masks from its seed.")
expert_settings(plan)
page.note("This mask as one line:")
st.code(plan.code, language=None, wrap_lines=True)
library()
draft.write_address("mask")
