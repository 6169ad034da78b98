"""Error messages: of a wrong request, of a failed system call, of a failed run."""

from __future__ import annotations

import errno
import re
import sqlite3
import sys

from mlae_lab.core.sanitize import one_line, readable
from mlae_lab.core.units import format_bytes
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM

EXPECTED_ERRORS = (LabError, sqlite3.Error, OSError)  # pages and commands show their message, never a traceback

_REMEDIES = {
    errno.ENOSPC: "free some disk space", errno.EDQUOT: "free some disk space",
    errno.EACCES: "choose a location with read and write permission",
    errno.EPERM: "choose a location with read and write permission",
    errno.EROFS: "choose a writable location",
    errno.ENOENT: "choose another location", errno.ENOTDIR: "choose another location",
    errno.ENOMEM: "close other programs and try again", errno.EAGAIN: "close other programs and try again",
    errno.EMFILE: "close other programs and try again", errno.ENFILE: "close other programs and try again",
}  # fmt: skip

_CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "std::bad_alloc")
_ALLOCATION = re.compile(r"you tried to allocate (\d{1,18}) bytes")


def error_message(error: Exception) -> str:
    """One sentence, without a full stop, for any of `EXPECTED_ERRORS`; it may repeat what a user or a file gave."""
    return readable(system_error_message(error) if isinstance(error, (sqlite3.Error, OSError)) else str(error))


def system_error_message(error: sqlite3.Error | OSError) -> str:
    """The error of the database or the operating system, and what would work, in one sentence without a full stop."""
    if isinstance(error, sqlite3.Error):
        remedies = {
            "full": "free some disk space", "locked": "try again when no other program has it locked",
            "readonly": "choose a writable store",
        }  # fmt: skip
        remedy = next(
            (remedy for word, remedy in remedies.items() if word in str(error)),
            f"run `{PROGRAM} doctor` to find the cause",
        )
        return f"the store cannot be used now ({error}): {remedy}"
    location = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, f"try again, or run `{PROGRAM} doctor`")
    return f"{location}{error.strerror or error}: {remedy}"


def failure_reason(error: BaseException) -> str:
    """Why a run or a query failed, in one sentence."""
    text = " ".join(str(error).split())
    if _is_out_of_memory(error):
        wanted = _ALLOCATION.search(text)
        size = f" ({format_bytes(int(wanted[1]))} more were needed)" if wanted else ""
        return f"out of memory{size}: try a smaller batch size, fewer experts or a backbone with fewer tokens"
    disk_full = ("No space left on device", "database or disk is full")  # messages of the system and of SQLite
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or any(
        message in text for message in disk_full
    ):
        return "the disk is full: free some space and resume the run"
    if isinstance(error, sqlite3.OperationalError) and "locked" in text:
        return "the store was locked by another program for too long: close that program, then resume the run"
    if isinstance(error, LabError):
        return readable(text)
    return f"code error, {type(error).__name__}: {one_line(text)[:300]} (see the traceback in the log)"


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # not imported here: its import may be what failed
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError) and not isinstance(error, LabError):
        return error.errno == errno.ENOMEM
    # PyTorch has no class for a CPU without memory, and C++ libraries raise what the allocator says.
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _CPU_OUT_OF_MEMORY)
