"""Texts that came from elsewhere, as a page and a terminal may show them."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """A stranger's text as one line, without control or invisible characters: a terminal obeys some of them."""
    return " ".join(printable("".join(" " if c.isspace() else c for c in text)).split())


def printable(text: str) -> str:
    """A text without control or invisible characters, but for the tab."""
    return "".join(c for c in text if c == "\t" or unicodedata.category(c)[0] != "C")
