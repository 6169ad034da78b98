"""The library: masks saved by name in this store, and the import of masks from a file, a link or a line."""

from __future__ import annotations

import re
import time
from html import escape
from urllib.parse import parse_qs, quote, urlsplit

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.patterns import fitted
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.data.listing import counted
from mlae_lab.runs.comparability import beyond_the_cells
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.library import MAX_NAME, SavedPlan
from mlae_lab.ui import draft, figures, page, queries, run_actions, visitor
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.thumbnails import mask_image

MAX_BYTES = 400_000  # of a plan file; the largest plan has 512 x 16 cells
MAX_CARDS = 24
_OPEN, _MESSAGE, _FORM = "library_open", "library_message", "library_form"
_CANVAS = "the mask on the canvas"


def library() -> None:
    """Draw the section: saved masks, import and export. Reads and replaces the plan of the draft."""
    title, buttons = st.columns([5, 6], vertical_alignment="bottom")
    with title:
        page.section("Saved masks")
    with buttons.container(horizontal=True, gap="small", horizontal_alignment="right"):
        _save()
        _import_mask()
        _download("Export as a file", draft.current().plan, "mask", "library_file")
    if message := st.session_state.pop(_MESSAGE, None):
        st.info(message)
    try:
        saved = queries.store().plans()
    except EXPECTED_ERRORS as error:
        st.warning(f"The library cannot be read right now. {visitor.sentence(error)}")
        return
    if not saved:
        page.note(
            "Saved masks are listed here for everyone who uses this lab, each with its difference from the canvas."
        )
        return
    matches = _filtered(saved)
    opened = next((entry for entry in saved if entry.id == st.session_state.get(_OPEN)), None)
    items = [
        Card(
            id=entry.id,
            title=entry.name,
            line=f"{entry.plan.kind_name} · {visitor.name_of(entry.owner)}",
            images=(mask_image(entry.plan),),
            chosen=opened is not None and entry.id == opened.id,
        )
        for entry in matches[:MAX_CARDS]
    ]
    if items:
        picked = cards(items, key="library_cards", label="Saved masks", size="small")
        if picked:
            st.session_state[_OPEN] = None if opened is not None and picked == opened.id else picked
            st.rerun()
    if len(matches) > MAX_CARDS:
        page.note(f"The {MAX_CARDS} newest of {len(matches)}: search by name for the others.")
    if opened is not None:
        _draw_saved(opened, saved)


def _filtered(saved: list[SavedPlan]) -> list[SavedPlan]:
    """The masks whose name contains the search text; without a search field if there are few."""
    if len(saved) <= MAX_CARDS:
        return saved
    wanted = st.text_input("Search saved masks", key="library_find", max_chars=MAX_NAME).strip().lower()
    matches = [entry for entry in saved if wanted in entry.name.lower()]
    if not matches:
        page.note("No saved mask has this text in its name.")
    return matches


# ---------------------------------------------------------------- save and import


def _save() -> None:
    """Draw the form that saves the mask on the canvas."""
    form = st.session_state.get(_FORM, 0)
    with st.popover("Save this mask", key=f"library_save_form_{form}"):  # a popover with a new key is closed
        key = f"library_name_{form}"
        name = st.text_input(
            "Name of the mask", key=key, max_chars=MAX_NAME, placeholder="hourglass, heavier at the end"
        )
        if st.button("Save", key="library_save", type="primary"):
            try:
                entry = queries.store().save_plan(
                    name, draft.current().plan, visitor.current(), visitor.TIMEOUT_SECONDS
                )
            except EXPECTED_ERRORS as error:
                st.warning(visitor.sentence(error))
                return
            st.session_state[_OPEN] = entry.id
            st.session_state[_FORM] = st.session_state.get(_FORM, 0) + 1
            st.rerun()


def _import_mask() -> None:
    """Draw the forms that put a mask from elsewhere on the canvas; an invalid one changes nothing."""
    with st.popover("Import a mask", key=f"library_import_form_{draft.revision()}"):
        text = st.text_input(
            "A mask as one line, or a link", key="library_line", placeholder="m1_12x8_ff*12_.5*12", max_chars=20_000
        )
        if st.button("Put the line on the canvas", key="library_line_go"):
            try:
                plan = read_mask(text)
            except PlanError as error:
                st.warning(plain(sentence(error)))
            else:
                put_on_canvas(plan)
        given = st.file_uploader("Or a plan file", type=["json"], key="library_upload", max_upload_size=1)
        if given is not None and st.button("Put the file on the canvas", key="library_upload_go"):
            try:
                plan = read_file(given.getvalue())
            except PlanError as error:
                st.warning(plain(sentence(error)))
            else:
                put_on_canvas(plan)


def read_mask(text: str) -> MaskPlan:
    """Read a pasted mask: its line, a link with one (`?mask=`), or the text of a plan file.

    Raises:
        PlanError: For anything else.
    """
    text = text.strip()
    if text.startswith("{"):
        return read_file(text.encode())
    if "mask=" in text:
        codes = parse_qs(urlsplit(text).query).get("mask") or parse_qs(text).get("mask")
        if not codes:
            raise PlanError("the link holds no mask: one ends in ?mask=m1_12x8_ff*12_.5*12")
        text = codes[0]
    if not text:
        raise PlanError("the field is empty: paste a mask such as m1_12x8_ff*12_.5*12, or a link with one")
    return MaskPlan.from_code(text)


