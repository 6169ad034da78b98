"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
