"""Elements of all pages: the style sheet, headings, notes, facts."""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from mlae_lab.core.units import format_duration
from mlae_lab.locations import default_store, home_store
from mlae_lab.runs.status import Status
from mlae_lab.ui import terms

_STYLE = (Path(__file__).parent / "page.css").read_text()
STATUS_TONE = {
    Status.FINISHED: "good",
    Status.RUNNING: "live",
    Status.STARTING: "live",
    Status.STOPPING: "warning",
    Status.QUEUED: "quiet",
    Status.STOPPED: "quiet",
    Status.FAILED: "failure",
    Status.LOST: "lost",
}


def dress() -> None:
    """Add the lab's style sheet to the page; called once, by app.py."""
    st.html(f"<style>{_STYLE}</style>")


def heading(title: str, line: str = "", action: str = "") -> bool:
    """Draw the title of the page and one sentence under it, whose technical words open their definitions.

    Args:
        title: HTML.
        line: HTML, "" for none.
        action: Label of the button to the next page, at the right of the title; "" for none.

    Returns:
        Whether that button was clicked.
    """
    marked = terms.marked(line, with_common=True)
    head = f'<h1 class="lab-title">{title}</h1>' + (f'<p class="lab-line">{marked}</p>' if line else "")
    if not action:
        st.html(head)
        return False
    with st.container(key="page_head", horizontal=True, vertical_alignment="center", gap="medium"):
        st.html(head)
        return st.button(action, type="primary", key="page_next")


def section(title: str) -> None:
    """Draw the heading of a section."""
    st.html(f'<h2 class="lab-section">{title}</h2>')


def facts(*pairs: tuple[str, str]) -> None:
    """Draw a row of facts: (name, value)."""
    st.html(f'<dl class="lab-facts">{fact_cells(*pairs)}</dl>')


def fact_cells(*pairs: tuple[str, str]) -> str:
    """The cells of facts as HTML; the technical words of the names open their definitions."""
    return "".join(f"<div><dt>{terms.marked(n, with_common=True)}</dt><dd>{value}</dd></div>" for n, value in pairs)


def note(text: str) -> None:
    """Draw a sentence in small, grey letters; its technical words open their definitions."""
    st.html(f'<p class="lab-note">{terms.marked(text)}</p>')


def computed(sentence: str, formula: str) -> None:
    """Draw what a figure shows in a plain sentence, and how it is computed behind it.

    Args:
        sentence: For everybody; HTML, "" for none.
        formula: Formula, units and source; HTML.
    """
    plain = f'<p class="lab-note">{terms.marked(sentence)}</p>' if sentence else ""
    st.html(
        f'{plain}<details class="lab-how"><summary>How is this computed?</summary>'
        f'<p class="lab-note">{terms.marked(formula)}</p></details>'
    )


def command(text: str) -> None:
    """Draw the equivalent command, for this store."""
    store = default_store().absolute()
    option = "" if store == home_store() else f" --store {shlex.quote(str(store))}"
    st.code(text + option, language="bash", wrap_lines=True)


def status_word(status: Status) -> str:
    """A status as a word with a dot, as HTML."""
    return f'<span class="lab-status {STATUS_TONE[status]}">{status.value}</span>'


def seconds_text(seconds: float | None) -> str:
    """A duration (`units.format_duration`), a dash for an unknown one."""
    return "–" if seconds is None else format_duration(seconds)