def read_file(content: bytes) -> MaskPlan:
    """Read the content of a plan file, as `--mask PLAN.json` does.

    Raises:
        PlanError: For anything else.
    """
    if len(content) > MAX_BYTES:
        raise PlanError(f"the file has {len(content):,} bytes: a plan file has at most {MAX_BYTES:,}")
    try:
        return MaskPlan.from_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise PlanError("the file is not text: a plan file is one JSON object in UTF-8") from None


def put_on_canvas(plan: MaskPlan) -> None:
    """Make a plan the mask of the draft, stretched if the backbone lacks its layers, and rerun the page."""
    backbone = catalog.backbone(draft.current().backbone)
    try:
        draft.change(plan=plan)
    except catalog.CatalogError:
        draft.change(plan=fitted(plan, backbone.default_targets))
        st.session_state[_MESSAGE] = (
            f"{backbone.title} does not have the layers of this mask: its {plan.rows} rows are stretched over "
            f"{len(backbone.default_targets)} layers of the backbone."
        )
    draft.write_address("mask")
    st.rerun()


# ---------------------------------------------------------------- one mask


def _draw_saved(entry: SavedPlan, saved: list[SavedPlan]) -> None:
    """Draw a saved mask with its difference and its actions."""
    plan = entry.plan
    with st.container(key="pair_library"):
        left, right = st.columns([4, 5], gap="large")
    with left:
        page.section(escape(entry.name))
        when = time.strftime("%Y-%m-%d", time.localtime(entry.created))
        page.note(
            f"{plan.kind_name.capitalize()}, {counted(plan.experts, 'expert')} in {counted(plan.rows, 'layer')}. "
            f"Saved by {escape(visitor.name_of(entry.owner))} on {when}."
        )
        buttons, question = st.container(horizontal=True, gap="small"), st.container()
        with buttons:
            if st.button("Put on the canvas", type="primary", key=f"library_use_{entry.id}"):
                put_on_canvas(plan)
            _download("File", plan, entry.name, f"library_file_{entry.id}")
            _rename(entry)
            ask = f"{_owned_by_other(entry)}Delete this mask for everyone? This cannot be undone."
            is_deleted = run_actions.confirmed_button("Delete", f"library_delete_{entry.id}", ask, place=question)
        if is_deleted:
            _delete(entry)
        page.note("As one line and as a link:")
        st.code(plan.code, language=None, wrap_lines=True)
        st.code(f"{_page_address()}?mask={quote(plan.code, safe='*,~')}", language=None, wrap_lines=True)
    with right:
        others = {_CANVAS: draft.current().plan} | {other.name: other.plan for other in saved if other.id != entry.id}
        against = st.selectbox("Compare with", list(others), key=f"library_against_{entry.id}")
        other = others.get(against, draft.current().plan)
        live_plot(figures.mask_difference_figure(other, plan), key="library_difference")
        page.note(f"A is {escape(against)}, B is {escape(entry.name)}. {figures.MASK_KEY}")
        for text in beyond_the_cells(other, plan):
            page.note(sentence(text))


def _rename(entry: SavedPlan) -> None:
    with st.popover("Rename", key=f"library_rename_form_{entry.id}_{entry.name}"):
        name = st.text_input("New name", entry.name, key=f"library_rename_{entry.id}", max_chars=MAX_NAME)
        key = f"library_rename_go_{entry.id}"
        if run_actions.confirmed_button("Save the name", key, _owned_by_other(entry).rstrip()):
            try:
                queries.store().rename_plan(entry.id, name, visitor.TIMEOUT_SECONDS)
            except EXPECTED_ERRORS as error:
                st.warning(visitor.sentence(error))
                return
            st.rerun()


def _owned_by_other(entry: SavedPlan) -> str:
    """A sentence with the owner of the mask of another person, "" for an own one."""
    if run_actions.needs_no_confirmation(entry):
        return ""
    return f"This mask belongs to {plain(visitor.name_of(entry.owner))}. "


def _delete(entry: SavedPlan) -> None:
    try:
        queries.store().delete_plan(entry.id, visitor.TIMEOUT_SECONDS)
    except EXPECTED_ERRORS as error:
        st.warning(visitor.sentence(error))
        return
    st.rerun()


# ---------------------------------------------------------------- pieces


def _download(label: str, plan: MaskPlan, name: str, key: str) -> None:
    """The plan as the file that `--mask PLAN.json` reads."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "mask"
    st.download_button(
        label,
        plan.to_json(),
        file_name=f"{safe}.json",
        mime="application/json",
        key=key,
        on_click="ignore",
        help="A JSON file for --mask of the command line.",
    )


def _page_address() -> str:
    """The address of this page in the browser."""
    return (st.context.url or "/masks").partition("?")[0]
