"""Lock files that show whether a process is alive: the kernel releases them however the process ends.

Unlike a pid, a lock cannot be reused by another process. A lock may be passed to a child as an open file
(`pass_fds`); it is released when the last process that has it open has exited.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from mlae_lab.file_locking import fcntl


def held(path: Path) -> bool:
    """Whether a process holds the lock of this file; needs read permission only.

    Raises:
        OSError: If the file exists but cannot be opened, so that the answer is unknown.
    """
    try:
        probe = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(probe)


def take(path: Path) -> int | None:
    """Lock a file, creating it if it is missing.

    Returns:
        The descriptor of the open, locked file; None if another process holds the lock.

    Raises:
        OSError: If the file cannot be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if acquire(lock):
        return lock
    os.close(lock)
    return None


def acquire(lock: int) -> bool:
    """Lock an open file; False if another process holds the lock."""
    for _ in range(5):  # a process that only tests the lock (`held`) has it for a moment too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def release(lock: int) -> None:
    """Release the lock and keep the file open."""
    fcntl.flock(lock, fcntl.LOCK_UN)
