"""Runs: active runs, the queue in its order, and ended runs."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import archive_file, commands, supervisor
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.run_texts import accuracy_text, position_text, stalled_text
from mlae_lab.ui.thumbnails import mask_image

_SHOWN = 100
page.heading("Runs", f"Everything that was started with this store: {escape(str(queries.store().folder))}.")


def row(run: Run, size: int, position: str = "", alone: bool = True) -> None:
    config = run.config
    image, what, number, status, buttons = st.columns([0.8, 4.2, 1.5, 1.7, 3.0], vertical_alignment="center")
    if config.has_mask:
        image.html(f'<img class="lab-thumb" src="{mask_image(config.plan)}" alt="">')
    relation = f" · {run.relation} from {run.parent}" if run.parent else f" · {run.relation}" if run.relation else ""
    reason = stalled_text(run) or run.reason
    backbone = escape(catalog.backbone(config.backbone).title).replace(" ", "&nbsp;")
    what.html(
        f'<div class="lab-choice"><b>{escape(catalog.task(config.task).title)}</b><span>{config.what} · '
        f"{counted(config.epochs, 'epoch')} · "
        f"lr {config.learning_rate:g} · seed {config.seed} · {backbone}</span>"
        + f"<small>{escape(' · '.join((config.badge.data, config.badge.protocol, config.badge.preprocessing)))}</small>"
        + f"<small>{escape(visitor.name_of(run.owner))} · {format_bytes(size)}{escape(relation)}</small>"
        + (f"<small>{escape(reason)}</small>" if reason else "")
        + "</div>"
    )
    number.html(f'<div class="lab-choice"><b>{accuracy_text(run)}</b><span>last epoch</span></div>')
    status.html(page.status_word(run.status) + (f"<br><small>{position}</small>" if position else ""))
    with buttons.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button("Open", key=f"runs_open_{run.id}"):
            go("train", run=run.id)
        run_actions.controls(run, "runs")
        if run.status is Status.QUEUED:
            run_actions.reorder(run, "runs", alone)
        if run.status.is_over:
            run_actions.more(run, "runs")
    run_actions.show_error(run.id)


runs = queries.runs()
if not runs:
    page.section("No runs yet")
    page.note("Each run will appear here with its mask, its accuracy and its status.")
    link("train", "Set up a run")
if unread := queries.store().unread():
    page.note(f"Runs that cannot be read: {len(unread)}. <code>{PROGRAM} doctor</code> says why.")
if stalled := supervisor.stalled(queries.store()):
    st.warning(f"The supervisor is stalled: {stalled.state}. To fix it, {stalled.cure}.")
archived = archive_file.archived(queries.store())
live = any(not run.status.is_over for run in runs)


@st.fragment(run_every=2.0 if live else 5.0)  # others start runs, too
def table() -> None:
    current = queries.runs()
    run_actions.show_error(
        elsewhere={run.id for run in current} | {run_actions.archived_mark(entry) for entry in archived}
    )
    sizes = commands.disk_use(queries.store())
    queue_positions = queries.store().queue_positions()
    active = [run for run in current if run.status.is_active]
    queued = sorted(
        (run for run in current if run.status is Status.QUEUED),
        key=lambda run: (run.device, queue_positions.get(run.id, (len(current), 0))),
    )
    over = [run for run in current if run.status.is_over]
    if active or queued:
        page.section("Active and queued")
    for run in (*active, *queued):
        position = position_text(run, queue_positions)
        alone = sum(other.owner == run.owner for other in queued) < 2
        with st.container(key=f"runs_row_{run.id}"):
            row(run, sizes[run.id].total if run.id in sizes else 0, position, alone)
    if over and (active or queued):
        page.section("Ended")
    for run in over[:_SHOWN]:
        with st.container(key=f"runs_row_{run.id}"):
            row(run, sizes[run.id].total if run.id in sizes else 0)
    measured = [vars(run.config.badge) for run in current if accuracy_text(run) != "–"]
    differing = [name for name in (measured[0] if measured else ()) if len({badge[name] for badge in measured}) > 1]
    if differing:
        page.note(f"These runs differ in {', '.join(differing)}: their accuracies are not comparable.")
    if len(over) > _SHOWN:
        page.note(f"The {_SHOWN} newest of {len(over)} ended runs. <code>{PROGRAM} runs</code> lists all.")
    total = sum(use.total for use in sizes.values())
    if current:
        free = format_bytes(commands.free_bytes(queries.store()))
        takes = "takes" if len(current) == 1 else "take"
        page.note(f"{counted(len(current), 'run')} {takes} {format_bytes(total)}; the disk has {free} free.")
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
