"""Fetching from a page: source, size and licence, then a progress bar.

The download is a separate process (`data.fetching`), so it continues when the page is closed.
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
    "asking": "Contacting the host",
    "waiting": "Waiting for another fetch of the same files",
    "downloading": "Downloading",
    "checking": "Checking",
    "unpacking": "Unpacking",
}


def fetch_panel(name: str) -> None:
    """Draw what can be fetched under a name, with a button or the progress; nothing for an unknown name."""
    try:
        remotes = [hosts.remote(name)]
    except hosts.HostError:
        return
    with contextlib.suppress(hosts.HostError):
        remotes.append(hosts.remote(name + hosts.SMALLER))
    running = [remote for remote in remotes if fetching.watch(remote.name, data_folder()).status == "running"]
    if running:
        _show_progress(running[0])
        return
    for remote in remotes:
        _offer_fetch(remote)


def _offer_fetch(remote: hosts.Remote) -> None:
    size = "size unknown" if remote.size_bytes is None else format_bytes(remote.size_bytes)
    with st.container(border=True):
        st.html(
            f'<div class="lab-choice"><b>{escape(remote.repo)}, {size}</b><span>{escape(remote.citation)}. Licence: '
            f"{escape(remote.licence)}. {escape(remote.note[:1].upper() + remote.note[1:])}</span><small>From "
            f"{escape(remote.page)} to "
            f"{escape(str(data_folder() / remote.subfolder))}</small></div>"
        )
        state = fetching.watch(remote.name, data_folder())
        if state.status in ("failed", "lost"):
            st.error(plain(sentence(state.reason or "it exited without reporting a result")))
        elif state.status == "cancelled":
            page.note("Cancelled. The fetched part is kept, and the next attempt continues from it.")
        agreed = st.checkbox(
            f"I have read the licence and want to download this ({size}).", key=f"fetch_agree_{remote.name}"
        )
        label = "Fetch" if state.status == "idle" else "Continue fetching"
        if st.button(label, key=f"fetch_start_{remote.name}", disabled=not agreed):
            try:
                fetching.start(remote.name, data_folder())
            except FetchError as error:
                st.error(plain(sentence(error)))
                return
            st.rerun()


def _show_progress(remote: hosts.Remote) -> None:
    @st.fragment(run_every=0.5)
    def panel() -> None:
        state = fetching.watch(remote.name, data_folder())
        if state.status != "running":
            st.rerun()  # the whole page: the task is ready now, or the panel has a message
        progress = state.progress or Progress("asking")
        fraction = progress.done / progress.total if progress.total else 0.0
        st.progress(min(1.0, fraction), f"{_PHASES[progress.phase]} {progress.file}")
        total = f" of {format_bytes(progress.total)}" if progress.total else ""
        page.facts(
            ("Fetched", f"{format_bytes(progress.done)}{total}"),
            ("Speed", f"{format_bytes(progress.speed)}/s" if progress.speed else "–"),
            ("Time left", page.seconds_text(progress.seconds_left)),
        )
        if st.button(
            "Cancel",
            key=f"fetch_cancel_{remote.name}",
            help="The fetched part is kept, and the next attempt continues from it.",
        ):
            fetching.cancel(remote.name, data_folder())

    panel()
