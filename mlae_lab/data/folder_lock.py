"""One lock file, held by one thread of one process at a time; the kernel lets go of it on any death."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Busy(Exception):
    """Somebody else holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = True, remove: bool = False) -> Iterator[bool]:
    """Hold the lock in a file, made if it is missing. wait False: raise Busy rather than wait.

    remove: delete the file before letting go. Yields whether the lock is really held: some systems
    and network disks know none, and callers must then stay right, if slower. Raises OSError if the file
    cannot be made.
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
        except BaseException:  # an interrupt while waiting, too
            os.close(file)
            raise
        os.close(file)  # its holder deleted the file meanwhile: a lock on it would exclude nobody


def _flock(file: int, wait: bool) -> bool:
    if fcntl is None:
        return False
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
