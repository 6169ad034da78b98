"""A second run beside the one that is looked into (`?other=`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from mlae_lab.runs.store import Run

OTHER = "other"


def other_run(candidates: Sequence[Run], label: str, words: Callable[[Run], str], nothing: str) -> Run | None:
    """Choose one of several runs, or none; the address keeps the choice.

    words: what a run is called in the list. nothing: what the list says for no run.
    """
    known = {run.id: run for run in candidates}
    asked = st.query_params.get(OTHER, "")
    chosen = asked if asked in known else ""
    key = f"beside_{label}_{chosen}"  # a new widget for each link: its run counts, not an earlier choice

    def keep() -> None:
        if st.session_state[key]:
            st.query_params[OTHER] = st.session_state[key]
        else:
            st.query_params.pop(OTHER, None)

    picked = st.selectbox(
        label,
        ["", *known],
        index=0 if not chosen else list(known).index(chosen) + 1,
        format_func=lambda name: words(known[name]) if name else nothing,
        key=key,
        on_change=keep,
    )
    return known.get(picked)
