"""The buttons of a run. Which there are follows from its status now; nobody stops another's run by accident."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress

import streamlit as st

from mlae_lab.core.config import RunConfig
from mlae_lab.network import is_loopback
from mlae_lab.runs import archive_file, commands, race
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.library import SavedPlan
from mlae_lab.runs.status import RESUMABLE, Status
from mlae_lab.runs.store import Run
from mlae_lab.ui import queries, visitor
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import go

_CONFIRM_SECONDS = 20.0
_TWICE_SECONDS = 3.0  # two clicks of one hand on one button
_COMPLAINT, _ASKED, _STARTED = "action_complaint", "action_asked", "action_started"


def start(config: RunConfig) -> str:
    """Start a run of this browser's person, and give its name; a double click starts one."""
    before = st.session_state.get(_STARTED)
    if before and before[0] == config and time.monotonic() - before[1] < _TWICE_SECONDS:
        return before[2]
    run = commands.launch(queries.store(), config, visitor.current()).id
    queries.refresh()
    st.session_state[_STARTED] = (config, time.monotonic(), run)
    return run


def start_and_watch(config: RunConfig) -> None:
    """Start a run and go to it; where the store does not take it, say so on this page."""
    try:
        run = start(config)
    except EXPECTED_ERRORS as error:
        st.error(visitor.sentence(error))
        return
    go("train", run=run)


def complaint(of: str | None = None, elsewhere: Container[str] = ()) -> None:
    """Show what the last click could not do, once, where the click was. of: a run, or another mark of buttons, whose
    clicks are meant, None for any; elsewhere: those that show theirs themselves."""
    if (said := st.session_state.get(_COMPLAINT)) and of in (None, said[0]) and said[0] not in elsewhere:
        del st.session_state[_COMPLAINT]
        st.warning(said[1])


def controls(run: Run, key: str) -> None:
    """The buttons for where a run stands, in the container that is open. key: unique on the page."""
    if run.status is Status.QUEUED:
        _button(run, key, "Cancel", lambda: commands.stop(queries.store(), run.id))
    elif not run.status.is_over:
        keep = "Finishes the step, keeps adapter and checkpoint, and measures once more if that is quick."
        if run.status is not Status.STOPPING:
            _button(run, key, "Stop and keep", lambda: commands.stop(queries.store(), run.id), keep)
        now = "Ends the process at once; its last checkpoint stays."
        _button(run, key, "Stop now", lambda: commands.stop(queries.store(), run.id, now=True), now)
    else:
        if run.status in RESUMABLE:
            known = queries.store().paths(run.id).checkpoints()
            begin = "where it went on from" if run.relation == "branched" else "at its first step"
            where = "Goes on from its last checkpoint." if known else f"It had no checkpoint yet: begins {begin}."
            _button(run, key, "Resume", lambda: commands.resume(queries.store(), run.id), where, mind=False)
        if st.button(
            "Retry" if run.status in RESUMABLE else "Duplicate",
            key=f"{key}_again_{run.id}",
            help="The same run once more, as a run of its own, from "
            + ("the checkpoint that it went on from." if run.relation == "branched" else "its first step."),
        ):
            try:
                made = commands.rerun(queries.store(), run.id, visitor.current())
            except EXPECTED_ERRORS as error:
                st.session_state[_COMPLAINT] = run.id, visitor.sentence(error)
                st.rerun()
            go("train", run=made.id)


def reorder(run: Run, key: str, alone: bool) -> None:
    """Move a waiting run among its owner's. alone: there is nothing to move it past."""
    if alone:
        return
    with st.popover("Move", key=f"{key}_move_{run.id}"):
        for label, to in (("First", "first"), ("Up", "up"), ("Down", "down"), ("Last", "last")):
            _button(run, key, label, lambda to=to: queries.store().reorder(run.id, to))


def more(run: Run, key: str) -> None:
    """What is done with a run that is over: save it as a file, put it away, delete it."""
    with st.popover("More", key=f"{key}_more_{run.id}"):
        st.download_button(
            "Save as a file",
            lambda: _packed(run.id),
            file_name=f"{run.id}{archive_file.SUFFIX}",
            mime="application/zip",
            key=f"{key}_export_{run.id}",
            on_click="ignore",
            help="Settings, events, log, adapter and checkpoint in one file; Runs takes it in on another machine.",
        )
        _button(
            run,
            key,
            "Put away",
            lambda: archive_file.archive(queries.store(), run.id),
            "Out of the list, into one file; it can come back.",
        )
        _button(run, key, "Delete", lambda: commands.delete(queries.store(), run.id), "With its files, for good.")


def put_away(entry: archive_file.Archived) -> None:
    """What is done with a run that was put away: bring it back, or delete it."""
    with st.container(horizontal=True, gap="small"):
        if not entry.trouble:
            _button(
                entry,
                "runs",
                "Bring back",
                lambda: archive_file.restore(queries.store(), entry.id),
                mind=False,
                mark=away(entry),
            )
        _button(
            entry,
            "runs",
            "Delete",
            lambda: archive_file.discard(queries.store(), entry.id),
            "With its file, for good.",
            mark=away(entry),
        )


def away(entry: archive_file.Archived) -> str:
    """The mark of the buttons of a run that was put away: one that is brought back has others."""
    return f"away_{entry.id}"


def _packed(run_id: str) -> bytes:
    file = queries.store().paths(run_id).folder / f"export{archive_file.SUFFIX}"
    try:
        archive_file.export(queries.store(), run_id, file)
        return file.read_bytes()
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def is_mine(run: Run | archive_file.Archived | SavedPlan) -> bool:
    """Whether a person may act on a run without being asked: it is theirs, nobody's, or this machine's only user's."""
    if run.owner in ("", visitor.current()):
        return True
    try:
        return run.owner == f"cli:{getpass.getuser()}" and is_loopback(st.get_option("server.address"))
    except (KeyError, OSError):
        return False


def stop_all(runs: Sequence[Run], key: str, label: str) -> None:
    """One button that ends several runs together; nothing where all are over. key: unique on the page."""
    going = [run for run in runs if not run.status.is_over]
    if not going:
        return
    others = next((run for run in going if not is_mine(run)), None)
    _button(
        others or going[0],
        key,
        label,
        lambda: race.stop(queries.store(), [queries.store().run(run.id) for run in going]),
        "Cancels what waits; what runs finishes its step and keeps adapter and checkpoint.",
        about="A run of this race" if others and len(going) > 1 else "This run",
        mark="-".join(run.id for run in runs),  # the same when one of them ends, else a click would be lost
    )


def _button(
    run: Run | archive_file.Archived,
    key: str,
    label: str,
    do: Callable[[], object],
    help: str | None = None,
    mind: bool = True,
    about: str = "This run",
    mark: str = "",
) -> None:
    mark = mark or run.id
    if not st.button(label, key=f"{key}_{label.lower().replace(' ', '_')}_{mark}", help=help):
        return
    if mind and not is_mine(run):
        asked = st.session_state.get(_ASKED)
        if not asked or asked[:2] != (mark, label) or time.monotonic() - asked[2] > _CONFIRM_SECONDS:
            st.session_state[_ASKED] = (mark, label, time.monotonic())
            whose = visitor.name_of(run.owner)
            said = f"{about} is not yours but of {plain(whose)}: press “{label}” once more if you mean it."
            st.session_state[_COMPLAINT] = mark, said
            st.rerun()
    st.session_state.pop(_ASKED, None)
    try:
        do()
    except EXPECTED_ERRORS as error:
        st.session_state[_COMPLAINT] = mark, visitor.sentence(error)
    queries.refresh()
    st.rerun()
