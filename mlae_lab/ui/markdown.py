"""Text sanitising: Streamlit's boxes, labels and toasts render markdown, which text from outside must not contain."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`]+`)")  # the lab's commands; nothing in code is markdown
# markdown turns each into a link
_ADDRESS = re.compile(r"((?:(?:https?://|www\.)[^\s`<>()\[\]]+|[\w.+-]+@[\w-]+\.[\w.-]+)(?<![.,;:!?]))")
_MARKDOWN = re.compile(r"[\\*\[\]<$~`]|(?<!\w)_|_(?!\w)|:(?=\w)|^#")


def plain(text: str) -> str:
    """Escape markdown in a text from outside, so that no link, image or formula is rendered.

    Text between backticks stays code, and addresses become code: they can be read and copied, not clicked.
    """
    pieces = _CODE.split(text)
    pieces[::2] = [_without_markdown(piece) for piece in pieces[::2]]
    return "".join(pieces)


def _without_markdown(text: str) -> str:
    pieces = _ADDRESS.split(text)
    pieces[::2] = [_MARKDOWN.sub(r"\\\g<0>", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"`{address}`" for address in pieces[1::2]]
    return "".join(pieces)


def sentence(text: str | Exception) -> str:
    """A text, or the message of an error, with an initial capital and one full stop."""
    message = str(text) or (type(text).__name__ if isinstance(text, Exception) else "")
    if not message:
        return ""
    return f"{message[:1].upper()}{message[1:].rstrip('.')}."
