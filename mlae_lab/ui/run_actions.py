"""The buttons of a run. They follow from its status.

What cannot be undone, and any action on the run of another person, asks first; the question is next to the button.
"""

from __future__ import annotations

import getpass
import tempfile
import time
from collections.abc import Callable, Container
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mlae_lab.core.config import RunConfig
from mlae_lab.data.own_dataset import StoredDataset
from mlae_lab.network import is_public
from mlae_lab.runs import archive_file, commands
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.library import SavedPlan
from mlae_lab.runs.owners import terminal_owner
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Run
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import queries, visitor
from mlae_lab.ui.location_view import location_fields
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import go

_QUESTION_SECONDS = 20.0  # a question that nobody answers disappears
_TWICE_SECONDS = 3.0  # a double click
_ERROR, _ASKED, _STARTED = "action_error", "action_question", "action_started"


def start(config: RunConfig) -> str:
    """Start a run for this visitor and return its id; a double click starts only one."""
    before = st.session_state.get(_STARTED)
    if before and before[0] == config and time.monotonic() - before[1] < _TWICE_SECONDS:
        return before[2]
    run = commands.launch(queries.store(), config, visitor.current()).id
    queries.refresh()
    st.session_state[_STARTED] = (config, time.monotonic(), run)
    return run


def start_and_watch(config: RunConfig) -> None:
    """Start a run and open it; if the store fails, show the error on this page."""
    try:
        run = start(config)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
        return
    go("train", run=run)


def show_error(mark: str | None = None, elsewhere: Container[str] = ()) -> None:
    """Show the error of the last click once, where the click was.

    Args:
        mark: Show only errors of the buttons with this mark (a run id, usually); None for all.
        elsewhere: Marks whose errors are shown elsewhere.
    """
    if (error := st.session_state.get(_ERROR)) and mark in (None, error[0]) and error[0] not in elsewhere:
        del st.session_state[_ERROR]
        st.warning(error[1])


def controls(run: Run, key: str) -> None:
    """Draw the buttons for the status of a run; key: unique on the page."""
    if run.status is Status.QUEUED:
        _button(run, key, "Cancel", lambda: commands.stop(queries.store(), run.id))
    elif not run.status.is_over:
        keep_help = "Finishes the step, saves adapter and checkpoint, and evaluates if that is quick."
        if run.status is not Status.STOPPING:
            _button(run, key, "Stop and keep", lambda: commands.stop(queries.store(), run.id), keep_help)
        _button(
            run,
            key,
            "Stop now",
            lambda: commands.stop(queries.store(), run.id, now=True),
            "Ends the process at once; the last checkpoint is kept.",
            question="Stop this run at once? The steps since its last checkpoint are lost.",
        )
    else:
        if run.status in RESUMABLE:
            checkpoints = queries.store().paths(run.id).checkpoints()
            origin = (
                "from the checkpoint that it branched from" if run.relation == "branched" else "from its first step"
            )
            resume_help = (
                "Continues from its last checkpoint."
                if checkpoints
                else f"There is no checkpoint yet: starts {origin}."
            )
            _button(run, key, "Resume", lambda: commands.resume(queries.store(), run.id), resume_help, confirm=False)
        if st.button(
            "Retry" if run.status in RESUMABLE else "Duplicate",
            key=f"{key}_again_{run.id}",
            help="Starts the same run as a new run, from "
            + ("the checkpoint that it branched from." if run.relation == "branched" else "its first step."),
        ):
            try:
                new = commands.rerun(queries.store(), run.id, visitor.current())
            except EXPECTED_ERRORS as error:
                st.session_state[_ERROR] = run.id, visitor.sentence(error)
                st.rerun()
            go("train", run=new.id)


def reorder(run: Run, key: str, alone: bool) -> None:
    """Draw the menu that moves a queued run among those of its owner; nothing if it is alone."""
    if alone:
        return
    with st.popover("Move", key=f"{key}_move_{run.id}"):
        for label, to in (("First", "first"), ("Up", "up"), ("Down", "down"), ("Last", "last")):
            _button(run, key, label, lambda to=to: queries.store().reorder(run.id, to))


