"""Sentences on a page. Streamlit's boxes, labels and toasts read markdown; words of others must be none there."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`]+`)")  # our own commands, and nothing in there is markdown
# markdown makes a link of each
_ADDRESS = re.compile(r"((?:(?:https?://|www\.)[^\s`<>()\[\]]+|[\w.+-]+@[\w-]+\.[\w.-]+)(?<![.,;:!?]))")
_MARKDOWN = re.compile(r"[\\*\[\]<$~`]|(?<!\w)_|_(?!\w)|:(?=\w)|^#")


def plain(text: str) -> str:
    """A text with words of others in it, so that no link, image or formula comes of them. What stands between
    backticks stays code, and addresses become code: they can be read and copied, not clicked."""
    pieces = _CODE.split(text)
    pieces[::2] = [_without_markdown(piece) for piece in pieces[::2]]
    return "".join(pieces)


def _without_markdown(text: str) -> str:
    pieces = _ADDRESS.split(text)
    pieces[::2] = [_MARKDOWN.sub(r"\\\g<0>", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"`{address}`" for address in pieces[1::2]]
    return "".join(pieces)


def sentence(text: str | Exception) -> str:
    """A text, or what an error says, as a sentence: it begins with a capital and ends with one full stop."""
    said = str(text) or (type(text).__name__ if isinstance(text, Exception) else "")
    if not said:
        return ""
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
