"""Files and folders as they lie on the disk: what is there, how large it is, whether it can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlae_lab.runs import paths


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def tree(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder, links not followed; what cannot be read is passed over."""
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(here, name), os.stat(os.path.join(here, name), follow_symlinks=False)
            except OSError:
                continue


def bytes_of(*files: Path) -> int:
    """The size of these files together; what cannot be read counts nothing."""
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def database_files(folder: Path) -> list[Path]:
    """The three files of a store's database: itself, its write-ahead log and the shared memory of that."""
    file = paths.database(folder)
    return [file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")]


def write_problem(folder: Path) -> str:
    """What keeps this process from writing into a folder, or from making it; "" if nothing does."""
    place = existing(folder)
    if not place.is_dir():
        return "is a file, not a folder" if place == folder else f"cannot be made: {place} is a file, not a folder"
    try:
        if place == folder:
            with tempfile.TemporaryFile(dir=place):
                return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"cannot be made: {place} is not yours to write"