def more(run: Run, key: str) -> None:
    """Draw the menu of a run that is over: export, archive, delete."""
    with st.popover("More", key=f"{key}_more_{run.id}"):
        st.download_button(
            "Export",
            lambda: _exported(run.id),
            file_name=f"{run.id}{archive_file.SUFFIX}",
            mime="application/zip",
            key=f"{key}_export_{run.id}",
            on_click="ignore",
            help="Settings, events, log, adapter and checkpoint in one file, for an import on another machine.",
        )
        if (best := queries.store().paths(run.id).best).is_file():
            st.download_button(
                "Best adapter",
                lambda: best.read_bytes(),
                file_name=f"{run.id}-best.safetensors",
                key=f"{key}_best_{run.id}",
                on_click="ignore",
                help="Experts and head of the evaluation with the highest validation accuracy. It was chosen on these "
                "images, so that accuracy is too high.",
            )
        _button(
            run,
            key,
            "Archive",
            lambda: archive_file.archive(queries.store(), run.id),
            "Moves the run out of the list into one file; it can be restored.",
        )
        _button(
            run,
            key,
            "Delete",
            lambda: commands.delete(queries.store(), run.id),
            "Deletes the run with its files, permanently.",
            question=f"Delete run {run.id} with its files? This cannot be undone.",
        )
        location_fields(run, key)


def archived_actions(entry: archive_file.Archived) -> None:
    """Draw the buttons of an archived run: restore, delete."""
    with st.container(horizontal=True, gap="small"):
        if not entry.trouble:
            _button(
                entry,
                "runs",
                "Restore",
                lambda: archive_file.restore(queries.store(), entry.id),
                confirm=False,
                mark=archived_mark(entry),
            )
        _button(
            entry,
            "runs",
            "Delete",
            lambda: archive_file.discard(queries.store(), entry.id),
            "Deletes the file, permanently.",
            question=f"Delete the archived run {entry.id}? This cannot be undone.",
            mark=archived_mark(entry),
        )


def archived_mark(entry: archive_file.Archived) -> str:
    """The mark of the buttons of an archived run; a restored run has other buttons."""
    return f"archived_{entry.id}"


def _exported(run_id: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # not in the store, which may be read-only
        file = Path(folder) / f"{run_id}{archive_file.SUFFIX}"
        archive_file.export(queries.store(), run_id, file)
        return file.read_bytes()


def needs_no_confirmation(entry: Run | archive_file.Archived | SavedPlan | StoredStudy | StoredDataset) -> bool:
    """Whether it is the visitor's, nobody's, or that of the only user of this machine."""
    if entry.owner in ("", visitor.current()):
        return True
    try:
        is_private = not is_public(st.get_option("server.address"), st.get_option("server.allowedHosts"))
        return is_private and entry.owner == terminal_owner(getpass.getuser())
    except (KeyError, OSError):
        return False


def confirmed_button(
    label: str, key: str, question: str, help: str | None = None, place: DeltaGenerator | None = None
) -> bool:
    """Draw a button that asks before it acts.

    Yes and No are separate buttons, so a double click on the first button does nothing.

    Args:
        label: Of the button.
        key: Unique on the page.
        question: Asked after a click, "" to act at once.
        help: Of the button.
        place: Where the question is drawn, None for next to the button.

    Returns:
        Whether the action was just confirmed.
    """
    state, yes_key = st.session_state, f"{key}_yes"
    is_clicked = st.button(label, key=key, help=help)
    if not question:
        return is_clicked
    if is_clicked:
        state[_ASKED] = key, time.monotonic()
    pending, since = state.get(_ASKED, ("", 0.0))
    # the answer counts however late it is
    if pending != key or (time.monotonic() - since > _QUESTION_SECONDS and not state.get(yes_key)):
        return False
    with (place or st).container(key=f"question_{key}", width=360, gap="small"):
        st.warning(question)
        with st.container(horizontal=True, gap="small"):
            is_confirmed = st.button(f"Yes, {label[:1].lower()}{label[1:]}", key=yes_key, type="primary")
            is_refused = st.button("No", key=f"{key}_no")
    if is_confirmed or is_refused:
        del state[_ASKED]
    if is_refused:
        st.rerun()
    return is_confirmed


def _button(
    run: Run | archive_file.Archived,
    key: str,
    label: str,
    do: Callable[[], object],
    help: str | None = None,
    confirm: bool = True,
    mark: str = "",
    question: str = "",
) -> None:
    """Draw a button that acts on a run.

    Args:
        run: The run.
        key: Unique on the page.
        label: Of the button.
        do: The action.
        help: Of the button.
        confirm: Whether to ask if the run belongs to another person.
        mark: What the button is for, "" for the run.
        question: Asked of everyone, "" for none.
    """
    mark = mark or run.id
    if confirm and not needs_no_confirmation(run):
        question = f"This run belongs to {plain(visitor.name_of(run.owner))}. {question}".rstrip()
    if not confirmed_button(label, f"{key}_{label.lower().replace(' ', '_')}_{mark}", question, help):
        return
    try:
        do()
    except EXPECTED_ERRORS as error:
        st.session_state[_ERROR] = mark, visitor.sentence(error)
    queries.refresh()
    st.rerun()
