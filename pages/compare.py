"""Compare: two runs with different masks, and the effect of the mask (`?a=`, `?b=`)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries
from mlae_lab.ui.compare_view import choose, chosen_half, compared
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link

page.heading("Compare", "Two runs that differ only in the mask: the effect of the mask, over one seed or several.")


def run_of_side(side: str) -> Run | None:
    """The run that the address names for a side; if it is unknown, a warning and None."""
    name = st.query_params.get(side)
    if not name:
        return None
    try:
        return queries.run(name)
    except StoreError as error:
        why = f"{error}" if is_run_id(name) else "the link does not contain a run id"
        st.warning(f"{side.upper()} cannot be shown: {plain(why)}.")
        link("runs", "See all runs")
        return None


a, b = run_of_side("a"), run_of_side("b")
runs = queries.runs()
if not runs:
    page.section("No runs to compare yet")
    page.note(
        "This page compares two runs with one seed and two masks: the masks, the difference in accuracy over the "
        "epochs, and its variation between seeds."
    )
    link("train", "Set up a run")
elif a and b and a.id != b.id:
    compared(a.id, b.id)
    if st.toggle("Choose other runs", key="compare_choose"):  # not drawn before: it takes long with a thousand runs
        choose(runs, "a", b)
        choose(runs, "b", a)
elif given := a or b:
    if a and b:
        st.warning(f"A and B are both run {a.id}: choose another run for B.")
    chosen_half("a" if a else "b", given, runs)
else:
    choose(runs, "a")
