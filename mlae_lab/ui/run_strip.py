"""The active runs, in the sidebar of every page."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import TrainStep
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.ui import page, queries
from mlae_lab.ui.navigation import link

_EVERY = 10.0  # seconds; twenty viewers have twenty of them


@st.fragment(run_every=_EVERY)
def run_strip() -> None:
    """Draw links to the active runs and the number of queued ones; nothing if there are none."""
    with st.container(key="run_strip"):
        try:
            active = [run for run in queries.runs() if not run.status.is_over]
        except EXPECTED_ERRORS:
            page.note("The store cannot be read right now.")
            return
        running = [run for run in active if run.status.is_active]
        for run in running[:3]:
            step = queries.store().last(run.id, TrainStep)
            label = f"epoch {step.epoch}/{run.config.epochs}" if step else run.status.value
            page.note(f"{escape(catalog.task(run.config.task).title)}, {run.status.value}")
            link("train", label, run=run.id)
        if queued := len(active) - len(running):
            link("runs", f"{queued} queued")
