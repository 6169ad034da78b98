"""The switches of a run's experts, with the λ slider and masks to apply, and the state that a viewer has set.

The views What if and Predict share one state per run, which the URL carries (`?off=`, `?scale=`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape

import streamlit as st

from mlae_lab.core.expert_state import Cell, existing, off_text, read_off, through_mask
from mlae_lab.core.patterns import paper_patterns
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, terms
from mlae_lab.ui.expert_switch import expert_switch

MAX_SCALE = 2.0
_OWN = "None (the run's mask)"


@dataclass
class State:
    """The state that one viewer has set.

    Args:
        off: Experts that are off.
        scale: Factor of all λ.
        rev: Increases whenever `off` changes by anything but a click on the switches.
        ignored: Experts of an applied mask that the run does not have.
        trouble: What is wrong with the link, "" if nothing is.
        result: Newest result of What if, shown dimmed while the next one is computed.
    """

    off: tuple[Cell, ...] = ()
    scale: float = 1.0
    rev: int = 0
    ignored: tuple[str, ...] = ()
    trouble: str = ""
    result: dict | None = None


def state_of(plan: MaskPlan, query: Mapping[str, str]) -> State:
    """Return the state of a link; invalid parts are reported in `trouble` and left out."""
    state = State()
    try:
        state.off = tuple(sorted(set(read_off(plan, query.get("off", "")))))
    except PlanError as error:
        state.trouble = f"The link does not fit this run: {error}."
    try:
        scale = float(query.get("scale", "1"))
        state.scale = min(MAX_SCALE, max(0.0, scale)) if scale == scale else 1.0
    except ValueError:
        state.trouble = state.trouble or "The link does not fit this run: scale must be a number from 0 to 2."
    return state


def state_key(run: Run) -> str:
    """Return the session key of this viewer's State of a run, created on the first visit and when a link is opened."""
    key = f"whatif_{run.id}"
    query = {name: st.query_params[name] for name in ("off", "scale") if name in st.query_params}
    state = st.session_state.get(key)
    if state is None or query != st.session_state.get(f"{key}_link", query):  # first visit, or a link was opened
        rev = state.rev + 1 if state is not None else 0
        state = st.session_state[key] = state_of(run.config.plan, query)
        state.rev = rev
        st.session_state[f"{key}_scale"] = state.scale
        st.session_state[f"{key}_mask"] = _OWN
    st.session_state.setdefault(f"{key}_scale", state.scale)  # Streamlit drops the value of a slider that was not drawn
    return key


def switches(run: Run, key: str, state: State, image_counts: Sequence[int] = ()) -> None:
    """Draw the switches in a fragment and write their state into the URL. image_counts: numbers of images to offer."""
    plan = run.config.plan

    def clicked(off: tuple[Cell, ...]) -> None:
        state.off, state.ignored, state.trouble = off, (), ""

    def scaled() -> None:
        state.scale = float(st.session_state[f"{key}_scale"])

    def masked() -> None:
        mask = masks[st.session_state[f"{key}_mask"]]
        if mask is None:
            state.off, state.ignored = (), ()
        else:
            factors, state.ignored = through_mask(plan, mask)
            state.off = tuple(cell for cell in existing(plan) if not factors[cell[0]][cell[1]])
        state.rev += 1

    def reset() -> None:
        state.off, state.scale, state.ignored, state.trouble = (), 1.0, (), ""
        state.rev += 1
        st.session_state[f"{key}_scale"], st.session_state[f"{key}_mask"] = 1.0, _OWN

    masks = _masks()
    expert_switch(plan, state.off, state.rev, clicked, f"{key}_switch", state.scale)
    page.note(
        "Click an expert to switch it off, drag over several, or click a layer's label for the layer. Dashed: off. "
        "Crossed out: no expert in this run."
    )
    st.slider(
        "Scale all λ by", 0.0, MAX_SCALE, step=0.05, key=f"{key}_scale", on_change=scaled,
        help=terms.help_text("coefficient"),
    )  # fmt: skip
    left, right = st.columns([3, 2])
    left.selectbox("Apply a mask", list(masks), key=f"{key}_mask", on_change=masked, help=terms.help_text("mask"))
    if image_counts:
        right.selectbox(
            "Images", image_counts, key=f"{key}_images", help="Evaluation images, spread evenly over the split."
        )
    st.button("Reset", key=f"{key}_reset", on_click=reset, disabled=not state.off and state.scale == 1.0)
    _write_query(plan, key, state)


def ignored_note(state: State) -> None:
    """Name the experts of an applied mask that the run does not have."""
    if state.ignored:
        names = "; ".join(state.ignored[:4]) + (f" and {len(state.ignored) - 4} more" if len(state.ignored) > 4 else "")
        page.note(escape(f"The mask also keeps experts that this run does not have; they are ignored: {names}."))


def _masks() -> dict[str, MaskPlan | None]:
    """Return the masks that can be applied, by label."""
    masks: dict[str, MaskPlan | None] = {_OWN: None}
    seen = set()
    for pattern in paper_patterns():
        if pattern.plan.keep not in seen:  # drop rates have no effect after training
            seen.add(pattern.plan.keep)
            masks[pattern.title] = pattern.plan
    with suppress(*EXPECTED_ERRORS):  # the paper's masks remain available
        masks |= {f"Saved: {entry.name}": entry.plan for entry in queries.store().plans()}
    return masks


def _write_query(plan: MaskPlan, key: str, state: State) -> None:
    """Write the state into the URL."""
    query = {"off": off_text(plan, state.off)} if state.off else {}
    if state.scale != 1.0:
        query["scale"] = f"{state.scale:g}"
    for name in ("off", "scale"):
        if name in query and st.query_params.get(name) != query[name]:
            st.query_params[name] = query[name]
        elif name not in query and name in st.query_params:
            del st.query_params[name]
    st.session_state[f"{key}_link"] = query
