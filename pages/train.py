"""Train: task, mask, backbone and settings of a new run; or the live bench of a run (`?run=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.data.tasks import ready
from mlae_lab.runs import commands, supervisor
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import StoreError
from mlae_lab.ui import draft, page, queries, visitor
from mlae_lab.ui.bench import bench
from mlae_lab.ui.continue_view import continue_panel, lineage
from mlae_lab.ui.export_view import export_panel
from mlae_lab.ui.fetch_view import fetch_panel
from mlae_lab.ui.image_size_view import draw_sizes
from mlae_lab.ui.launch_view import launch_panel
from mlae_lab.ui.method_view import method_picker, recipe_choice
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import pair_panel
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.settings_view import choices, settings
from mlae_lab.ui.task_view import use_tuned


def watch(run_id: str) -> None:
    """Draw an existing run."""
    draft.entered("run")  # a link from here to the form counts as a link, whatever was painted before
    try:
        run = queries.run(run_id)
    except StoreError:
        page.heading("Run")
        bench(run_id)
        return
    page.heading(f"{escape(catalog.task(run.config.task).title)}, {run.config.what}")
    bench(run_id)
    lineage(run)
    with st.container(horizontal=True, gap="medium"):
        if run.status.is_over:
            label = "Open its experts" if run.config.has_mask else "Open the analysis"
            link("experts", label, run=run.id)
            if queries.store().paths(run.id).adapter.is_file():
                link("experts", "Classify images", run=run.id, view="predict")
        link("train", "Set up another run", task=run.config.task, mask=run.config.plan.code)
    if run.config.has_mask:
        with st.expander("Rerun with another mask"):
            pair_panel(run)
        if run.status.is_over and queries.store().paths(run.id).checkpoints():
            with st.expander("Branch from a checkpoint with the mask on the canvas"):
                continue_panel(run)
    if run.status.is_over and queries.store().paths(run.id).adapter.is_file():
        with st.expander("Export the network"):
            export_panel(run)
    with st.expander("Equivalent command"):
        page.command(commands.command_of(run))


def design() -> None:
    """Draw the form of the draft."""
    problem = draft.read_address()
    page.heading(
        "Start a run", "The run trains on this machine in a separate process; it continues when this page is closed."
    )
    if problem:
        st.warning(problem)
    choices_row = st.container()
    if draft.current().has_mask:
        use_tuned(catalog.task(draft.current().task))
    with choices_row:
        choices(draft.current())
        recipe_row = st.container()
    try:
        before = draft.current().backbone
        config = draft.filled_in(**settings(draft.current()))
        with recipe_row:  # after the form, whose values decide which recipe this is
            recipe_choice(config)
        if config.backbone != before:
            st.rerun()  # the mask above may have other layers now
        if missing_text := missing(config):
            st.warning(missing_text)
            if not ready(catalog.task(config.task)):
                link("task", "Show the requirements", task=config.task)
            else:
                fetch_panel(config.backbone)
                draw_sizes(config)
            command = config.command()
        else:
            command = launch_panel(config)
            supervisor.warm()  # while the person decides
        with st.expander("Equivalent command"):
            page.command(command)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
    method_picker(draft.current())
    draft.write_address("task", "mask", "set")
    if draft.current().has_mask:
        page.note(
            "A short run shows how a mask learns, not how well it can do. The paper trains 500 epochs, and masks help "
            f"in long runs: after {FIRST_RUN.epochs} epochs a dense mask usually leads one that drops half of them."
        )


if "run" in st.query_params:
    watch(st.query_params["run"])
else:
    design()
