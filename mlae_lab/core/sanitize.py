"""Removal of control and invisible characters from untrusted text."""

from __future__ import annotations

import re
import unicodedata

_WORD, _MESSAGE = 300, 2000  # characters
_JOINERS = "\u200c\u200d"  # invisible, but required by some scripts and by emoji


def one_line(text: str) -> str:
    """Untrusted text as a single line without control or invisible characters; white space becomes single spaces."""
    return " ".join(printable("".join(" " if c.isspace() else c for c in text)).split())


def readable(text: str) -> str:
    """An error message that may repeat untrusted text, as one line; long words and messages are cut in the middle."""
    words = (_cut(word, _WORD) for word in one_line(text).split(" "))
    return _cut(" ".join(words), _MESSAGE)


def _cut(text: str, most: int) -> str:
    """The first and the last characters: a message begins with the cause and ends with the cure."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def printable(text: str) -> str:
    """Text without control or invisible characters, except for tabs and the two zero-width joiners."""
    if text.isprintable():  # true of most texts, and much faster
        return text
    return "".join(c for c in text if c == "\t" or c in _JOINERS or unicodedata.category(c)[0] != "C")


def spreadsheet_text(text: str) -> str:
    """A text for a CSV file that no spreadsheet takes for a formula."""
    is_number = text.replace(".", "", 1).replace("e", "", 1).lstrip("+-").isdecimal()
    is_formula = re.match(r"[=+\-@]", text) or re.search(r"[;\t]\s*[=+\-@]", text)  # some split at semicolons
    return f"'{text}" if is_formula and not is_number else text
