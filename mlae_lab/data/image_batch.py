"""Images that a trained run classifies: every image below a folder or in a zip, without labels."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlae_lab.data.bundled import DataError
from mlae_lab.data.dataset_input import unpack_images
from mlae_lab.data.folder_files import read_files
from mlae_lab.data.listing import natural, shown
from mlae_lab.data.own_dataset import new_staging
from mlae_lab.data.own_source import NO_IMAGE, OTHER_PROGRAMS, OUTSIDE


@dataclass(frozen=True)
class ImageBatch:
    """The images below a folder.

    Attributes:
        folder: What the paths are relative to.
        paths: Of the images in natural order, also of those that cannot be read.
        ignored: Reason to the files and folders that are not classified.
    """

    folder: Path
    paths: tuple[str, ...]
    ignored: dict[str, tuple[str, ...]]

    def stamp(self, paths: Sequence[str]) -> str:
        """Identifies the content of some of the files by their sizes and times."""
        digest = hashlib.sha256()
        for path in paths:
            try:
                file = os.stat(self.folder / path)
                digest.update(f"{file.st_size} {file.st_mtime_ns};".encode())
            except OSError:
                digest.update(b"-;")
        return digest.hexdigest()[:16]


def read_batch(folder: Path, root: Path | None = None) -> ImageBatch:
    """The images below a folder, at any depth.

    Args:
        folder: That holds them.
        root: That no image may leave by a link; None for a folder that its own user names.

    Raises:
        DataError: The folder cannot be read or holds no image.
    """
    files = read_files(folder, False, {}, root)
    images = set(files.images) | set(files.unreadable)
    ignored = {NO_IMAGE: sorted(set(files.others) - images), OTHER_PROGRAMS: sorted(files.of_programs)}
    ignored[OUTSIDE] = sorted(files.outside)
    if not images:
        raise DataError(f"{shown(str(folder))} holds no image: give a folder or a zip with images")
    named = {reason: tuple(paths) for reason, paths in ignored.items() if paths}
    return ImageBatch(folder, tuple(sorted(images, key=natural)), named)


@contextmanager
def opened_batch(path: Path) -> Iterator[ImageBatch]:
    """The images of a folder or of a zip that a user of this machine names; a zip is unpacked until the block ends.

    Raises:
        DataError, FetchError: It cannot be read, or holds no image.
    """
    if path.is_dir():
        yield read_batch(path)
        return
    staging = new_staging()
    try:
        unpack_images(path, staging / "images", path.name)
        yield read_batch(staging / "images")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
