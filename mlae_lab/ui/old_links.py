"""Addresses of version 0.5: parameters and values that have another name today."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

NAMES = {"pictures": "images", "robust": "robustness"}
VALUES = {("view", "matters"): "importance"}  # (parameter, old value) to new value


def translate(query: Mapping[str, str]) -> dict[str, str]:
    """The parameters of an address under the names of today; where both names are given, the one of today counts."""
    renamed = {NAMES[name]: value for name, value in query.items() if name in NAMES}
    renamed |= {name: value for name, value in query.items() if name not in NAMES}
    return {name: VALUES.get((name, value), value) for name, value in renamed.items()}


def update_address() -> None:
    """Translate the address of the page; called before a page reads it."""
    current = st.query_params.to_dict()
    if (translated := translate(current)) != current:
        st.query_params.from_dict(translated)
