"""Train: the three choices in one line, the settings that matter, then the live bench of a run (`?run=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.data.tasks import ready
from mlae_lab.runs import commands
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import StoreError
from mlae_lab.ui import draft, page, queries, visitor
from mlae_lab.ui.bench import bench
from mlae_lab.ui.continue_view import continue_panel, lineage
from mlae_lab.ui.fetch_view import fetch_panel
from mlae_lab.ui.launch_view import launch_panel
from mlae_lab.ui.navigation import link
from mlae_lab.ui.pair_view import pair_panel
from mlae_lab.ui.requirements import missing
from mlae_lab.ui.settings_view import choices, settings
from mlae_lab.ui.task_view import take_tuned


def watch(run_id: str) -> None:
    """A run that exists."""
    draft.entered("run")  # a link from here to a design is a link, whatever was painted a moment ago
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
            words = "Look at its experts" if run.config.method == "mlae" else "Look into it"
            link("experts", words, run=run.id)
        link("train", "Set up another run", task=run.config.task, mask=run.config.plan.code)
    if run.config.method == "mlae":
        with st.expander("Same everything, other mask"):
            pair_panel(run)
        if run.status.is_over and queries.store().paths(run.id).checkpoints():
            with st.expander("Go on from a checkpoint with the mask on the canvas"):
                continue_panel(run)
    with st.expander("The command that does the same"):
        page.command(commands.command_of(run))


def design() -> None:
    """A run that is still a draft."""
    complaint = draft.read_address()
    page.heading(
        "Start a run", "The run trains on this machine in a process of its own; you can close this page and come back."
    )
    if complaint:
        st.warning(complaint)
    image = st.container()
    take_tuned(catalog.task(draft.current().task))
    with image:
        choices(draft.current())
    try:
        before = draft.current().backbone
        config = draft.filled_in(**settings(draft.current()))
        if config.backbone != before:
            st.rerun()  # the mask in the line above may have other layers now
        if lacking := missing(config):
            st.warning(lacking)
            if not ready(catalog.task(config.task)):
                link("task", "See what it needs", task=config.task)
            else:
                fetch_panel(config.backbone)
            command = config.command()
        else:
            command = launch_panel(config)
        with st.expander("The command that does the same"):
            page.command(command)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
    draft.write_address("task", "mask", "set")
    page.note(
        "A short run shows how a mask learns, not how well it can do. The paper trains 500 epochs and masks pay in "
        f"long runs: in {FIRST_RUN.epochs} epochs a dense mask usually leads one that drops half of its experts."
    )


if "run" in st.query_params:
    watch(st.query_params["run"])
else:
    design()
