"""A lock file, held by one thread of one process at a time; the kernel releases it when the process dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlae_lab.file_locking import fcntl

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Busy(Exception):
    """Another thread or process holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = True, remove: bool = False) -> Iterator[bool]:
    """Hold the lock in a file, which is created if it is missing.

    Args:
        path: of the lock file.
        wait: False raises Busy instead of waiting.
        remove: delete the file before the lock is released.

    Yields:
        Whether the lock is really held: some network disks support none, and callers must then still be correct, if
        slower.

    Raises:
        OSError: the file cannot be created.
    """
    file, held = _take(path, wait)
    try:
        yield held
    finally:
        if remove:
            with suppress(OSError):
                path.unlink()
        os.close(file)


def _take(path: Path, wait: bool) -> tuple[int, bool]:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            held = _flock(file, wait)
            if not held or _is(file, path):
                return file, held
        except BaseException:  # including an interrupt while waiting
            os.close(file)
            raise
        os.close(file)  # its holder has deleted the file: a lock on it would exclude nobody


def _flock(file: int, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
