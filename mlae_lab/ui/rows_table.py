"""A table of rows with a check box each: the arms of a study, the runs of a store (`rows_table.js`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import streamlit as st

from mlae_lab.ui.bundle import bundled

_COMPONENT: Any = bundled(
    "rows_table", ("rows_table.js",), css="rows_table.css", markup='<div class="rows-table"></div>', isolated=True
)


def rows_table(data: Mapping[str, Any], key: str, on_sort: Callable[[str], None] = lambda column: None) -> Any:
    """Draw the table.

    Args:
        data: A `Message` of the script.
        key: Unique on the page.
        on_sort: Called with the column that was clicked, where the server sorts.

    Returns:
        Its `opened` is the id of the link that was just clicked, None for none.
    """

    def sort() -> None:
        if isinstance(column := st.session_state[key].get("sorted"), str):
            on_sort(column)

    return _COMPONENT(
        key=key,
        data=data,
        default={"marked": None},
        on_marked_change=lambda: None,
        on_opened_change=lambda: None,
        on_sorted_change=sort,
        height="content",
    )


def marked_rows(key: str, ids: Collection[str], before: frozenset[str]) -> frozenset[str]:
    """The rows that are marked in the table with this key.

    Args:
        key: Of the table.
        ids: Of its rows.
        before: Those that are marked before the table is drawn first.
    """
    state = st.session_state.get(key)
    return named(state.get("marked") if state is not None else None, ids, before)


def named(sent: object, ids: Collection[str], before: frozenset[str]) -> frozenset[str]:
    """The rows that a browser has marked; those of before if what it sends is malformed."""
    if not isinstance(sent, list) or not all(isinstance(name, str) for name in sent):
        return before & frozenset(ids)
    return frozenset(sent) & frozenset(ids)
