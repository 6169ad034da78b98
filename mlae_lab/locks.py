"""Lock files whose holder is a living process: the kernel lets go of them on any death.

So no pid is ever believed: who holds the lock is alive, whatever number it has. A lock may be handed to a
child as an open file (`pass_fds`); it is free when the last process that has it open is gone.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


def held(path: Path) -> bool:
    """Whether some process holds the lock in this file; looking needs no right to write.

    Raises OSError for a file that is there and cannot be opened: nobody knows then.
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
    """The open, locked file, made if it is missing; None if another process holds it. Raises OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if lock_again(lock):
        return lock
    os.close(lock)
    return None


def lock_again(lock: int) -> bool:
    """Lock a file that is open; False if another process has it."""
    for _ in range(5):  # somebody who only looks (`held`) has it for a moment too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def let_go(lock: int) -> None:
    """Unlock a file and keep it open."""
    fcntl.flock(lock, fcntl.LOCK_UN)
