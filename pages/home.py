"""Home: what the lab is, and a button that starts a first run."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.replay import replay
from mlae_lab.ui.run_cards import run_cards
from mlae_lab.ui.tour import SHORT, tour

_TOUR = "home_tour_open"

page.heading(
    "Draw where a network may learn",
    "A frozen vision transformer, 96 small experts, and a mask that says which of them take part. "
    "Paint the mask, start a run, and watch accuracy, experts and their similarity as they change.",
)
if visitor.has_seen_tour():
    replay(key="home_replay")
elif st.session_state.get(_TOUR):
    tour("home_tour", names=SHORT, close="Close the tour", on_close=visitor.close_tour)
    link("tour", "The whole tour, five minutes")
else:
    with st.container(key="home_offer", horizontal=True, vertical_alignment="center", gap="small"):
        page.note("<b>New here?</b> Five pages show how it works, in two minutes.")
        if st.button("Show me", key="home_tour_start"):
            st.session_state[_TOUR] = True
            st.rerun()
        st.button("No, thanks", key="home_tour_close", on_click=visitor.close_tour)
    replay(key="home_replay")
with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    if st.button("Watch a mask learn · about a minute", type="primary", key="home_first_run"):
        run_actions.start_and_watch(FIRST_RUN)
    for task in catalog.TASKS:
        if (
            task.bundled
            and task.name != FIRST_RUN.task
            and st.button(f"… on {task.title}", key=f"home_run_{task.name}")
        ):
            run_actions.start_and_watch(replace(FIRST_RUN, task=task.name))
page.note(
    "The button repeats the recorded run on this machine with the same seed; other processors round differently, so "
    "the result may differ by a point or two. Nothing is downloaded."
)

runs = queries.runs()
if runs:
    page.section("Recent runs")
    picked = run_cards(runs[:8], key="home_runs")
    if picked:
        go("train", run=picked)
    link("runs", "All runs")
else:
    page.section("No runs yet")
    page.note("Your runs will appear here with their masks. The button above starts the first one.")
