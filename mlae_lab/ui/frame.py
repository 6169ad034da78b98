"""The frame of every page: style, login, navigation and sidebar."""

from __future__ import annotations

import base64

import streamlit as st

from mlae_lab.core.data_url import data_url
from mlae_lab.locations import ASSETS
from mlae_lab.ui import authentication, draft, navigation, old_links, page, terms, visitor
from mlae_lab.ui.present import present_button
from mlae_lab.ui.run_strip import run_strip
from mlae_lab.ui.theme_memo import remember_theme


def draw() -> None:
    """Draw the page that the address names."""
    # as an address: Streamlit would serve a file only to those who have logged in
    icon = data_url(base64.b64encode((ASSETS / "icon.png").read_bytes()).decode())
    st.set_page_config(page_icon=icon, layout="wide")
    st.logo(str(ASSETS / "logo.svg"), size="large")
    remember_theme()
    page.dress()
    visitor.keep_cookies(login=authentication.pass_or_stop())
    terms.draw_definitions()
    chosen = st.navigation(navigation.sections(), expanded=True)
    with st.sidebar:
        run_strip()
    visitor.name_field()
    present_button()
    authentication.note()
    old_links.update_address()
    draft.entered(chosen.url_path)
    chosen.run()
