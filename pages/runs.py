"""Runs: what runs, what waits and in which order, and everything that is over."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.units import format_bytes
from mlae_lab.runs import archive_file, commands
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, run_actions, visitor
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import go, link
from mlae_lab.ui.run_cards import accuracy_text
from mlae_lab.ui.thumbnails import mask_image

_SHOWN = 100
page.heading("Runs", f"Everything that was started with this store: {escape(str(queries.store().folder))}.")


def row(run: Run, size: int, position: str = "", alone: bool = True) -> None:
    config = run.config
    image, what, number, status, buttons = st.columns([0.8, 4.2, 1.5, 1.7, 3.0], vertical_alignment="center")
    if config.method == "mlae":
        image.html(f'<img class="lab-thumb" src="{mask_image(config.plan)}" alt="">')
    relation = f" · {run.relation} from {run.parent}" if run.parent else f" · {run.relation}" if run.relation else ""
    reason = run.reason
    if run.status.is_active and (silent := stalled_for(queries.store().paths(run.id))) is not None:
        reason = f"stalled: it lives, and has made no progress for {page.seconds_text(silent)}"
    what.html(
        f'<div class="lab-choice"><b>{escape(catalog.task(config.task).title)}</b><span>{config.what} · '
        f"{config.epochs} epochs · "
        f"lr {config.learning_rate:g} · seed {config.seed} · {escape(catalog.backbone(config.backbone).title)}</span>"
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
    run_actions.complaint(run.id)


runs = queries.runs()
if not runs:
    page.section("No runs yet")
    page.note("Each run will stand here with its mask, its number and its status.")
    link("train", "Set up a run")
if unread := queries.store().unread():
    page.note(f"Runs of a newer lab that are not shown: {len(unread)}. Update this lab to see them.")
away = archive_file.archived(queries.store())
live = any(not run.status.is_over for run in runs)


@st.fragment(run_every=2.0 if live else 5.0)  # others start runs, too
def table() -> None:
    found = queries.runs()
    run_actions.complaint(elsewhere={run.id for run in found} | {run_actions.away(entry) for entry in away})
    sizes = commands.disk_use(queries.store())
    queue_positions = queries.store().queue_positions()
    now = [run for run in found if run.status.is_active]
    waiting = sorted(
        (run for run in found if run.status is Status.QUEUED),
        key=lambda run: (run.device, queue_positions.get(run.id, (len(found), 0))),
    )
    over = [run for run in found if run.status.is_over]
    if now or waiting:
        page.section("Now and next")
    for run in (*now, *waiting):
        position = f"{queue_positions[run.id][0]}. in the queue" if run.id in queue_positions else ""
        alone = sum(other.owner == run.owner for other in waiting) < 2
        with st.container(key=f"runs_row_{run.id}"):
            row(run, sizes[run.id].total if run.id in sizes else 0, position, alone)
    if over and (now or waiting):
        page.section("Over")
    for run in over[:_SHOWN]:
        with st.container(key=f"runs_row_{run.id}"):
            row(run, sizes[run.id].total if run.id in sizes else 0)
    measured = [vars(run.config.badge) for run in found if accuracy_text(run) != "–"]
    differing = [name for name in (measured[0] if measured else ()) if len({badge[name] for badge in measured}) > 1]
    if differing:
        page.note(f"These runs differ in {', '.join(differing)}: such accuracies do not stand on one scale.")
    if len(over) > _SHOWN:
        page.note(f"The {_SHOWN} newest of {len(over)} runs that are over. <code>mlae_lab runs</code> lists all.")
    total = sum(use.total for use in sizes.values())
    if found:
        free = format_bytes(commands.free_bytes(queries.store()))
        page.note(f"{len(found)} runs take {format_bytes(total)}; the disk has {free} free.")
    if live != any(not run.status.is_over for run in found):
        st.rerun()


table()

if away:
    with st.expander(f"Put away ({len(away)})"):
        for entry in away:
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
                run_actions.put_away(entry)
            run_actions.complaint(run_actions.away(entry))
with st.expander("Take in a run from a file"):
    given = st.file_uploader(
        "A run that was saved as a file", type=[archive_file.SUFFIX.lstrip(".")], key="runs_import"
    )
    if given is not None and st.button("Take it in", key="runs_import_go"):
        file = Path(given.name)
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"given{archive_file.SUFFIX}"
                file.write_bytes(given.getvalue())
                taken = archive_file.import_run(queries.store(), file, visitor.current())
        except EXPECTED_ERRORS as error:
            text = error_message(error).replace(str(file), file.name).replace(file.name, given.name)
            st.warning(plain(sentence(text)))
        else:
            go("train", run=taken.id)
    page.note(
        "A file from a stranger is read as plain data: its settings and numbers are checked, nothing in it is run."
    )
