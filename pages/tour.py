"""Tour: from a frozen weight to a verdict, in eleven short pages (`?step=`, from 1)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.ui import page
from mlae_lab.ui.navigation import link
from mlae_lab.ui.tour import steps, tour

page.heading(
    "From a frozen weight to a verdict",
    f"A tour of five minutes in {len(steps())} pages. All numbers are from real runs of the lab.",
)
requested = st.query_params.get("step", "1")
step = int(requested) - 1 if requested.isascii() and requested.isdigit() and len(requested) < 4 else 0
now = tour("tour", step)
if now != step or "step" in st.query_params:
    st.query_params["step"] = str(now + 1)
with st.container(key="tour_links", horizontal=True, gap="medium"):
    link("masks", "Paint a mask")
    link("studies", "Ask a question with a study")
    link("glossary", "Look up a word")
