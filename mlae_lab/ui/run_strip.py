"""What runs now, in the sidebar of every page."""

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
    """Active runs with a link, and how many wait; nothing where nothing runs."""
    with st.container(key="run_strip"):
        try:
            active = [run for run in queries.runs() if not run.status.is_over]
        except EXPECTED_ERRORS:
            page.note("The store cannot be read right now.")
            return
        under_way = [run for run in active if run.status.is_active]
        for run in under_way[:3]:
            step = queries.store().last(run.id, TrainStep)
            at = f"epoch {step.epoch}/{run.config.epochs}" if step else run.status.value
            page.note(f"{escape(catalog.task(run.config.task).title)}, {run.status.value}")
            link("train", at, run=run.id)
        if waiting := len(active) - len(under_way):
            link("runs", f"{waiting} waiting")
