"""Files that appear whole or not at all, and files of a user that are opened without ever waiting for a pipe."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mlae_lab.errors import LabError

LEFTOVER_SECONDS = 3600.0  # without a change, after which a temporary file belongs to no running process


class FileTakenError(LabError):
    """A file that the user names for output and that must not be replaced."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, for reading in binary mode.

    A pipe, a device or a socket is refused instead of opened: reading it could wait forever or never end.

    Raises:
        OSError: The file cannot be opened, or it is not a regular file.
    """
    return os.fdopen(regular_opener(path, os.O_RDONLY), "rb")


def regular_opener(path: str | os.PathLike[str], flags: int) -> int:
    """As `open_regular`, in the form of the argument `opener` of `open` and `io.FileIO`. Returns a descriptor."""
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # without O_NONBLOCK the opening of a pipe waits
    try:
        mode = os.fstat(file).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except BaseException:
        os.close(file)
        raise
    return file


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def append_line(path: Path, line: str) -> None:
    """Write one more line, in place of a last one that has no end. Raises OSError."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(f"{line}\n".encode())


def require_free(path: Path, force: bool = False, option: str = "--force", store: Path | None = None) -> None:
    """Check that a file named by the user can be written without loss.

    Args:
        path: The file to write.
        force: Whether an existing regular file may be replaced.
        option: How the user allows that, for the message.
        store: A folder in which no file is ever replaced.

    Raises:
        FileTakenError: The file exists and `force` is not given, it lies in the store, or it is a folder, a link, a
            device or a pipe.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # it does not exist, or writing it will say what is wrong
    if stat.S_ISDIR(mode):
        raise FileTakenError(f"{path} is a folder: name a file in it")
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
        raise FileTakenError(f"{path} is {kind} and is not replaced: name another file")
    if store and path.resolve().is_relative_to(store.resolve()):
        raise FileTakenError(f"{path} is a file of the store and is not replaced: name another file")
    if not force:
        raise FileTakenError(f"{path} exists: name another file, or add {option} to replace it")


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name in the same folder, then move it to its own name.

    The temporary name ends in ".part" and is new for every call, so any number of threads and processes may write the
    same file: the last one to finish wins. Until then, and if the block raises, the old file stays as it is.

    Args:
        path: The file to create or replace.
        sync: Wait until file and folder are on the disk, so that not even a power cut leaves half a file. False for
            what is worthless after one.

    Yields:
        The temporary path, for the block to write to.

    Raises:
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        if sync:
            _sync(partial)
        os.replace(partial, path)
        if sync:
            with suppress(OSError):  # some network file systems cannot sync a folder
                _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove what killed calls of `replacing` left for this path: temporary files unchanged for LEFTOVER_SECONDS."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.part")
    with suppress(OSError):
        for file in path.parent.iterdir():
            if pattern.fullmatch(file.name) and time.time() - file.stat().st_mtime > LEFTOVER_SECONDS:
                file.unlink()


def write_whole(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Create or replace a file with this content (text as UTF-8), as `replacing` does."""
    with replacing(path, sync) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
