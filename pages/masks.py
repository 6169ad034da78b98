"""Masks: paint which experts exist and how often each is dropped."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog, patterns
from mlae_lab.core.plan import MAX_COLUMNS, PlanError
from mlae_lab.ui import draft, figures, page
from mlae_lab.ui.cards import cards
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.mask_grid import mask_grid
from mlae_lab.ui.navigation import link
from mlae_lab.ui.plan_view import pattern_cards, plan_meaning, plan_warnings, resized

complaint = draft.read_address()
page.heading(
    "Paint a mask",
    "Each row is one layer, each cell one expert. Start from a mask of the paper or from what is on the canvas; "
    "click or drag to remove and restore experts, pull a slider to drop them at random in training.",
)
if complaint:
    st.warning(complaint)

left, right = st.columns([7, 2], vertical_alignment="bottom")
with left:
    page.section("The masks of the paper")
rate = right.number_input("p of uniform and mixed masks", 0.05, 0.95, patterns.MIXED_DROP_RATE, 0.05, key="masks_rate")
known = {f"{p.name}.{p.kind.value}": p.plan for p in patterns.paper_patterns(round(rate, 2))}
picked = cards(
    pattern_cards(round(rate, 2), draft.current().plan), key="masks_patterns", label="Masks of the paper", size="small"
)
if picked:
    old, targets = draft.current().plan, catalog.backbone(draft.current().backbone).default_targets
    draft.change(
        plan=replace(
            patterns.fitted(known[picked], targets),
            expert_rank=old.expert_rank,
            coefficient_init=old.coefficient_init,
            train_coefficients=old.train_coefficients,
        )
    )
    draft.write_address("mask")
    st.rerun()
page.note(
    "The number under a mask is the paper's mean over the three VTAB-1k groups with ViT-B/16 (Table 4; dense: Table 9). "
    "Only uniform was tuned for each task."
)

with st.container(key="pair_masks"):
    canvas, meaning = st.columns([9, 5], gap="large")
with canvas:
    page.section("Your mask")
    mask_grid(draft.current().plan, draft.revision(), draft.painted, key="masks_grid")
    plan = draft.current().plan
    width, rank, start, train = st.columns(4, vertical_alignment="bottom")
    columns = width.number_input(
        "Experts per layer", 1, MAX_COLUMNS, plan.columns, 1, key=f"masks_width_{plan.columns}"
    )
    k = rank.number_input(
        "Rank of an expert",
        1,
        16,
        plan.expert_rank,
        1,
        key=f"masks_rank_{plan.expert_rank}",
        help="The paper's experts have rank 1.",
    )
    init = start.number_input(
        "Start of λ",
        value=plan.coefficient_init,
        step=0.25,
        format="%g",
        key=f"masks_init_{plan.coefficient_init}",
        help="The paper starts at 1 or tunes it from 0.125 to 4 (Table 10).",
    )
    learn = train.checkbox("λ is trained", plan.train_coefficients, key=f"masks_train_{plan.train_coefficients}")
    try:
        new = replace(resized(plan, int(columns)), expert_rank=int(k), coefficient_init=init, train_coefficients=learn)
        if new != plan:
            draft.change(plan=new)
            draft.write_address("mask")
            st.rerun()
    except PlanError as error:
        st.error(f"{error}.")
with meaning:
    plan_meaning(plan, draft.current().backbone)
    for text in plan_warnings(plan):
        st.info(text)
    live_plot(figures.active_figure(plan), key="masks_active")
    page.note("This mask as one line, to keep or to send:")
    st.code(plan.code, language=None, wrap_lines=True)
    link("train", "Go on to the run", mask=plan.code)
draft.write_address("mask")
