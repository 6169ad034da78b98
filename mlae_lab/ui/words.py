"""Sentences on a page. Streamlit's boxes, labels and toasts read markdown; words of others must be none there."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"[\\*\[\]<$~]|(?<!\w)_|_(?!\w)|:(?=\w)|^#")


def plain(text: str) -> str:
    """A text with words of others in it, so that no link, picture or formula comes of them. What stands between
    backticks stays code."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def sentence(text: str | Exception) -> str:
    """A text, or what an error says, as a sentence: it begins with a capital and ends with one full stop."""
    said = str(text) or (type(text).__name__ if isinstance(text, Exception) else "")
    if not said:
        return ""
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
