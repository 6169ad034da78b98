"""Save the experts that a state leaves on: as a mask in the library, or as a smaller adapter file."""

from __future__ import annotations

import base64

import streamlit as st

from mlae_lab.core.expert_state import Cell, all_on, kept_plan, off_text, scaled, with_cells
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.units import format_bytes
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.library import MAX_NAME
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.markdown import plain


def save_options(run: Run, off: tuple[Cell, ...], scale: float, key: str) -> None:
    """Draw the two ways to save a state.

    Args:
        run: The run.
        off: Experts that are left out.
        scale: Factor of all λ.
        key: Unique on the page.
    """
    plan = run.config.plan
    remaining = kept_plan(plan, with_cells(scaled(all_on(plan), scale), off, 0.0))
    with st.container(horizontal=True, gap="small"):
        _save(remaining, key)
        _export(run, off, scale, key)
    page.note(
        f"{remaining.experts} of {plan.experts} experts remain. The mask can be used for a new run. The "
        "smaller adapter contains the remaining experts, as trained, with the factor applied to λ. The run's file "
        "does not change."
    )


def _save(plan: MaskPlan, key: str) -> None:
    with st.popover("Save as a mask"):
        name = st.text_input("Name", key=f"{key}_name", max_chars=MAX_NAME, placeholder="important experts")
        if st.button("Save", key=f"{key}_save", type="primary"):
            try:
                entry = queries.store().save_plan(name, plan, visitor.current(), visitor.TIMEOUT_SECONDS)
            except EXPECTED_ERRORS as error:
                st.warning(visitor.sentence(error))
                return
            st.success(plain(f"{entry.name} was saved to the library on the page Masks."))


def _export(run: Run, off: tuple[Cell, ...], scale: float, key: str) -> None:
    with st.popover("Export a smaller adapter"):
        state = {"off": off_text(run.config.plan, off), "scale": scale}
        if not st.button("Create", key=f"{key}_cut") and st.session_state.get(f"{key}_cut_state") != state:
            page.note("A safetensors file with only the experts that are on. The lab and the command line can load it.")
            return
        st.session_state[f"{key}_cut_state"] = state
        result = answer(run, "pruned", state, f"{key}_cut_answer", "Creating the smaller adapter")
        if result is not None:
            st.download_button(
                f"Download, {format_bytes(result['bytes'])}",
                base64.b64decode(result["file"]),
                file_name=f"{run.id}-{result['experts']}-experts.safetensors",
                mime="application/octet-stream",
                key=f"{key}_download",
                on_click="ignore",
            )
