"""A verdict in large letters, and a plain table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from mlae_lab.ui import terms


def large(text: str) -> None:
    """Draw the main sentence of a page."""
    st.html(
        f'<p role="status" style="font-size:1.5rem;font-weight:620;line-height:1.3;margin:.7rem 0 .2rem;max-width:62ch;'
        f'letter-spacing:-0.01em">{escape(text)}</p>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table; cells are HTML."""
    line = "border:0;border-bottom:1px solid color-mix(in srgb, currentColor 14%, transparent)"
    cell = f"padding:.35rem 1.4rem .35rem 0;text-align:left;vertical-align:top;font-size:.9rem;{line}"
    top = "".join(
        f'<th scope="col" style="{cell};font-weight:500;opacity:.7">{terms.marked(escape(name))}</th>' for name in head
    )
    body = "".join("<tr>" + "".join(f'<td style="{cell}">{value}</td>' for value in row) + "</tr>" for row in rows)
    st.html(
        '<div style="overflow-x:auto"><table '
        'style="border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
