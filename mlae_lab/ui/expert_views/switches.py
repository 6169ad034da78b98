"""The switches of a run's experts with the λ slider and the masks to put over it, and what a viewer has set with them.

The views What if and Predict share one state for each run, which the address carries (`?off=`, `?scale=`).
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
from mlae_lab.ui import page, queries
from mlae_lab.ui.expert_switch import expert_switch

MAX_SCALE = 2.0
_OWN = "The run's own"


@dataclass
class State:
    """What one viewer has set. off: experts that are off; scale: what every λ counts times; rev: rises whenever
    something else than a click on the switches changed `off`; ignored: what a mask asked for in vain."""

    off: tuple[Cell, ...] = ()
    scale: float = 1.0
    rev: int = 0
    ignored: tuple[str, ...] = ()
    trouble: str = ""


def state_of(plan: MaskPlan, query: Mapping[str, str]) -> State:
    """The state that a link names; what it names wrongly is said and left out."""
    state = State()
    try:
        state.off = tuple(sorted(set(read_off(plan, query.get("off", "")))))
    except PlanError as error:
        state.trouble = f"The link does not fit this run: {error}."
    try:
        scale = float(query.get("scale", "1"))
        state.scale = min(MAX_SCALE, max(0.0, scale)) if scale == scale else 1.0
    except ValueError:
        state.trouble = state.trouble or "The link does not fit this run: its scale is no number."
    return state


def opened(run: Run) -> str:
    """The key under which this viewer's State of a run lies in the session: made the first time, and anew when a link
    to another one was followed."""
    key = f"whatif_{run.id}"
    given = {name: st.query_params[name] for name in ("off", "scale") if name in st.query_params}
    state = st.session_state.get(key)
    if state is None or given != st.session_state.get(f"{key}_link", given):  # the first time, or a link was followed
        rev = state.rev + 1 if state is not None else 0
        state = st.session_state[key] = state_of(run.config.plan, given)
        state.rev = rev
        st.session_state[f"{key}_scale"] = state.scale
        st.session_state[f"{key}_mask"] = _OWN
    st.session_state.setdefault(f"{key}_scale", state.scale)  # a slider that was out of sight has forgotten it
    return key


def switches(run: Run, key: str, state: State, counts: Sequence[int] = ()) -> None:
    """Draw the switches in a fragment and write their state into the address. counts: numbers of images to choose."""
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
    page.note("Press an expert to switch it off, a layer's number for all of it. Dashed: off. Struck: not in this run.")
    st.slider("Every λ counts times", 0.0, MAX_SCALE, step=0.05, key=f"{key}_scale", on_change=scaled)
    one, two = st.columns([3, 2])
    one.selectbox("Put a mask over it", list(masks), key=f"{key}_mask", on_change=masked)
    if counts:
        two.selectbox("Images", counts, key=f"{key}_images", help="Evaluation images, spread evenly over the split.")
    st.button("Reset", key=f"{key}_reset", on_click=reset, disabled=not state.off and state.scale == 1.0)
    _tell_address(plan, key, state)


def ignored_note(state: State) -> None:
    """Say what the mask that was put over the run asked for in vain."""
    if state.ignored:
        shown = "; ".join(state.ignored[:4]) + (f" and {len(state.ignored) - 4} more" if len(state.ignored) > 4 else "")
        page.note(escape(f"The mask also keeps experts that this run does not have, and they are ignored: {shown}."))


def _masks() -> dict[str, MaskPlan | None]:
    """Masks to put over a run, by what they are called."""
    found: dict[str, MaskPlan | None] = {_OWN: None}
    seen = set()
    for pattern in paper_patterns():
        if pattern.plan.keep not in seen:  # drop rates do not count after training
            seen.add(pattern.plan.keep)
            found[pattern.title] = pattern.plan
    with suppress(*EXPECTED_ERRORS):  # the paper's masks can be chosen all the same
        found |= {f"Saved: {entry.name}": entry.plan for entry in queries.store().plans()}
    return found


def _tell_address(plan: MaskPlan, key: str, state: State) -> None:
    """Write the state into the page's address."""
    wanted = {"off": off_text(plan, state.off)} if state.off else {}
    if state.scale != 1.0:
        wanted["scale"] = f"{state.scale:g}"
    for name in ("off", "scale"):
        if name in wanted and st.query_params.get(name) != wanted[name]:
            st.query_params[name] = wanted[name]
        elif name not in wanted and name in st.query_params:
            del st.query_params[name]
    st.session_state[f"{key}_link"] = wanted
