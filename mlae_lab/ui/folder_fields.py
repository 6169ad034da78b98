"""Choose a folder on the server's machine, below the folders that it was started with; a browser names no path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from mlae_lab.data import dataset_input
from mlae_lab.data.listing import shown
from mlae_lab.environment import IMAGE_FOLDERS
from mlae_lab.locations import PROGRAM
from mlae_lab.ui import page


def folder_fields(key: Callable[[str], str], otherwise: str) -> tuple[Path, str] | None:
    """Draw the choice of a folder.

    Args:
        key: The key of a widget from its name.
        otherwise: What a terminal can do if the server was started without folders, HTML.

    Returns:
        One of `dataset_input.image_roots` and a path below it; None without such folders.
    """
    roots = dataset_input.image_roots()
    if not roots:
        page.note(
            "This lab was started without folders for its pages, so a browser can read none. Start it with "
            f"<code>{PROGRAM} app --images DIR</code> (or set <code>{IMAGE_FOLDERS}</code>), or {otherwise}."
        )
        return None
    root = roots[0]
    if len(roots) > 1:
        root = st.selectbox("Start from", roots, format_func=str, key=key("root"))
    folders = dataset_input.folders_below(root)
    below = st.selectbox(
        "Folder", folders, format_func=lambda path: shown(path) if path else f"{root.name} itself", key=key("below")
    )
    if len(folders) == dataset_input.MAX_CHOICES:
        page.note(f"The first {dataset_input.MAX_CHOICES} folders; a deeper one can be a folder of the server.")
    return root, below
