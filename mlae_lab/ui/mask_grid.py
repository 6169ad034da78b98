"""The painted mask: an inline component that edits a plan and hands it back.

The browser owns the stroke, this side owns the document: `rev` rises only when Python replaces
the plan (a pattern button, a link), and an edit that names an older `rev` is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import streamlit as st

from mlae_lab.core.plan import MaskPlan, PlanError

_HERE = Path(__file__).parent
_COMPONENT = st.components.v2.component(
    "mlae_lab_mask_grid",
    html='<div class="mg"></div>',
    css=(_HERE / "mask_grid.css").read_text(),
    js=(_HERE / "mask_grid.js").read_text(),
)


def edited(plan: MaskPlan, rev: int, edit: object) -> MaskPlan | None:
    """The plan after an edit from the browser; None if the edit is stale, malformed or changes nothing.

    What a browser sends is not trusted: it must be an edit of this `rev` and make a valid plan.
    """
    if not isinstance(edit, dict) or edit.get("rev") != rev:
        return None
    try:
        new = replace(plan, keep=edit.get("keep"), drop_rate=edit.get("rate"))
    except (PlanError, TypeError):
        return None
    same_shape = (new.rows, new.columns) == (plan.rows, plan.columns)
    return new if same_shape and new != plan else None


def mask_grid(plan: MaskPlan, rev: int, on_edit: Callable[[MaskPlan], None], key: str) -> None:
    """Draw the editor.

    rev: rises whenever Python replaces the plan. on_edit: called with the new plan, before the
    page runs again. key: unique on the page.
    """

    def committed() -> None:
        state = st.session_state.get(key)
        new = edited(plan, rev, state.get("edit") if state is not None else None)
        if new is not None:
            on_edit(new)

    _COMPONENT(
        key=key,
        data={
            "rev": rev,
            "keep": [[int(k) for k in row] for row in plan.keep],
            "rate": [list(row) for row in plan.drop_rate],
            "labels": [str(i + 1) for i in range(plan.rows)],
        },
        default={"edit": None},
        on_edit_change=committed,
        height="content",
    )
