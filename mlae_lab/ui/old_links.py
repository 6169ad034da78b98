"""Addresses of version 0.5: parameters and values that were renamed."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

OLD_NAMES = {"pictures": "images", "robust": "robustness"}
OLD_VALUES = {("view", "matters"): "importance"}  # (parameter, old value) to new value


def translate(query: Mapping[str, str]) -> dict[str, str]:
    """The parameters of an address under their current names, which take precedence over the old ones."""
    renamed = {OLD_NAMES[name]: value for name, value in query.items() if name in OLD_NAMES}
    renamed |= {name: value for name, value in query.items() if name not in OLD_NAMES}
    return {name: OLD_VALUES.get((name, value), value) for name, value in renamed.items()}


def update_address() -> None:
    """Translate the address of the page; called before a page reads it."""
    current = st.query_params.to_dict()
    if (translated := translate(current)) != current:
        st.query_params.from_dict(translated)
