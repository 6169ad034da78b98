"""Texts that came from elsewhere, as a page and a terminal may show them: a stranger's, and the system's."""

from __future__ import annotations

import errno
import sqlite3
import unicodedata

_CURES = {
    errno.ENOSPC: "make room on its disk", errno.EDQUOT: "make room on its disk",
    errno.EACCES: "choose a place that can be read and written", errno.EPERM: "choose a place that can be read and written",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "choose another place, or bring it back", errno.ENOTDIR: "choose another place, or bring it back",
    errno.ENOMEM: "end other programs and try again", errno.EAGAIN: "end other programs and try again",
    errno.EMFILE: "end other programs and try again", errno.ENFILE: "end other programs and try again",
}  # fmt: skip


def refused(error: sqlite3.Error | OSError) -> str:
    """What the store or the system refused, and what would work, in one sentence without its full stop."""
    if isinstance(error, sqlite3.Error):
        cures = {"full": "make room on its disk", "locked": "try again when nobody has it locked"}
        cure = next(
            (cure for word, cure in cures.items() if word in str(error)), "`mlae_lab doctor` says what is wrong with it"
        )
        return f"the store cannot be used now ({error}): {cure}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}: {_CURES.get(error.errno, 'try again, or ask `mlae_lab doctor`')}"


def one_line(text: str) -> str:
    """A stranger's text as one line, without control or invisible characters: a terminal obeys some of them."""
    return " ".join(printable("".join(" " if c.isspace() else c for c in text)).split())


def printable(text: str) -> str:
    """A text without control or invisible characters, but for the tab and the two joiners that scripts and emoji need."""
    if text.isprintable():  # most are, and this is much quicker
        return text
    return "".join(c for c in text if c in "\t\u200c\u200d" or unicodedata.category(c)[0] != "C")


def bytes_text(count: float) -> str:
    """A size for people: 820 bytes, 4.1 MB, 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"
