"""Runs: active runs and the queue in its order, a table of all runs, and archived ones."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import alerts, archive_file, commands, preset_migration, supervisor
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, runs_table, selected_runs, visitor
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.run_texts import accuracy_text, position_text
from mlae_lab.ui.thumbnails import mask_image

_SHOWN = 10  # active and queued runs with their buttons
page.heading("Runs", f"Everything that was started with this store: {escape(str(queries.store().folder))}.")


def row(run: Run, position: str, alone: bool) -> None:
    """An active or queued run with its buttons."""
    image, what, number, status, buttons = st.columns([0.8, 4.2, 1.5, 1.7, 3.0], vertical_alignment="center")
    if run.config.has_mask:
        image.html(f'<img class="lab-thumb" src="{mask_image(run.config.plan)}" alt="">')
    what.html(selected_runs.description(run))
    number.html(f'<div class="lab-choice"><b>{accuracy_text(run)}</b><span>last epoch</span></div>')
    status.html(page.status_word(run.status) + (f"<br><small>{position}</small>" if position else ""))
    with buttons.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button("Open", key=f"runs_open_{run.id}"):
            go("train", run=run.id)
        run_actions.controls(run, "runs")
        if run.status is Status.QUEUED:
            run_actions.reorder(run, "runs", alone)
    run_actions.show_error(run.id)


def active_and_queued(current: list[Run]) -> None:
    positions = queries.store().queue_positions()
    active = [run for run in current if run.status.is_active]
    queued = sorted(
        (run for run in current if run.status is Status.QUEUED),
        key=lambda run: (run.device, positions.get(run.id, (len(current), 0))),
    )
    waiting = [*active, *queued]
    if waiting:
        page.section("Active and queued")
    for run in waiting[:_SHOWN]:
        alone = sum(other.owner == run.owner for other in queued) < 2
        with st.container(key=f"runs_row_{run.id}"):
            row(run, position_text(run, positions), alone)
    if len(waiting) > _SHOWN:
        page.note(f"The first {_SHOWN} of {len(waiting)} active and queued runs; the table has all.")


runs = queries.runs()
if not runs:
    page.section("No runs yet")
    page.note("Each run will appear here with its mask, its accuracy and its status.")
    link("train", "Set up a run")
if unread := queries.shared(("unread",), queries.store().unread, 10.0):
    page.note(f"Runs that cannot be read: {len(unread)}. <code>{PROGRAM} doctor</code> says why.")
if stalled := supervisor.stalled(queries.store()):
    st.warning(f"The supervisor is stalled: {stalled.state}. To fix it, {stalled.cure}.")
if (failure := alerts.last_failure(queries.store())) and st.session_state.get("runs_alert") != failure.time:
    st.session_state["runs_alert"] = failure.time  # each failure is shown once to a visitor
    st.warning(plain(failure.text))
if left := preset_migration.note(queries.store().folder):
    st.info(plain(left))
    if st.button("Do not show this again", key="runs_without_study"):
        preset_migration.note_was_read(queries.store().folder)
        st.rerun()
archived = archive_file.archived(queries.store())
live = any(not run.status.is_over for run in runs)


@st.fragment(run_every=2.0 if live else 5.0)  # others start runs, too
def table() -> None:
    current = queries.runs()
    run_actions.show_error(
        elsewhere={run.id for run in current} | {run_actions.archived_mark(entry) for entry in archived}
    )
    active_and_queued(current)
    if current:
        page.section("All runs")
        view = runs_table.view()
        matching = runs_table.chosen(runs_table.rows(current), view)
        if matching:
            runs_table.draw(matching, view)
            selected_runs.draw(runs_table.selected(matching))
        else:
            page.note("No run matches.")
        free = format_bytes(commands.free_bytes(queries.store()))
        page.note(f"{counted(len(current), 'run')} in the store; the disk has {free} free.")
    if live != any(not run.status.is_over for run in current):
        st.rerun()


table()

if archived:
    with st.expander(f"Archived ({len(archived)})"):
        for entry in archived:
            text, buttons = st.columns([4, 3], vertical_alignment="center")
            what = (
                f"unreadable: {entry.trouble}"
                if entry.status is None
                else f"{catalog.task(entry.task).title}, {entry.status.value}"
            )
            text.html(
                f'<div class="lab-choice"><b>{entry.id}</b><span>{escape(what)} · '
                f"{format_bytes(entry.bytes)}</span></div>"
            )
            with buttons:
                run_actions.archived_actions(entry)
            run_actions.show_error(run_actions.archived_mark(entry))
with st.expander("Import a run"):
    given = st.file_uploader("An exported run", type=[archive_file.SUFFIX.lstrip(".")], key="runs_import")
    if given is not None and st.button("Import", key="runs_import_go"):
        file = Path(given.name)
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"given{archive_file.SUFFIX}"
                file.write_bytes(given.getvalue())
                imported = archive_file.import_run(queries.store(), file, visitor.current())
        except EXPECTED_ERRORS as error:
            text = error_message(error).replace(str(file), file.name).replace(file.name, given.name)
            st.warning(plain(sentence(text)))
        else:
            go("train", run=imported.id)
    page.note(
        "An imported file is read as plain data: settings and numbers are checked, and no code in it is executed."
    )
