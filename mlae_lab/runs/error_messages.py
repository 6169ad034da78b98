"""Errors as sentences for people: a request that was wrong, a system call that failed, a run that failed."""

from __future__ import annotations

import errno
import sqlite3
import sys

from mlae_lab.errors import LabError

EXPECTED_ERRORS = (LabError, sqlite3.Error, OSError)  # a page or a command shows their sentence, never a traceback

_REMEDIES = {
    errno.ENOSPC: "make room on its disk", errno.EDQUOT: "make room on its disk",
    errno.EACCES: "choose a place that can be read and written",
    errno.EPERM: "choose a place that can be read and written",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "choose another place, or bring it back", errno.ENOTDIR: "choose another place, or bring it back",
    errno.ENOMEM: "end other programs and try again", errno.EAGAIN: "end other programs and try again",
    errno.EMFILE: "end other programs and try again", errno.ENFILE: "end other programs and try again",
}  # fmt: skip


def error_message(error: Exception) -> str:
    """One sentence, without a full stop, for any of `EXPECTED_ERRORS`."""
    return system_error_message(error) if isinstance(error, (sqlite3.Error, OSError)) else str(error)


def system_error_message(error: sqlite3.Error | OSError) -> str:
    """What the database or the operating system refused, and what would work, in one sentence without a full stop."""
    if isinstance(error, sqlite3.Error):
        remedies = {"full": "make room on its disk", "locked": "try again when nobody has it locked"}
        remedy = next(
            (remedy for word, remedy in remedies.items() if word in str(error)),
            "`mlae_lab doctor` says what is wrong with it",
        )
        return f"the store cannot be used now ({error}): {remedy}"
    location = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "try again, or ask `mlae_lab doctor`")
    return f"{location}{error.strerror or error}: {remedy}"


def failure_reason(error: BaseException) -> str:
    """Why a run or a query failed, in one sentence for its owner."""
    text = " ".join(str(error).split())
    if _is_out_of_memory(error):
        return "out of memory: try a smaller batch size or fewer experts"
    full = ("No space left on device", "database or disk is full")  # as the system and SQLite word it
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or any(
        words in text for words in full
    ):
        return "the disk is full: free some space and resume the run"
    if isinstance(error, sqlite3.OperationalError) and "locked" in text:
        return "the store was locked by another program for too long: end that, then resume the run"
    if isinstance(error, LabError):
        return text
    return f"code error, {type(error).__name__}: {text[:300]} (the log has the traceback)"


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # not imported here: the failure may be that it cannot be
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))
