"""Elements of all pages: the style sheet, headings, notes, facts."""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from mlae_lab.locations import default_store, home_store
from mlae_lab.runs.status import Status

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


def heading(title: str, line: str = "") -> None:
    """Draw the title of the page and one sentence under it."""
    st.html(f'<h1 class="lab-title">{title}</h1>' + (f'<p class="lab-line">{line}</p>' if line else ""))


def section(title: str) -> None:
    """Draw the heading of a section."""
    st.html(f'<h2 class="lab-section">{title}</h2>')


def facts(*pairs: tuple[str, str]) -> None:
    """Draw a row of facts: (name, value)."""
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    st.html(f'<dl class="lab-facts">{cells}</dl>')


def note(text: str) -> None:
    """Draw a sentence in small, grey letters."""
    st.html(f'<p class="lab-note">{text}</p>')


def command(text: str) -> None:
    """Draw the equivalent command, for this store."""
    store = default_store().absolute()
    option = "" if store == home_store() else f" --store {shlex.quote(str(store))}"
    st.code(text + option, language="bash", wrap_lines=True)


def status_word(status: Status) -> str:
    """A status as a word with a dot, as HTML."""
    return f'<span class="lab-status {STATUS_TONE[status]}">{status.value}</span>'


def seconds_text(seconds: float | None) -> str:
    """A duration for people: 8 s, 2 min 5 s, 1 h 3 min."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
