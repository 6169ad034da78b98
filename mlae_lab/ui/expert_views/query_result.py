"""Ask a run something from a page: the answer if it is there, else what is being waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from mlae_lab.runs import probe
from mlae_lab.runs.store import Run
from mlae_lab.ui import queries
from mlae_lab.ui.markdown import plain, sentence

AT_ONCE_SECONDS = 3.0  # a page waits so long for an answer before it draws that it waits
POLL_SECONDS = 1.0


def answer(run: Run, query: str, arguments: Mapping[str, Any], key: str, waiting: str) -> dict | None:
    """The answer to a question (`training.queries`); None while there is none: then the page says why, how far it is,
    and draws itself again when it is there.

    key: unique on the page. waiting: what is being found out, as the middle of a sentence: "the accuracy without it".
    """
    found = probe.ask(queries.store(), run.id, query, arguments, AT_ONCE_SECONDS)
    if found.state == "done":
        return found.value
    if found.state == "failed":
        _failed(found, key)
        return None

    @st.fragment(run_every=POLL_SECONDS)
    def wait() -> None:
        now = probe.ask(queries.store(), run.id, query, arguments, 0.1)
        if now.is_over:
            st.rerun()
        share = now.done / now.total if now.total else 0.0
        st.progress(min(1.0, share), _words(now, waiting))

    wait()
    return None


def _words(found: probe.Answer, waiting: str) -> str:
    if found.state == "loading":
        return f"Loading the run, to find {waiting}"
    if found.state == "waiting":
        return f"Waiting: {found.reason}" if found.reason else f"Waiting to find {waiting}"
    return f"Finding {waiting}" + (f": {found.done} of {found.total}" if found.total else "")


def _failed(found: probe.Answer, key: str) -> None:
    reason = found.reason or "no answer came"
    st.warning(plain(sentence(reason)))
    st.button("Ask again", key=f"{key}_again")
