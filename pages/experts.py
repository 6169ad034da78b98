"""Experts: what the experts of a run became (`?run=`)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.runs.store import StoreError
from mlae_lab.ui import page, reads
from mlae_lab.ui.inside import VIEWS
from mlae_lab.ui.navigation import link
from mlae_lab.ui.run_cards import accuracy_text, run_cards

page.heading(
    "Experts", "What each expert of a run adds, how its coefficient moved, and how alike the experts of a layer are."
)
measured = [run for run in reads.runs() if run.config.method == "mlae" and reads.store().last(run.id, "experts")]
asked = st.query_params.get("run")
try:
    run = reads.run(asked) if asked else (measured[0] if measured else None)
except StoreError as error:
    st.warning(f"{error}.")
    run = measured[0] if measured else None

if run is None:
    page.section("No run has experts to show yet")
    page.note(
        "After the first measured epoch of a run, four grids stand here: contribution, coefficient, share of steps and "
        "gradient of each expert; and the similarity of the experts in every layer."
    )
    link("train", "Set up a run")
    st.stop()

tail = reads.tail(run.id)
if not tail.experts:
    page.section(f"Run {run.id} has no experts to show")
    page.note("A linear probe has none; other runs show theirs after the first measured epoch.")
    link("train", "Watch this run", run=run.id)
    st.stop()

page.facts(
    ("Run", f"{run.id} {page.status_word(run.status)}"),
    ("Task", catalog.task(run.config.task).title),
    ("Mask", f"{run.config.plan.kind.value}, {run.config.plan.experts} experts"),
    ("Accuracy, last epoch", accuracy_text(run)),
)
asked_view = st.query_params.get("view")
if asked_view in VIEWS and asked_view != st.session_state.get("experts_view_drawn"):
    st.session_state["experts_view"] = asked_view  # a link was followed
st.session_state.setdefault("experts_view", next(iter(VIEWS)))
view = st.segmented_control(
    "What to look at",
    list(VIEWS),
    format_func=lambda name: VIEWS[name][0],
    key="experts_view",
    label_visibility="collapsed",
) or next(iter(VIEWS))
st.session_state["experts_view_drawn"] = view
if asked_view != view:
    st.query_params["view"] = view
page.note(VIEWS[view][1])
VIEWS[view][2](run)
link("train", "The run itself", run=run.id)
others = [entry for entry in measured if entry.id != run.id][:12]
if others:
    page.section("Other runs")
    picked = run_cards(others, key="experts_others")
    if picked:
        st.query_params["run"] = picked
        st.rerun()
