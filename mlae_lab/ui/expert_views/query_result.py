"""Query a run from a page: the result, or the status of a query that is not done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from mlae_lab.runs import probe
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import queries
from mlae_lab.ui.markdown import plain, sentence

AT_ONCE_SECONDS = 3.0  # how long a page waits for a result before it shows a status
POLL_SECONDS = 1.0


def answer(run: Run, query: str, arguments: Mapping[str, Any], key: str, activity: str) -> dict | None:
    """Return the result of a query (`training.queries`), or None while there is none.

    Without a result the page shows the status and the progress, and reruns when the query is over.

    Args:
        run: The run to query.
        query: Name of the query.
        arguments: Its arguments.
        key: Unique on the page.
        activity: What the query does, as a label of the progress: "Evaluating random masks".
    """
    reply = probe.ask(queries.store(), run.id, query, arguments, AT_ONCE_SECONDS)
    if reply.state == "done":
        return reply.value
    if reply.state == "failed":
        _failed(reply, key)
        return None

    @st.fragment(run_every=POLL_SECONDS)
    def wait() -> None:
        try:
            reply = probe.ask(queries.store(), run.id, query, arguments, 0.1)
        except StoreError:  # the run was deleted or archived meanwhile: the page says so
            queries.refresh()
            st.rerun()
        if reply.is_over:
            st.rerun()
        share = reply.done / reply.total if reply.total else 0.0
        st.progress(min(1.0, share), status_text(reply, activity))

    wait()
    return None


def status_text(reply: probe.Answer, activity: str) -> str:
    """What a query that is not over does. activity: what it will do, as in `answer`."""
    if reply.state == "loading":
        return f"Loading the run. Next: {activity[:1].lower()}{activity[1:]}"
    if reply.state == "waiting":
        return f"Waiting: {reply.reason}" if reply.reason else f"Queued. Next: {activity[:1].lower()}{activity[1:]}"
    return activity + (f": {reply.done} of {reply.total}" if reply.total else "")


def _failed(reply: probe.Answer, key: str) -> None:
    reason = reply.reason or "the query returned no result"
    st.warning(plain(sentence(reason)))
    st.button("Retry", key=f"{key}_again")
