"""Removal of control and invisible characters from untrusted text."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, but required by some scripts and by emoji


def one_line(text: str) -> str:
    """Untrusted text as a single line without control or invisible characters; white space becomes single spaces."""
    return " ".join(printable("".join(" " if c.isspace() else c for c in text)).split())


def printable(text: str) -> str:
    """Text without control or invisible characters, except for tabs and the two zero-width joiners."""
    if text.isprintable():  # true of most texts, and much faster
        return text
    return "".join(c for c in text if c == "\t" or c in _JOINERS or unicodedata.category(c)[0] != "C")
