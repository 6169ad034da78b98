"""Experts: analyses of the experts of a run (`?run=`)."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import ExpertStats
from mlae_lab.data.listing import counted
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries
from mlae_lab.ui.expert_views import VIEWS, reasons, views_of
from mlae_lab.ui.location_view import has_files, location_fields
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link
from mlae_lab.ui.run_texts import accuracy_text

MAX_OFFERED = 200  # runs in the list; the page Runs has all

page.heading(
    "Experts",
    "The contribution and the coefficient of each expert of a run, and the similarity of the experts in a layer.",
)


def _that_open(runs: list[Run]) -> list[Run]:
    """The runs with statistics of experts, then probes with a saved head."""
    store = queries.store()
    masked = [run for run in runs if run.config.has_mask]
    recorded = store.with_event((run.id for run in masked), ExpertStats)
    probes = [
        run
        for run in runs
        if not run.config.has_mask
        and run.status.is_over
        and not run.config.unavailable
        and store.paths(run.id).adapter.is_file()
    ]
    return [*(run for run in masked if run.id in recorded), *probes]


def _label(run: Run) -> str:
    """A run in the list: its name or id, the task and what was trained."""
    title = f"{run.name} ({run.id})" if run.name else run.id
    return f"{title}: {catalog.task(run.config.task).title}, {run.config.what}, seed {run.config.seed}"


def pick_run(runs: list[Run], chosen: Run | None) -> None:
    """Draw the list of the newest runs that can be opened; another one is opened in the same view."""
    offered = {run.id: run for run in [*runs[:MAX_OFFERED], *([chosen] if chosen else [])]}
    key = f"experts_run_{chosen.id if chosen else ''}"  # a new widget for each link

    def keep() -> None:
        if st.session_state[key] is None:
            return
        view = st.query_params.get("view")
        st.query_params.from_dict({"run": st.session_state[key]} | ({"view": view} if view else {}))

    st.selectbox(
        "Run",
        list(offered),
        index=list(offered).index(chosen.id) if chosen else None,
        format_func=lambda name: _label(offered[name]),
        placeholder="Choose a run",
        key=key,
        on_change=keep,
        label_visibility="collapsed",
        width=560,
    )


candidates = _that_open(queries.runs())
run_id = st.query_params.get("run")
try:
    run = queries.run(run_id) if run_id else (candidates[0] if candidates else None)
except StoreError as error:
    st.warning(plain(sentence(error)))  # never show another run under the address of this one
    pick_run(candidates, None)
    link("runs", "See all runs")
    st.stop()

if run is None:
    page.section("No run with experts yet")
    page.note(
        "After the first evaluation of a run, this page shows contribution, coefficient, active share and gradient of "
        "each expert, and the similarity of the experts in every layer."
    )
    link("train", "Set up a run")
    st.stop()

if run.config.unavailable:
    st.warning(plain(sentence(f"run {run.id} cannot be analysed, {run.config.unavailable}")))
    link("train", "Open the run", run=run.id)
    st.stop()

if not _that_open([run]):
    page.section(f"Run {run.id} has nothing to show yet")
    page.note(
        "A run shows its experts after the first evaluation; a run of a method without experts can be analysed when it "
        "is over."
    )
    link("train", "Watch this run", run=run.id)
    st.stop()

if not run_id:  # the other parameters belong to a run that the address does not name
    opened_view = st.query_params.get("view")
    st.query_params.from_dict({"run": run.id} | ({"view": opened_view} if opened_view else {}))

has_experts = run.config.has_mask
with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
    pick_run(candidates, run)
    link("train", "Open the run", run=run.id)
page.facts(
    ("Status", page.status_word(run.status)),
    ("Task", catalog.task(run.config.task).title),
    (
        "Trained",
        f"{run.config.plan.kind_name} mask, {counted(run.config.plan.experts, 'expert')}"
        if has_experts
        else "the head only"
        if run.config.tuning.trains_only_head
        else run.config.what,
    ),
    ("Accuracy, last epoch", accuracy_text(run)),
)
views = views_of(run)
if st.query_params.get("view") in VIEWS and st.query_params.get("view") not in views:
    st.warning(
        f"{VIEWS[st.query_params['view']].title} is not available for run {run.id}: it does not apply to "
        f"{run.config.what}."
    )
asked_view = st.query_params.get("view")
is_linked = asked_view in views and asked_view != st.session_state.get("experts_view_drawn")
if is_linked:
    st.session_state["experts_view"] = asked_view
if st.session_state.get("experts_view") not in views:
    st.session_state["experts_view"] = next(iter(views))
view = st.segmented_control(
    "View",
    list(views),
    format_func=lambda name: views[name].title,
    key="experts_view",
    label_visibility="collapsed",
) or next(iter(views))
is_new_view = st.session_state.get("experts_drawn") != (run.id, view)
st.session_state["experts_view_drawn"], st.session_state["experts_drawn"] = view, (run.id, view)
if is_linked or asked_view != view:  # a link to the current page does not change the browser's address
    st.query_params["view"] = view
page.note(" ".join([views[view].about, *map(escape, reasons(run))]))
if has_files(run):
    with st.expander("Images and weights of this run"):
        location_fields(run, "experts")
with st.container(key="experts_switch"):  # page.css: takes no space
    switching = st.empty()
if is_new_view:  # Streamlit keeps the elements of the last view until this one is complete
    switching.html('<style>.st-key-experts_shown [data-stale="true"] { display: none; }</style><span></span>')
with st.container(key="experts_shown"):
    if run.status.is_over or views[view].of_live:
        views[view].draw(run)
    else:  # one message for the whole view, which would send several queries
        early = ", ".join(each.title for each in views.values() if each.of_live)
        st.info(
            f"Run {run.id} is {run.status.value}: this view opens when it is over. {early} show the results so far."
        )
switching.empty()
