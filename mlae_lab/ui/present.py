"""Presentation mode: large type, no sidebar, figures that fill a projector (`?present=1`, F8)."""

from __future__ import annotations

import streamlit as st

from mlae_lab.ui.bundle import bundled

_COMPONENT = bundled(
    "present",
    ("present.js",),
    markup='<button type="button" class="lab-present-start" title="Large type, no sidebar. F8 starts and ends it.">'
    "Present <kbd>F8</kbd></button>",
)


def present_button() -> None:
    """Draw the button that starts the mode in the sidebar; its script listens to the keys. Called by the frame."""
    with st.sidebar:
        _COMPONENT(key="present", height="content")
