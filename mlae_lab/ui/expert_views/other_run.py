"""Selection of a second run to compare with (`?other=`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from mlae_lab.runs.store import Run

OTHER = "other"


def other_run(
    candidates: Sequence[Run],
    label: str,
    run_label: Callable[[Run], str],
    nothing: str,
    default: str = "",
    explanation: str | None = None,
) -> Run | None:
    """Let the user choose one of several runs, or none; the URL keeps the choice.

    Args:
        candidates: The runs to choose from.
        label: Of the list.
        run_label: Returns the label of a run in the list.
        nothing: Label of the choice of no run.
        default: Id of the run that a URL without `?other=` selects, "" for none.
        explanation: Help text of the list.
    """
    runs = {run.id: run for run in candidates}
    requested = st.query_params.get(OTHER, default)
    chosen = requested if requested in runs else ""
    key = f"other_{label}_{chosen}"  # a new widget for each link, so that its run replaces an earlier choice

    def keep() -> None:
        if st.session_state[key] or default:
            st.query_params[OTHER] = st.session_state[key]
        else:
            st.query_params.pop(OTHER, None)

    selected = st.selectbox(
        label,
        ["", *runs],
        index=0 if not chosen else list(runs).index(chosen) + 1,
        format_func=lambda name: run_label(runs[name]) if name else nothing,
        key=key,
        on_change=keep,
        help=explanation,
    )
    return runs.get(selected)
