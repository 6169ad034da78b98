"""The experts of a run as switches: an inline component. A click or drag shows at once, before its effect is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from mlae_lab.core.expert_state import Cell, existing
from mlae_lab.core.plan import MaskPlan

_HERE = Path(__file__).parent
_COMPONENT = component(
    "mlae_lab_expert_switch",
    html='<div class="es"></div>',
    css=(_HERE / "expert_switch.css").read_text(),
    js=(_HERE / "expert_switch.js").read_text(),
)


def switched(plan: MaskPlan, rev: int, edit: object) -> tuple[Cell, ...] | None:
    """The experts that are off after a click in the browser; None for an edit of an older state or a malformed one."""
    if not isinstance(edit, dict) or edit.get("rev") != rev or not isinstance(edit.get("off"), list):
        return None
    known = set(existing(plan))
    off = {tuple(cell) for cell in edit["off"] if isinstance(cell, list) and all(type(n) is int for n in cell)}
    return tuple(sorted(off)) if off <= known and len(off) == len(edit["off"]) else None


def expert_switch(
    plan: MaskPlan,
    off: Sequence[Cell],
    rev: int,
    on_switch: Callable[[tuple[Cell, ...]], None],
    key: str,
    fill: float = 1.0,
) -> None:
    """Draw the switches.

    Args:
        plan: The mask of the run.
        off: Experts that are off: (row, column) from 0.
        rev: Increased whenever Python replaces `off`.
        on_switch: Called with the new `off` before the page runs again.
        key: Unique on the page.
        fill: Fill of an expert that is on, 0 to 1.
    """

    def commit() -> None:
        state = st.session_state.get(key)
        new = switched(plan, rev, state.get("edit") if state is not None else None)
        if new is not None:
            on_switch(new)

    _COMPONENT(
        key=key,
        data={
            "rev": rev,
            "keep": [[int(kept) for kept in row] for row in plan.keep],
            "off": [list(cell) for cell in off],
            "labels": list(plan.row_labels),
            "fill": max(0.12, min(1.0, abs(fill))) if fill else 0.0,
        },
        default={"edit": None},
        on_edit_change=commit,
        height="content",
    )
