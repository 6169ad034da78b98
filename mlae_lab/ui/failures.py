"""Errors that no page has caught: one sentence and a way out, in place of Streamlit's box without a text."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import streamlit as st
from streamlit.errors import Error as StreamlitError

from mlae_lab.errors import LabError
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message
from mlae_lab.ui import markdown, navigation


def show(error: Exception) -> bool:
    """Draw the message of an expected error, such as a store that cannot be used, and a link to the Doctor page.

    Returns:
        False for any other error, which is a defect: nothing is drawn.
    """
    if not isinstance(error, EXPECTED_ERRORS):
        return False
    st.error(markdown.plain(markdown.sentence(error_message(error))))
    with suppress(StreamlitError):  # before the pages are registered there is nothing to link to
        navigation.link("doctor", "Open the Doctor page to find the cause")
    return True


@contextmanager
def shown() -> Iterator[None]:
    """Draw an expected error of the block where the block ends. `show` does the same for fragments and callbacks."""
    try:
        yield
    except EXPECTED_ERRORS as error:
        if not isinstance(error, LabError):
            traceback.print_exc()
        show(error)
