"""Paper: the tables of the paper, or one of them (`?table=table4`), as studies next to the printed numbers."""

from __future__ import annotations

import streamlit as st

from mlae_lab.core.settings import ConfigError
from mlae_lab.ui import page, visitor
from mlae_lab.ui.navigation import link, show_address
from mlae_lab.ui.paper_view import draw_table, draw_tables

show_address()
if name := st.query_params.get("table"):
    try:
        draw_table(name)
    except ConfigError as error:
        page.heading("Paper")
        st.warning(visitor.sentence(error))
    link("paper", "All tables")
else:
    page.heading("Paper", "The tables of the paper, trained here as studies, next to the printed numbers.")
    draw_tables()
