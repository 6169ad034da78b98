"""Runs: all of them, newest first, each with its mask; open, stop, delete."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.runs import supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, reads
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.run_cards import accuracy_text
from mlae_lab.ui.thumbnails import mask_image

page.heading("Runs", f"Everything that was started with this store: {reads.store().folder}.")
if complaint := st.session_state.pop("runs_complaint", None):
    st.warning(complaint)


def act(run: Run) -> None:
    """The one button that fits the run's state."""
    if run.status.is_over:
        if st.button("Delete", key=f"runs_delete_{run.id}"):
            try:
                reads.store().delete(run.id)
            except StoreError as error:
                st.session_state["runs_complaint"] = f"{error}."
            st.rerun()
    elif st.button(
        "Cancel" if run.status is Status.QUEUED else "Stop",
        key=f"runs_stop_{run.id}",
        disabled=run.status is Status.STOPPING,
    ):
        supervisor.stop(reads.store(), run.id)
        st.rerun()


def row(run: Run) -> None:
    config = run.config
    picture, what, number, status, buttons = st.columns([0.8, 4.4, 1.6, 1.7, 2.6], vertical_alignment="center")
    if config.method == "mlae":
        picture.html(f'<img class="lab-thumb" src="{mask_image(config.plan)}" alt="">')
    what.html(
        f'<div class="lab-choice"><b>{escape(catalog.task(config.task).title)}</b><span>{config.what} · {config.epochs} epochs · '
        f"lr {config.learning_rate:g} · seed {config.seed} · {catalog.backbone(config.backbone).title}</span>"
        + f"<small>{escape(' · '.join((config.badge.data, config.badge.protocol, config.badge.preprocessing)))}</small>"
        + (f"<small>{escape(run.reason)}</small>" if run.reason else "")
        + "</div>"
    )
    number.html(f'<div class="lab-choice"><b>{accuracy_text(run)}</b><span>last epoch</span></div>')
    status.html(page.status_word(run.status))
    with buttons.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button("Open", key=f"runs_open_{run.id}"):
            go("train", run=run.id)
        act(run)


runs = reads.runs()
if not runs:
    page.section("No runs yet")
    page.note("Each run will stand here with its mask, its number and its status.")
    link("train", "Set up a run")
live = any(not run.status.is_over for run in runs)


@st.fragment(run_every=2.0 if live else None)
def table() -> None:
    found = reads.runs()
    for run in found[:100]:
        with st.container(key=f"runs_row_{run.id}"):
            row(run)
    measured = [vars(run.config.badge) for run in found if accuracy_text(run) != "–"]
    differing = [name for name in (measured[0] if measured else ()) if len({badge[name] for badge in measured}) > 1]
    if differing:
        page.note(f"These runs differ in {', '.join(differing)}: such accuracies do not stand on one scale.")
    if len(found) > 100:
        page.note(f"The 100 newest of {len(found)} runs. `mlae_lab runs` lists all.")
    if live and not any(not run.status.is_over for run in found):
        st.rerun()


table()
