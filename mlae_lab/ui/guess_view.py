"""The widgets for a guess, one for each form (`lessons.guess`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from mlae_lab.lessons.guess import Arrow, Cells, Curve, Guess, Row, Sliders, Verdict
from mlae_lab.ui.bundle import bundled

_HTML = '<div class="gb"><div class="gb-board"></div><div class="gb-status" role="status"></div></div>'
_COMPONENT = bundled("guess_board", ("guess_board.js",), css="guess_board.css", markup=_HTML, isolated=True)
_ARROWS = {"up": "↑ It rises", "down": "↓ It falls"}


def guess_widget(guess: Guess, draft: Any, given: float, key: str, on_draft: Callable[[Any], None]) -> Any:
    """Draw the widget and return the guess, None while it is incomplete.

    Args:
        guess: The form.
        draft: The guess so far, checked; None for none.
        given: The value of the given point of a curve.
        key: Unique on the page.
        on_draft: Called with a new guess of the board, None for an incomplete one.
    """
    match guess:
        case Sliders(handles=handles, low=low, high=high, unit=unit):
            middle = (low + high) / 2
            values = [
                st.slider(f"{label}, {unit}", low, high, draft[i] if draft else middle, 1.0, "%.0f", f"{key}_{arm}")
                for i, (arm, label) in enumerate(handles)
            ]
            return guess.checked(values) if draft or set(values) != {middle} else None  # not moved: no guess
        case Arrow():
            chosen = st.radio(
                "Your guess", list(_ARROWS), None if draft is None else list(_ARROWS).index(draft),
                _ARROWS.__getitem__, key=f"{key}_arrow",
            )  # fmt: skip
            return guess.checked(chosen)
        case Verdict(labels=labels, max_seeds=most):
            names = {"A": f"{labels[0]} is better", "B": f"{labels[1]} is better", "cannot tell": "One cannot tell"}
            chosen = st.radio(
                "Your guess", list(names), None if draft is None else list(names).index(draft[0]),
                names.__getitem__, key=f"{key}_verdict",
            )  # fmt: skip
            seeds = st.slider("Seeds you would want to see", 1, most, draft[1] if draft else 3, key=f"{key}_seeds")
            return guess.checked([chosen, seeds])
        case _:
            _board(guess, draft, given, key, on_draft)
            return draft


def _board(guess: Row | Curve | Cells, draft: Any, given: float, key: str, on_draft: Callable[[Any], None]) -> None:
    message: dict[str, Any] = {"mode": guess.kind, "rev": 0, "value": draft, "rows": 0, "columns": 0, "count": 0}
    message |= {"x": [], "given": 0.0, "low": 0.0, "high": 0.0, "x_label": ""}
    match guess:
        case Row(arms=arms, columns=columns):
            message |= {"rows": len(arms), "columns": columns}
        case Cells(rows=rows, columns=columns, count=count):
            message |= {"rows": rows, "columns": columns, "count": count}
        case Curve(x=x, low=low, high=high, x_label=x_label):
            message |= {"x": list(x), "given": round(given, 1), "low": low, "high": high, "x_label": x_label}

    def commit() -> None:
        state = st.session_state.get(key)
        sent = state.get("value") if state is not None else None
        on_draft(guess.checked(sent.get("value")) if isinstance(sent, dict) else None)

    _COMPONENT(key=key, data=message, default={"value": None}, on_value_change=commit, height="content")
