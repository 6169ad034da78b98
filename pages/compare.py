"""Compare: two runs with another mask each, and the difference that it made (`?a=`, `?b=`)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.runs.paths import is_run_id
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries
from mlae_lab.ui.compare_view import choose, chosen_half, compared
from mlae_lab.ui.markdown import plain
from mlae_lab.ui.navigation import link

page.heading("Compare", "The same everything, another mask: what the mask alone did, over one seed or several.")


def asked(side: str) -> Run | None:
    """The run that the address names for a side; one sentence where there is none of that name."""
    name = st.query_params.get(side)
    if not name:
        return None
    try:
        return queries.run(name)
    except StoreError as error:
        why = f"{error}" if is_run_id(name) else "the link does not hold the name of a run"
        st.warning(f"{side.upper()} cannot be shown: {plain(why)}.")
        link("runs", "See all runs")
        return None


a, b = asked("a"), asked("b")
runs = queries.runs()
if not runs:
    page.section("No runs to compare yet")
    page.note(
        "Two runs with one seed and two masks stand here side by side: their masks, the difference in accuracy over "
        "the epochs, and how far it moves from seed to seed."
    )
    link("train", "Set up a run")
elif a and b and a.id != b.id:
    compared(a.id, b.id)
    with st.expander("Choose other runs"):
        choose(runs, "a", b)
        choose(runs, "b", a)
elif given := a or b:
    if a and b:
        st.warning(f"A and B are both run {a.id}: choose another one for B.")
    chosen_half("a" if a else "b", given, runs)
else:
    choose(runs, "a")
