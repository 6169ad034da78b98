"""Keep what a state leaves on: as a mask in the library, or as a smaller adapter file."""

from __future__ import annotations

import base64

import streamlit as st

from mlae_lab.core.expert_state import Cell, all_on, kept_plan, off_text, scaled, with_cells
from mlae_lab.core.units import format_bytes
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.library import MAX_NAME
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.markdown import plain


def keeping(run: Run, off: tuple[Cell, ...], scale: float, key: str) -> None:
    """Two ways out. off: experts that are left out; scale: what every λ counts times; key: unique on the page."""
    plan = run.config.plan
    left = kept_plan(plan, with_cells(scaled(all_on(plan), scale), off, 0.0))
    with st.container(horizontal=True, gap="small"):
        _save(left, key)
        _export(run, off, scale, key)
    page.note(
        f"{left.experts} of {plan.experts} experts are left. The mask can be trained anew; the smaller adapter is this "
        "run's own, with the others cut out and the factor in λ. The run's file stays as it is."
    )


def _save(left, key: str) -> None:
    with st.popover("Save as a mask"):
        name = st.text_input("Its name", key=f"{key}_name", max_chars=MAX_NAME, placeholder="what mattered")
        if st.button("Save", key=f"{key}_save", type="primary"):
            try:
                entry = queries.store().save_plan(name, left, visitor.current(), visitor.TIMEOUT_SECONDS)
            except EXPECTED_ERRORS as error:
                st.warning(visitor.sentence(error))
                return
            st.success(plain(f"{entry.name} stands in the library on the page Masks."))


def _export(run: Run, off: tuple[Cell, ...], scale: float, key: str) -> None:
    with st.popover("Smaller adapter"):
        state = {"off": off_text(run.config.plan, off), "scale": scale}
        if not st.button("Cut it out", key=f"{key}_cut") and st.session_state.get(f"{key}_cut_state") != state:
            page.note("A safetensors file with only the experts that are on. The lab and the command line load it.")
            return
        st.session_state[f"{key}_cut_state"] = state
        found = answer(run, "pruned", state, f"{key}_cut_answer", "the smaller adapter")
        if found is not None:
            st.download_button(
                f"Download, {format_bytes(found['bytes'])}",
                base64.b64decode(found["file"]),
                file_name=f"{run.id}-{found['experts']}-experts.safetensors",
                mime="application/octet-stream",
                key=f"{key}_download",
                on_click="ignore",
            )
