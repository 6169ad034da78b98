"""Where a run comes from, and going on from one of its checkpoints with another mask."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.config import MAX_EPOCHS
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import commands, pairs
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.paths import LAST
from mlae_lab.runs.store import Run
from mlae_lab.ui import draft, page, queries, visitor
from mlae_lab.ui.navigation import go, link

_WORDS = {
    "retry": "Runs again what run {} did not bring to its end",
    "duplicate": "Repeats run {}",
    "paired": "The pair of run {}, with another mask or seed",
    "repeat": "Repeats run {} with another seed",
    "race": "One of the runs of a race",
    "diversity": "Part of the experiment that began with run {}",
    "branched": "Goes on from run {}, checkpoint {}",
    "imported": "Came from elsewhere",
}


def lineage(run: Run) -> None:
    """The run that this one names as its parent, and those that name this one."""
    if run.relation:
        page.note(_WORDS[run.relation].format(run.parent or "of another store", run.source or "–") + ".")
    children = [child for child in queries.runs() if child.parent == run.id]
    with st.container(horizontal=True, gap="medium"):
        if run.parent:
            link("train", f"Open run {run.parent}", run=run.parent)
            parent = next((each for each in queries.runs() if each.id == run.parent), None)
            if run.relation == "paired" and parent and pairs.is_paired(parent.config, run.config):
                link("compare", "Compare the two", a=run.parent, b=run.id)
        for child in children[:6]:
            link("train", f"{child.relation.capitalize()}: run {child.id}", run=child.id)


def continue_panel(run: Run) -> None:
    """Choose a checkpoint and a number of epochs; the mask is the one on the canvas."""
    names = list(queries.store().paths(run.id).checkpoints())
    try:
        reached = {name: commands.epoch_of(queries.store(), run.id, name) for name in names}
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
        return
    which, epochs, press = st.columns([2, 1, 2], vertical_alignment="bottom")
    chosen = which.selectbox(
        "Checkpoint",
        names,
        format_func=lambda n: f"the newest, epoch {reached[n]}" if n == LAST else f"after epoch {n}",
        key=f"continue_from_{run.id}",
    )
    least = reached[chosen] + 1
    if least > MAX_EPOCHS:
        page.note(
            f"This checkpoint has {reached[chosen]:,} epochs behind it, the most that a run can have: choose an "
            "earlier one."
        )
        return
    total = epochs.number_input(
        "Epochs in all", least, MAX_EPOCHS, max(least, run.config.epochs), key=f"continue_epochs_{run.id}_{chosen}"
    )
    try:
        plan = _on_its_layers(draft.current().plan, run)
        if press.button("Go on as a new run", key=f"continue_start_{run.id}", type="primary"):
            child = commands.branch(queries.store(), run.id, plan, chosen, int(total), visitor.current())
            go("train", run=child.id)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
    page.note(
        "Experts that both masks hold keep what they have learned, with the optimizer's moments and the mask "
        "generators; new ones begin as in a fresh run. The schedule, the order of images and the head go on. The new "
        "run names this one."
    )
    link("masks", "Paint the mask first")


def _on_its_layers(plan: MaskPlan, run: Run) -> MaskPlan:
    """The mask on the canvas; if it has other layers than the run's backbone, stretched over those, with a note."""
    backbone = catalog.backbone(run.config.backbone)
    try:
        backbone.shapes(plan.targets)
        return plan
    except catalog.CatalogError:
        page.note(
            f"The mask on the canvas has layers that {backbone.title} does not have: it is stretched over those it has."
        )
        return fitted(plan, backbone.default_targets)
