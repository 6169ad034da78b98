"""Experts: what the experts of a run became (`?run=`)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import ExpertStats
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries
from mlae_lab.ui.expert_views import VIEWS, views_of
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.run_cards import accuracy_text, run_cards

page.heading(
    "Experts", "What each expert of a run adds, how its coefficient moved, and how alike the experts of a layer are."
)


def _can_be_opened(run: Run) -> bool:
    """An expert of it was measured, or it left the head that it trained."""
    if run.config.method == "mlae":
        return queries.store().last(run.id, ExpertStats) is not None
    return run.status.is_over and queries.store().paths(run.id).adapter.is_file()


def others(runs: list[Run]) -> None:
    """Cards of runs to go to."""
    if runs:
        page.section("Other runs")
        picked = run_cards(runs[:12], key="experts_others")
        if picked:
            st.query_params.from_dict({"run": picked} | ({"view": now} if (now := st.query_params.get("view")) else {}))
            st.rerun()


there = sorted(filter(_can_be_opened, queries.runs()), key=lambda run: run.config.method != "mlae")
asked = st.query_params.get("run")
try:
    run = queries.run(asked) if asked else (there[0] if there else None)
except StoreError as error:
    st.warning(plain(sentence(error)))  # nothing of another run stands under the address of this one
    link("runs", "See all runs")
    others(there)
    st.stop()

if run is None:
    page.section("No run has experts to show yet")
    page.note(
        "After the first measured epoch of a run, four grids stand here: contribution, coefficient, share of steps and "
        "gradient of each expert; and the similarity of the experts in every layer."
    )
    link("train", "Set up a run")
    st.stop()

if not _can_be_opened(run):
    page.section(f"Run {run.id} has nothing to show yet")
    page.note(
        "A run shows its experts after the first measured epoch; a linear probe, which has none, can be looked into "
        "when it is over."
    )
    link("train", "Watch this run", run=run.id)
    st.stop()

has_experts = run.config.method == "mlae"
page.facts(
    ("Run", f"{run.id} {page.status_word(run.status)}"),
    ("Task", catalog.task(run.config.task).title),
    (
        "Trained",
        f"{run.config.plan.kind.value} mask, {run.config.plan.experts} experts" if has_experts else "the head alone",
    ),
    ("Accuracy, last epoch", accuracy_text(run)),
)
views = views_of(run)
if st.query_params.get("view") in VIEWS and st.query_params.get("view") not in views:
    st.warning(f"{VIEWS[st.query_params['view']].title} is not here: run {run.id} has trained a head and no expert.")
asked_view = st.query_params.get("view")
followed = asked_view in views and asked_view != st.session_state.get("experts_view_drawn")
if followed:
    st.session_state["experts_view"] = asked_view
if st.session_state.get("experts_view") not in views:
    st.session_state["experts_view"] = next(iter(views))
view = st.segmented_control(
    "What to look at",
    list(views),
    format_func=lambda name: views[name].title,
    key="experts_view",
    label_visibility="collapsed",
) or next(iter(views))
st.session_state["experts_view_drawn"] = view
if followed or asked_view != view:  # a link to the page that one is on leaves the browser's address as it was
    st.query_params["view"] = view
page.note(views[view].about)
if run.status.is_over or views[view].of_live:
    views[view].draw(run)
else:  # once for the whole view, which would ask the run several things
    early = ", ".join(each.title for each in views.values() if each.of_live)
    st.info(f"Run {run.id} is {run.status.value}: this view opens when it is over. {early} show what is there so far.")
link("train", "The run itself", run=run.id)
others([entry for entry in there if entry.id != run.id])
