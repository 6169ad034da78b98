"""Choose images to look at: those that a run is measured on, by their thumbnails, or files of one's own.

A file of one's own stays in the browser session and in the memory of the process that looks at it; nothing is written.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import streamlit as st

from mlae_lab.runs.store import Run
from mlae_lab.ui import page
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.expert_views.query_result import answer

TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]
FILE_MB = 5  # of one file; the process that decodes it refuses more
TOGETHER = 10 * 2**20  # bytes of all files in one question
SHOWN = 16  # thumbnails at a time


@dataclass(frozen=True)
class Chosen:
    """An image to ask about. argument: as `training.queries.maps` takes it; name: on the screen."""

    argument: int | dict[str, str]
    name: str


def image_address(image: str) -> str:
    """A base64 image as a data address."""
    return f"data:image/{'png' if image.startswith('iVBOR') else 'jpeg'};base64,{image}"


def chosen_images(run: Run, key: str, most: int, default: int = 1) -> list[Chosen]:
    """Let people choose up to `most` images; the first `default` of the task until they do.

    key: of the view. Places of the task's images stand in the address (`?images=3,5`), files of one's own do not.
    """
    state = f"{key}_places_{run.id}"
    if state not in st.session_state:
        st.session_state[state] = _from_address(most) or list(range(default))
    _thumbnails(run, key, state, most)
    files = _uploaded(key, most)
    if files:
        return files
    indices = st.session_state[state]
    st.query_params["images"] = ",".join(map(str, indices))
    return [Chosen(index, f"image {index}") for index in indices]


def _from_address(most: int) -> list[int]:
    words = st.query_params.get("images", "").split(",")[:most]
    return [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 9]


def _uploaded(key: str, most: int) -> list[Chosen]:
    label = "An image of your own" if most == 1 else f"Or images of your own, up to {most}"
    given = st.file_uploader(
        label, TYPES, accept_multiple_files=most > 1, key=f"{key}_files", max_upload_size=FILE_MB,
        help="It is read in memory, by the process that looks into this run, and kept nowhere.",
    )  # fmt: skip
    files = list(given) if isinstance(given, list) else [given] if given else []
    if len(files) > most:
        st.warning(f"{len(files)} images were handed in and {most} fit side by side: these are the first {most}.")
        files = files[:most]
    if sum(file.size for file in files) > TOGETHER:
        st.warning(f"These files take more than {TOGETHER // 2**20} MB together: hand in fewer or smaller ones.")
        return []
    if files:
        page.note(
            "Each is made as large and, where the task's images are grey, as grey as those are. Remove them to go back "
            "to the task's."
        )
    return [Chosen({"file": base64.b64encode(file.getvalue()).decode()}, file.name[:24]) for file in files]


def _thumbnails(run: Run, key: str, state: str, most: int) -> None:
    first = int(st.session_state.get(f"{state}_first", 0))
    label = st.session_state.get(f"{state}_label")
    found = answer(
        run,
        "images",
        {"first": first, "count": SHOWN, "label": label},
        f"{key}_thumbnails",
        "the images of this run",
    )
    if found is None:
        return
    names = found["classes"]
    indices = st.session_state[state]
    shown = [
        Card(
            str(one["index"]),
            names[one["truth"]],
            images=(image_address(one["image"]),),
            chosen=one["index"] in indices,
        )
        for one in found["images"]
    ]
    picked = cards(shown, key=f"{key}_cards", label="Images that the run is measured on", size="small")
    if picked is not None:
        index = int(picked)
        if most == 1:
            now = [index]
        elif index in indices:
            now = [one for one in indices if one != index] or indices
        else:
            now = [*indices, index][-most:]
        if now != indices:
            st.session_state[state] = now
            st.rerun()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        of_class = st.selectbox(
            "Class", [None, *range(len(names))], format_func=lambda k: "all classes" if k is None else names[k],
            key=f"{state}_class", label_visibility="collapsed", width=200,
        )  # fmt: skip
        back = st.button("Earlier", key=f"{state}_back", disabled=first == 0)
        on = st.button("More", key=f"{state}_on", disabled=first + SHOWN >= found["total"])
    if of_class != label or back or on:
        st.session_state[f"{state}_label"] = of_class
        st.session_state[f"{state}_first"] = 0 if of_class != label else max(0, first + (SHOWN if on else -SHOWN))
        st.rerun()
