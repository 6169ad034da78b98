"""Choose images: evaluation images of a run, by their thumbnails, or uploaded files.

An uploaded file stays in the browser session and in the memory of the probe process; nothing is written to disk.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import streamlit as st

from mlae_lab.core.data_url import data_url
from mlae_lab.runs.store import Run
from mlae_lab.ui import page
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.expert_views.query_result import answer

TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]
FILE_MB = 5  # of one file; the process that decodes it rejects larger ones
MAX_BYTES = 10 * 2**20  # of all files in one query
PAGE_SIZE = 16  # thumbnails


@dataclass(frozen=True)
class Chosen:
    """A chosen image. argument: as `training.queries.maps` takes it; name: label."""

    argument: int | dict[str, str]
    name: str


def chosen_images(run: Run, key: str, limit: int, default: int = 1) -> list[Chosen]:
    """Let the user choose images; the URL keeps the indices of evaluation images (`?images=3,5`), not uploaded files.

    Args:
        run: The run whose evaluation images are offered.
        key: Of the view.
        limit: How many images can be chosen.
        default: How many are chosen at first.
    """
    state = f"{key}_indices_{run.id}"
    if state not in st.session_state:
        st.session_state[state] = _from_link(limit) or list(range(default))
    _thumbnails(run, key, state, limit)
    files = _uploaded(key, limit)
    if files:
        return files
    indices = st.session_state[state]
    st.query_params["images"] = ",".join(map(str, indices))
    return [Chosen(index, f"image {index}") for index in indices]


def _from_link(limit: int) -> list[int]:
    parts = st.query_params.get("images", "").split(",")[:limit]
    return [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 9]


def _uploaded(key: str, limit: int) -> list[Chosen]:
    label = "Upload an image" if limit == 1 else f"Upload up to {limit} images"
    uploads = st.file_uploader(
        label, TYPES, accept_multiple_files=limit > 1, key=f"{key}_files", max_upload_size=FILE_MB,
        help="The file is read in memory by the process that loads this run. It is not stored.",
    )  # fmt: skip
    files = list(uploads) if isinstance(uploads, list) else [uploads] if uploads else []
    if len(files) > limit:
        st.warning(f"{len(files)} images were uploaded, but at most {limit} can be shown: these are the first {limit}.")
        files = files[:limit]
    if sum(file.size for file in files) > MAX_BYTES:
        st.warning(f"These files have more than {MAX_BYTES // 2**20} MB in total: upload fewer or smaller ones.")
        return []
    if files:
        page.note(
            "Uploaded images are resized like the task's images and, where those are greyscale, converted to "
            "greyscale. Remove them to return to the task's images."
        )
    return [Chosen({"file": base64.b64encode(file.getvalue()).decode()}, file.name[:24]) for file in files]


def _thumbnails(run: Run, key: str, state: str, limit: int) -> None:
    first = int(st.session_state.get(f"{state}_first", 0))
    label = st.session_state.get(f"{state}_label")
    result = answer(
        run,
        "images",
        {"first": first, "count": PAGE_SIZE, "label": label},
        f"{key}_thumbnails",
        "Loading the evaluation images",
    )
    if result is None:
        return
    names = result["classes"]
    indices = st.session_state[state]
    thumbnails = [
        Card(
            str(image["index"]),
            names[image["truth"]],
            images=(data_url(image["image"]),),
            chosen=image["index"] in indices,
        )
        for image in result["images"]
    ]
    clicked = cards(thumbnails, key=f"{key}_cards", label="Evaluation images", size="small")
    if clicked is not None:
        index = int(clicked)
        if limit == 1:
            selection = [index]
        elif index in indices:
            selection = [image for image in indices if image != index] or indices
        else:
            selection = [*indices, index][-limit:]
        if selection != indices:
            st.session_state[state] = selection
            st.rerun()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of_class = st.selectbox(
            "Class", [None, *range(len(names))], format_func=lambda k: "all classes" if k is None else names[k],
            key=f"{state}_class", label_visibility="collapsed", width=200,
        )  # fmt: skip
        previous = st.button("Previous", key=f"{state}_back", disabled=first == 0)
        more = st.button("More", key=f"{state}_on", disabled=first + PAGE_SIZE >= result["total"])
    if of_class != label or previous or more:
        st.session_state[f"{state}_label"] = of_class
        st.session_state[f"{state}_first"] = (
            0 if of_class != label else max(0, first + (PAGE_SIZE if more else -PAGE_SIZE))
        )
        st.rerun()
