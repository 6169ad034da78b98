"""The app: `streamlit run mlae_lab/app.py`, from any working directory, installed or not."""

# ruff: noqa: E402 - the path must be right before anything else is imported

import sys
from pathlib import Path

# Streamlit puts this file's folder on the path, not the repository. Replace it rather than add to it: while
# mlae_lab/ is on the path, a module in it would shadow a library of the same name.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(_ROOT), *(p for p in sys.path if Path(p).resolve() != _ROOT / "mlae_lab")]

import streamlit as st

from mlae_lab.locations import ASSETS
from mlae_lab.ui import authentication, draft, navigation, old_links, page, visitor
from mlae_lab.ui.run_strip import run_strip
from mlae_lab.ui.theme_memo import remember_theme

st.set_page_config(page_icon=str(ASSETS / "icon.png"), layout="wide")
st.logo(str(ASSETS / "logo.svg"), size="large")
remember_theme()
page.dress()
visitor.keep_cookies(login=authentication.pass_or_stop())
chosen = st.navigation(navigation.sections())
with st.sidebar:
    run_strip()
visitor.name_field()
authentication.note()
old_links.update_address()
draft.entered(chosen.url_path)
chosen.run()
