"""Fetching, seen from a page: what it is, how large, under which terms; then a bar that moves.

The download is a process of its own (`data.fetching`), so it goes on when the page is left.
"""

from __future__ import annotations

import contextlib
from html import escape

import streamlit as st

from mlae_lab.core import hosts
from mlae_lab.core.units import format_bytes
from mlae_lab.data import fetching
from mlae_lab.data.progress import FetchError, Progress
from mlae_lab.locations import data_folder
from mlae_lab.ui import page
from mlae_lab.ui.markdown import plain, sentence

_PHASES = {
    "asking": "Asking the host", "waiting": "Waiting for another fetch of the same", "downloading": "Downloading",
    "checking": "Checking", "unpacking": "Unpacking",
}  # fmt: skip


def fetch_panel(name: str) -> None:
    """What can be fetched under a name, with its button; while it runs, its progress. Nothing for an unknown name."""
    try:
        found = [hosts.remote(name)]
    except hosts.HostError:
        return
    with contextlib.suppress(hosts.HostError):
        found.append(hosts.remote(name + hosts.SMALLER))
    running = [one for one in found if fetching.watch(one.name, data_folder()).status == "running"]
    if running:
        _watched(running[0])
        return
    for one in found:
        _offer(one)


def _offer(one: hosts.Remote) -> None:
    size = "size told by its host" if one.size_bytes is None else format_bytes(one.size_bytes)
    with st.container(border=True):
        st.html(
            f'<div class="lab-choice"><b>{escape(one.repo)}, {size}</b><span>{escape(one.citation)}. Licence: '
            f"{escape(one.licence)}. {escape(one.note[:1].upper() + one.note[1:])}</span><small>From "
            f"{escape(one.page)} to "
            f"{escape(str(data_folder() / one.subfolder))}</small></div>"
        )
        state = fetching.watch(one.name, data_folder())
        if state.status in ("failed", "lost"):
            st.error(plain(sentence(state.reason or "it ended without a word")))
        elif state.status == "cancelled":
            page.note("Cancelled; what was fetched is kept, and the next try goes on from there.")
        agreed = st.checkbox(
            f"I have read the licence and want to download this ({size}).", key=f"fetch_agree_{one.name}"
        )
        label = "Fetch it" if state.status == "idle" else "Go on fetching"
        if st.button(label, key=f"fetch_start_{one.name}", disabled=not agreed):
            try:
                fetching.start(one.name, data_folder())
            except FetchError as error:
                st.error(plain(sentence(error)))
                return
            st.rerun()


def _watched(one: hosts.Remote) -> None:
    @st.fragment(run_every=0.5)
    def moving() -> None:
        state = fetching.watch(one.name, data_folder())
        if state.status != "running":
            st.rerun()  # the whole page: the task is ready now, or the panel has something to say
        told = state.progress or Progress("asking")
        share = told.done / told.total if told.total else 0.0
        st.progress(min(1.0, share), f"{_PHASES[told.phase]} {told.file}")
        total = f" of {format_bytes(told.total)}" if told.total else ""
        page.facts(
            ("So far", f"{format_bytes(told.done)}{total}"),
            ("Speed", f"{format_bytes(told.speed)}/s" if told.speed else "–"),
            ("Time left", page.seconds_text(told.seconds_left)),
        )
        if st.button(
            "Cancel", key=f"fetch_cancel_{one.name}", help="Keeps what it has; the next try goes on from there."
        ):
            fetching.cancel(one.name, data_folder())

    moving()
