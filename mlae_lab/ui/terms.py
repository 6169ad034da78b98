"""Technical words on a page: each is a button that opens its definition, with a link to the glossary.

The definitions of all words are drawn once on a page (`draw_definitions`), as popovers of the browser: they open by
click, Enter and touch, close with Escape, and need no script. `marked` turns the words of a text into their buttons.
The question marks of Streamlit's widgets show the same definitions (`help_text`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape

import streamlit as st

from mlae_lab.core.glossary import TERMS, Term, term

_TAG = re.compile(r"(<[^>]+>)")
_UNMARKED = ("a", "button", "code", "summary", "style")  # elements whose text stays as it is


def address(name: str) -> str:
    """The address of an entry of the glossary, relative to the address of any page."""
    return f"glossary?term={name}"


def button(name: str, text: str = "") -> str:
    """A word as the HTML of a button that opens its definition.

    Args:
        name: Of the entry.
        text: What the button shows, by default the title; HTML.

    Raises:
        GlossaryError: The glossary has no such entry.
    """
    entry = term(name)
    return (
        f'<button type="button" class="lab-term" popovertarget="term-{entry.name}">'
        f"{text or escape(entry.title)}</button>"
    )


@lru_cache(maxsize=2048)
def marked(html: str, with_common: bool = False) -> str:
    """The first place of each technical word as a button.

    Args:
        html: The text. Links, buttons and code in it stay as they are.
        with_common: Mark common words, such as “expert”, too.
    """
    pattern, names = _spellings(with_common)
    used: set[str] = set()
    inside: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        name = names.get(match[1].casefold())  # the pattern takes a Turkish dotless i for an i
        if name is None or name in used:
            return match[0]
        used.add(name)
        word = button(name, match[1])
        return f'<span class="lab-kept">{word}{match[2]}</span>' if match[2] else word  # no line begins with a comma

    pieces = _TAG.split(html)
    for i, piece in enumerate(pieces):
        if i % 2:
            element = re.match(r"</?(\w+)", piece)
            if element and element[1] in _UNMARKED:
                inside.append(element[1]) if piece[1] != "/" else inside and inside.pop()
        elif not inside:
            pieces[i] = pattern.sub(replaced, piece)
    return "".join(pieces)


@lru_cache(maxsize=2)
def _spellings(with_common: bool) -> tuple[re.Pattern[str], dict[str, str]]:
    """The pattern of all spellings, the longest first, and the name of the entry of each."""
    names = {
        text.casefold(): entry.name
        for entry in TERMS
        if with_common or not entry.is_common
        for spelling in entry.spellings
        for text in (spelling, escape(spelling))
    }
    longest_first = sorted(names, key=len, reverse=True)
    # no part of a longer word, of a formula or of a number
    return re.compile(
        rf"(?<![\w/.=‖&])({'|'.join(map(re.escape, longest_first))})(?![\w=‖ᵢ])([,.;:!?)”]*)", re.IGNORECASE
    ), names


def help_text(*names: str, first: str = "") -> str:
    """The help of a widget: its first sentence, then the definitions with links, as markdown.

    Args:
        names: Of entries.
        first: What this widget does.
    """
    return "\n\n".join([*([first] if first else []), *(_markdown(term(name)) for name in names)])


@lru_cache(maxsize=256)
def _markdown(entry: Term) -> str:
    return f"**{_plain(entry.title)}**: {_plain(entry.definition)} [Glossary]({address(entry.name)})"


def _plain(text: str) -> str:
    return re.sub(r"([\\*\[\]<$~`_|])", r"\\\1", text)


@lru_cache(maxsize=256)
def of_setting(field: str) -> str:
    """The markdown of the entry of a setting of `RunConfig`, "" if it has none."""
    return next((_markdown(entry) for entry in TERMS if entry.setting == field), "")


def draw_definitions() -> None:
    """Draw the definitions that the buttons of the page open; they take no space. Called once, by the frame."""
    with st.container(key="lab_definitions"):  # page.css
        st.html(_definitions())


@lru_cache(maxsize=1)
def _definitions() -> str:
    return "".join(
        f'<div popover class="lab-definition" id="term-{entry.name}" role="note">{definition(entry)}'
        f'<a href="{address(entry.name)}" target="_self">Glossary</a></div>'
        for entry in TERMS
    )


def definition(entry: Term) -> str:
    """Title, symbol and definition of an entry as HTML."""
    symbol = f" <i>{escape(entry.symbol)}</i>" if entry.symbol and entry.symbol not in entry.title else ""
    return f"<b>{escape(entry.title)}</b>{symbol}<p>{escape(entry.definition)}</p>"
