"""The panel on a run's page that exports its network for other programs; a separate process writes the files."""

from __future__ import annotations

import re
from html import escape

import streamlit as st

from mlae_lab.core.export_formats import FORMATS, estimated_bytes, missing_packages, refusal
from mlae_lab.core.units import format_bytes
from mlae_lab.data.listing import counted
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import exporting
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.exporting import Exported, ExportState
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import page, queries, visitor
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.thumbnails import mask_image

_POLL_SECONDS = 1.0


def export_panel(run: Run) -> None:
    """Draw the formats, and the chosen one as far as it is written."""
    names = sorted(FORMATS, key=lambda name: bool(refusal(name, run.config)))  # stable: those that it can have first
    left, right = st.columns([2, 3], gap="large")
    with left:
        name = st.radio(
            "Format", names, format_func=lambda name: FORMATS[name].title, key=f"export_format_{run.id}",
            captions=[_caption(name, run) for name in names],
        )  # fmt: skip
    with right:
        if why := refusal(name, run.config) or missing_packages(name):
            st.warning(plain(sentence(why)))
            return
        try:
            state = exporting.look(queries.store(), run.id, name)
        except EXPECTED_ERRORS as error:
            st.warning(visitor.sentence(error))
            return
        if state.state == "working":
            _wait(run, name, state)
        elif state.result is not None:
            _finished(run, name, state.result)
        else:
            _offer(run, name, state)
        page.command(f"{PROGRAM} export {run.id} {run.id}-{name} --to {name}")


def _caption(name: str, run: Run) -> str:
    if refusal(name, run.config):
        return "Not for this run"
    purpose = FORMATS[name].purpose
    return f"{purpose[:1].upper()}{purpose[1:]}. About {format_bytes(estimated_bytes(name, run.config))}."


def _offer(run: Run, name: str, state: ExportState) -> None:
    """The button that starts an export, and why the last attempt failed."""
    if state.state == "failed":
        st.warning(plain(sentence(state.text)))
    if st.button("Retry" if state.state == "failed" else "Export", type="primary", key=f"export_start_{run.id}"):
        try:
            exporting.start(queries.store(), run.id, name)
        except EXPECTED_ERRORS as error:
            st.warning(visitor.sentence(error))
            return
        st.rerun()
    page.note(
        "A separate process writes the files, loads them with the library that they are for and compares the logits "
        "with the lab's network on evaluation images. Files that differ are not kept. The result stays with the run."
    )


def _wait(run: Run, name: str, state: ExportState) -> None:
    @st.fragment(run_every=_POLL_SECONDS)
    def wait() -> None:
        try:
            now = exporting.look(queries.store(), run.id, name)
        except StoreError:  # deleted or archived meanwhile: the page says so
            queries.refresh()
            st.rerun()
        if now.state != "working":
            st.rerun()
        st.status(f"{FORMATS[name].title}: {plain(now.text)}", state="running", expanded=False)

    wait()


def _finished(run: Run, name: str, result: Exported) -> None:
    """The check, the download and the model card."""
    file = exporting.zip_file(queries.store().paths(run.id).exports, name)
    buttons = st.container(horizontal=True, gap="small")
    buttons.download_button(
        f"Download, {format_bytes(result.bytes)}", file.read_bytes, file_name=f"{run.id}-{name}.zip",
        mime="application/zip", type="primary", key=f"export_download_{run.id}_{name}", on_click="ignore",
    )  # fmt: skip
    with buttons.popover("Model card"):
        front, text = _parts(result.card)
        if run.config.has_mask:
            st.html(f'<img class="lab-thumb" src="{mask_image(run.config.plan)}" alt="The mask">')
        st.markdown(text)
        st.code(front, language="yaml")
    with buttons.popover("Files"):
        rows = "".join(
            f"<tr><td>{escape(inside.partition('/')[2])}</td><td>{format_bytes(size)}</td></tr>"
            for inside, size in result.files
        )
        st.html(f'<table class="lab-files">{rows}</table>')
    page.note(f"{escape(result.check)} {counted(len(result.files), 'file')}.")


def _parts(card: str) -> tuple[str, str]:
    """Front matter and text of a card, without its image, which is a file of the export; headings as small as text."""
    _, front, text = card.split("---\n", 2)
    lines = [line for line in text.splitlines() if not line.startswith("![")]
    return front.strip(), re.sub(r"^#+ ", "##### ", "\n".join(lines), flags=re.MULTILINE)
