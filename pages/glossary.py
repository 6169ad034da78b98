"""Glossary: every technical word of the lab, searchable (`?term=lora` shows one)."""

from __future__ import annotations

from html import escape
from itertools import groupby

import streamlit as st

from mlae_lab.core import glossary
from mlae_lab.core.config import RunConfig
from mlae_lab.core.settings import settings_of
from mlae_lab.ui import page, terms
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.navigation import link, title_of

_SETTINGS = {setting.name: setting for setting in settings_of(RunConfig)}


def _rows(entry: glossary.Term) -> str:
    """Where an entry appears, its setting and its source, as HTML."""
    pages = ", ".join(
        f'<a href="{name if name != "home" else "."}" target="_self">{title_of(name)}</a>' for name in entry.pages
    )
    setting = _SETTINGS.get(entry.setting)
    rows = [
        ("On the pages", pages),
        ("As a setting", f"{escape(setting.label)}: {escape(setting.help)}" if setting else ""),
        ("Source", escape(entry.source)),
    ]
    return "".join(f"<small><span>{name}</span> {text}</small>" for name, text in rows if text)


def _entries(entries: list[glossary.Term], chosen: str) -> None:
    """Draw entries by initial letter; the chosen one is marked."""
    blocks = []
    for letter, group in groupby(entries, key=lambda entry: entry.title[0].upper()):
        cards = "".join(
            f'<section class="lab-entry{" chosen" if entry.name == chosen else ""}" id="{entry.name}">'
            f"{terms.definition(entry)}{_rows(entry)}</section>"
            for entry in group
        )
        blocks.append(f'<div class="lab-letter"><h2>{letter}</h2><div>{cards}</div></div>')
    st.html("".join(blocks))


page.heading("Glossary", "What the words of the lab mean, in one or two sentences each.")
requested = st.query_params.get("term", "")
chosen = None
if requested:
    try:
        chosen = glossary.term(requested)
    except glossary.GlossaryError as error:
        st.warning(plain(sentence(error)))
words = st.text_input(
    "Search", key="glossary_search", placeholder="a word or a symbol, such as λ", label_visibility="collapsed"
)
if chosen is not None and not words:
    st.html(f'<section class="lab-entry chosen alone">{terms.definition(chosen)}{_rows(chosen)}</section>')
    page.section("All words")
entries = glossary.matching(words)
if words:
    page.note(f"{len(entries)} of {len(glossary.TERMS)} words")
if entries:
    _entries(sorted(entries, key=lambda entry: entry.title.casefold()), chosen.name if chosen else "")
else:
    page.note(f"No word of the glossary holds “{escape(words)}”. Try a shorter word.")
link("tour", "Take the tour of five minutes")
