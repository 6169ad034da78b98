"""Start a pair: the same run with another mask, for one seed or several, as a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import fitted, paper_patterns
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.study import Cell, Study
from mlae_lab.core.study_presets import ENOUGH_SEEDS
from mlae_lab.runs import presets, studies
from mlae_lab.runs.comparability import beyond_the_cells
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.ui import draft, page, queries, terms, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.navigation import go
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.thumbnails import mask_image

MAX_SEEDS = 5  # started by one click
SHARED = (
    "Each seed gives two runs that share everything but the mask: the settings, the initial head, the initial a of "
    "every expert that both masks have, the order of the images and the random numbers of the masks."
)


def pair_panel(run: Run) -> None:
    """Draw the choice of another mask for a run and the button that starts the pair and opens its study."""
    plans = other_masks(run.config, draft.current().plan)
    chosen = _choice(run, plans)
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    seeds = left.number_input(
        "Seeds",
        1,
        MAX_SEEDS,
        ENOUGH_SEEDS,
        key=f"pair_seeds_{run.id}",
        help=terms.help_text(
            "seed",
            "paired-difference",
            first="A single pair is no evidence: three seeds or more show how much the seed alone changes the result.",
        ),
    )
    probe = st.checkbox(
        "Train the linear probe, too", key=f"pair_probe_{run.id}", help="What the frozen features give without experts."
    )
    try:
        study = presets.pair(queries.store(), run, plans[chosen][1], int(seeds), probe)
        lacking = missing(run.config)
        if right.button("Start the pair", key=f"pair_start_{run.id}", type="primary", disabled=lacking is not None):
            open_study(study)
        page.note(f"{SHARED} {started_text(studies.reusable(queries.store(), study, queries.curve))}")
        if lacking:
            st.warning(lacking)
        for text in beyond_the_cells(run.config.plan, plans[chosen][1]):
            page.note(f"In addition to the cells, {text}.")
    except EXPECTED_ERRORS as error:
        st.info(visitor.sentence(error))


def open_study(study: Study) -> None:
    """Start what a study lacks and open its page. Raises as `presets.launch`."""
    name = presets.launch(queries.store(), study, visitor.current()).id
    queries.refresh()
    go("studies", study=name)


def _choice(run: Run, plans: dict[str, tuple[str, MaskPlan]]) -> str:
    """Draw the masks as cards and return the name of the chosen one."""
    kept = f"pair_mask_{run.id}"
    if st.session_state.get(kept) not in plans:
        st.session_state[kept] = next(iter(plans))
    items = [
        Card(
            id=name,
            title=title,
            line=plan.kind_name,
            images=(mask_image(plan),),
            chosen=name == st.session_state[kept],
        )
        for name, (title, plan) in plans.items()
    ]
    picked = cards(items, key=f"pair_cards_{run.id}", label="Masks for the other run", size="small")
    if picked and picked != st.session_state[kept]:
        st.session_state[kept] = picked
        st.rerun()
    return st.session_state[kept]


def other_masks(config: RunConfig, canvas: MaskPlan) -> dict[str, tuple[str, MaskPlan]]:
    """Masks to pair a run with, by name: (title, plan); none is that of the run.

    The canvas comes first, then dense, uniform and the paper's others, stretched over the layers of the run's mask and
    with its expert settings. A canvas on layers that the run's backbone does not have is stretched as well.
    """
    run_plan = config.plan
    settings = {name: getattr(run_plan, name) for name in ("expert_rank", "coefficient_init", "train_coefficients")}
    try:
        catalog.backbone(config.backbone).shapes(canvas.targets)
    except catalog.CatalogError:
        canvas = fitted(canvas, run_plan.targets)
    masks = {"canvas": ("On the canvas", canvas)}
    first = ("dense", "uniform")
    patterns = sorted(
        paper_patterns(), key=lambda pattern: first.index(pattern.name) if pattern.name in first else len(first)
    )
    for pattern in patterns:
        title = "Uniform, p = 0.5" if pattern.name == "uniform" else pattern.name.capitalize()
        plan = replace(fitted(pattern.plan, run_plan.targets), **settings)
        masks[f"{pattern.name}.{pattern.kind.value}"] = (title, plan)
    return {name: (title, plan) for name, (title, plan) in masks.items() if plan != run_plan}


def started_text(entries: Sequence[tuple[Cell, Run | None]]) -> str:
    """One sentence about which runs of a study would start. entries: as `studies.reusable` returns them."""
    new = [cell for cell, run in entries if run is None]
    if not new:
        return "All of these runs exist already: nothing new starts."
    seeds = sorted({cell.seed for cell in new})
    existing = len(entries) - len(new)
    return (
        f"{'One run starts' if len(new) == 1 else f'{len(new)} runs start'}, with seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}" + (f"; {existing} of {len(entries)} exist already." if existing else ".")
    )
