"""The lineage of a run, and branching from one of its checkpoints with another mask."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import MAX_EPOCHS
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import commands
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import Run
from mlae_lab.ui import draft, page, queries, visitor
from mlae_lab.ui.navigation import go, link

_MAX_STUDIES = 4
_RELATIONS = {
    "retry": "Retry of {}",
    "duplicate": "Duplicate of {}",
    "study": "Part of study {1}",
    "lesson": "Trained for the lesson {1}",
    "branched": "Branched from {}, checkpoint {}",
    "imported": "Imported",
}


def origin(run: Run) -> str:
    """Where a run comes from, as a sentence; "" for a run that was started alone."""
    if not run.relation:
        return ""
    parent = f"run {run.parent}" if run.parent else "a run of another store"
    return f"{_RELATIONS[run.relation].format(parent, run.source or '–')}."


def lineage(run: Run) -> None:
    """Links to the parent of a run, to the studies that it belongs to and to its children."""
    if text := origin(run):
        page.note(text)
    children = [child for child in queries.runs() if child.parent == run.id]
    with st.container(horizontal=True, gap="medium"):
        if run.relation == "lesson":
            link("learn", "Open the lesson", lesson=run.source)
        if run.parent:
            link("train", f"Open run {run.parent}", run=run.parent)
        for name in queries.store().studies_of(run.id)[:_MAX_STUDIES]:
            link("studies", "Open its study" if name == run.source else f"Open study {name}", study=name)
        for child in children[:6]:
            link("train", f"{child.relation.capitalize()}: run {child.id}", run=child.id)


def continue_panel(run: Run) -> None:
    """Draw the choice of a checkpoint and a number of epochs; the mask is the one on the canvas."""
    names = list(queries.store().paths(run.id).checkpoints())
    try:
        reached = {name: commands.epoch_of(queries.store(), run.id, name) for name in names}
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
        return
    checkpoint, epochs, button = st.columns([2, 1, 2], vertical_alignment="bottom")
    chosen = checkpoint.selectbox(
        "Checkpoint",
        names,
        format_func=lambda n: f"the newest, epoch {reached[n]}" if n == LAST else f"after epoch {n}",
        key=f"continue_from_{run.id}",
    )
    smallest = reached[chosen] + 1
    if smallest > MAX_EPOCHS:
        page.note(
            f"This checkpoint is at epoch {reached[chosen]:,}, the largest number that a run can have: choose an "
            "earlier one."
        )
        return
    total = epochs.number_input(
        "Total epochs", smallest, MAX_EPOCHS, max(smallest, run.config.epochs), key=f"continue_epochs_{run.id}_{chosen}"
    )
    try:
        plan = _fitting(draft.current().plan, run)
        if button.button("Branch", key=f"continue_start_{run.id}", type="primary"):
            child = commands.branch(queries.store(), run.id, plan, chosen, int(total), visitor.current())
            go("train", run=child.id)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
    page.note(
        "Experts that both masks have keep their weights, the optimizer's moments and the mask generators; new ones "
        "are initialized as in a new run. The schedule, the order of images and the head continue."
    )
    link("masks", "Paint the mask")


def _fitting(plan: MaskPlan, run: Run) -> MaskPlan:
    """The plan, or if the run's backbone lacks its layers, the plan stretched over those it has, with a note."""
    backbone = catalog.backbone(run.config.backbone)
    try:
        backbone.shapes(plan.targets)
        return plan
    except catalog.CatalogError:
        page.note(
            f"The mask on the canvas has layers that {backbone.title} does not have: "
            "it is stretched over the layers that exist."
        )
        return fitted(plan, backbone.default_targets)
