"""Files and folders on the disk: which exist, how large they are, whether they can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlae_lab.runs import paths


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def tree(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder with its status; links are not followed, unreadable files are skipped."""
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(parent, name), os.stat(os.path.join(parent, name), follow_symlinks=False)
            except OSError:
                continue


def bytes_of(*files: Path) -> int:
    """The total size of these files; one that cannot be read counts as 0."""
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def database_files(folder: Path) -> list[Path]:
    """The three files of a store's database: the database, its write-ahead log and its shared memory."""
    file = paths.database(folder)
    return [file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")]


def write_problem(folder: Path) -> str:
    """Why this process cannot write into a folder or make it; "" if it can."""
    nearest = existing(folder)
    if not nearest.is_dir():
        return "is a file, not a folder" if nearest == folder else f"cannot be made: {nearest} is a file, not a folder"
    try:
        if nearest == folder:
            with tempfile.TemporaryFile(dir=nearest):
                return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"cannot be made: {nearest} is not yours to write"
