"""Fields for the images and the frozen weights of a run whose files have moved, or that was imported."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.data.image_record import read_record
from mlae_lab.data.run_images import checked_folder
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.run_location import checked_weights, keep_location, read_location
from mlae_lab.runs.store import Run
from mlae_lab.ui import queries, visitor


def has_files(run: Run) -> bool:
    """Whether a run has images or weights in files of this machine, which may move."""
    return not catalog.task(run.config.task).bundled or _has_weights(run)


def location_fields(run: Run, key: str) -> None:
    """Draw the fields and a button that checks and keeps them; nothing for a run with bundled files only.

    Args:
        run: The run.
        key: Unique on the page.
    """
    if not has_files(run):
        return
    files = queries.store().paths(run.id)
    location = read_location(files)
    data = weights = None
    with st.form(f"{key}_location_{run.id}", border=False):
        if not catalog.task(run.config.task).bundled:
            data = st.text_input(
                "Folder of its images",
                location.data,
                key=f"{key}_data_{run.id}",
                placeholder=run.config.data or "in the data folder",
                help="Where the images are now. They must be those that the run was trained and evaluated on; files "
                "may have other names.",
            )
        if _has_weights(run):
            weights = st.text_input(
                "File of its frozen weights",
                location.weights,
                key=f"{key}_weights_{run.id}",
                placeholder=run.config.weights or "in the data folder",
                help="Checked by fingerprint when the run is loaded.",
            )
        if not st.form_submit_button("Use for this run"):
            return
    try:
        with st.spinner("Comparing the images with those of the run"):
            if data is not None and data != location.data:
                location = replace(location, data=checked_folder(run.config, read_record(files.images), data))
            if weights is not None:
                location = replace(location, weights=checked_weights(weights))
            keep_location(files, location)
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))
        return
    st.toast(f"Run {run.id} uses these files from now on.")
    st.rerun()


def _has_weights(run: Run) -> bool:
    return bool(run.config.weights) or catalog.backbone(run.config.backbone).needs_file
