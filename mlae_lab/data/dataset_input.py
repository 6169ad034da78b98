"""Where the images of a new dataset come from: a folder, a zip, uploaded files, or a dataset that exists.

A browser names no path. It uploads files, or chooses a folder below the roots with which the server was started
($MLAE_LAB_IMAGE_FOLDERS).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlae_lab import environment
from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError, Group
from mlae_lab.core.units import format_bytes
from mlae_lab.data.bundled import DataError
from mlae_lab.data.folder_files import is_of_other_program
from mlae_lab.data.listing import counted, natural, shown
from mlae_lab.data.own_dataset import Origin, new_staging, stored
from mlae_lab.data.own_source import ImageSource, read_labels, read_source
from mlae_lab.data.progress import Meter
from mlae_lab.data.tasks import folder_of, image_folder
from mlae_lab.data.unpack import unpack

MAX_FILES = 50_000
_DEEPEST = 40  # folders in each other, in a zip
MAX_UNPACKED = 4_000_000_000  # bytes of a zip's files
_DEPTH = 3  # of folders below a root that a browser can choose
MAX_CHOICES = 500


@dataclass(frozen=True)
class DatasetInput:
    """What was named. linkable: whether its files belong to the lab and never change, so that hard links are safe."""

    source: ImageSource
    origin: Origin
    linkable: bool


@contextmanager
def opened(given: str, labels: Path | None = None) -> Iterator[DatasetInput]:
    """Open what a user of this machine named: a folder, a zip, or the task of an own dataset (own:NAME).

    A zip is unpacked into a folder that exists until the block ends.

    Raises:
        DataError, FetchError: It is none of these, or cannot be read.
    """
    content = read_labels(labels) if labels is not None else None
    csv_name = labels.name if labels is not None else ""
    path = image_folder(given)
    if path.is_dir():
        yield DatasetInput(read_source(path, content), Origin("folder", str(path), csv_name), False)
    elif path.is_file():
        staging = new_staging()
        try:
            unpack_images(path, staging / "images", path.name)
            yield DatasetInput(read_source(staging / "images", content), Origin("zip", path.name, csv_name), True)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    else:
        yield of_dataset(given, content, csv_name)


def of_dataset(given: str, labels: bytes | None = None, csv_name: str = "") -> DatasetInput:
    """The images of an own dataset, for a further version of it. given: the name of its task.

    Raises:
        DataError: There is no such dataset.
    """
    try:
        task = catalog.task(given)
        folder = folder_of(task) if task.group is Group.OWN else None
    except CatalogError:
        task, folder = None, None
    if task is None or folder is None:
        raise DataError(
            f"{shown(given)[:200]!r} is neither a folder, nor a zip, nor an own dataset such as own:birds: name one"
        )
    origin = Origin("dataset", folder.name, csv_name, parent=folder.name)
    return DatasetInput(read_source(folder, labels), origin, stored(folder) is not None)


# ---------------------------------------------------------------- files from a zip or a browser


def unpack_images(archive: Path, into: Path, name: str) -> None:
    """Unpack a zip of images into a folder that no entry can leave.

    Args:
        archive: The file.
        into: A new folder.
        name: Of the file in error messages.

    Raises:
        DataError: It has too many files or bytes, or the disk has too little space.
        FetchError: It is no zip, is damaged, or has an entry that would leave the folder.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            files = packed.infolist()  # folders, too: a million of them would fill a disk
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        files = []  # `unpack` says what is wrong
    _check_size(name, len(files), sum(entry.file_size for entry in files), into.parent)
    if any(entry.filename.count("/") > _DEEPEST for entry in files):
        raise DataError(f"{shown(name)} has folders nested more than {_DEEPEST} deep: put the images nearer to the top")
    unpack(archive, "zip", into, Meter(lambda progress: None, lambda: False), name)


def _check_size(name: str, files: int, size: int, disk: Path) -> None:
    if files > MAX_FILES:
        raise DataError(
            f"{shown(name)} has {counted(files, 'file')} and folders: at most {MAX_FILES:,} are taken; split it, or "
            "put the images into a folder on the machine"
        )
    if size > MAX_UNPACKED:
        raise DataError(
            f"{shown(name)} unpacks to {format_bytes(size)}: at most {format_bytes(MAX_UNPACKED)} are taken; put the "
            "images into a folder on the machine"
        )
    free = shutil.disk_usage(disk).free
    if size > free:
        raise DataError(
            f"{shown(name)} unpacks to {format_bytes(size)} and the disk has {format_bytes(free)} free: free some space"
        )


def add_files(files: Iterable[tuple[str, bytes]], into: Path) -> None:
    """Write uploaded files into a folder; of equal names the later ones get a number.

    Args:
        files: Name, of which only the last part is used, and content.
        into: The folder, which is made if it is missing.

    Raises:
        DataError: The folder would have too many files.
        OSError: It cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    number_of_files = len(os.listdir(into))
    for given, content in files:
        name = PurePosixPath(given.replace("\\", "/").replace("\0", "")).name
        if not name or name in (".", ".."):
            continue
        number_of_files += 1
        if number_of_files > MAX_FILES:
            raise DataError(f"these are more than {MAX_FILES:,} files: put the images into a folder on the machine")
        number, path = 1, into / name
        while path.exists():
            if path.stat().st_size == len(content) and path.read_bytes() == content:
                break  # the same file twice
            number += 1
            path = into / f"{PurePosixPath(name).stem} ({number}){PurePosixPath(name).suffix}"
        path.write_bytes(content)


# ---------------------------------------------------------------- folders that a browser may choose


def image_roots() -> tuple[Path, ...]:
    """The folders of $MLAE_LAB_IMAGE_FOLDERS that exist, without links. Raises LabError."""
    roots = (Path(os.path.realpath(folder)) for folder in environment.folders(environment.IMAGE_FOLDERS))
    return tuple(dict.fromkeys(root for root in roots if os.path.isdir(root)))


def folders_below(root: Path) -> list[str]:
    """The folders in a root that a browser can choose, as paths below it; "" is the root itself.

    Links and hidden folders are left out. At most MAX_CHOICES, those near the root first.
    """
    folders, level = [""], [""]
    for _ in range(_DEPTH):
        inner = []
        for parent in level:
            try:
                with os.scandir(root / parent) as entries:
                    folders_in = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:  # it is gone, or this process may not read it
                continue
            names = [name for name in folders_in if not is_of_other_program(name)]
            inner += [f"{parent}/{name}" if parent else name for name in sorted(names, key=natural)]
            if len(folders) + len(inner) >= MAX_CHOICES:
                break
        folders += inner
        level = inner
    return folders[:MAX_CHOICES]


def checked_folder(root: Path, below: str) -> Path:
    """The folder that a browser chose, without links.

    Args:
        root: One of `image_roots`.
        below: A path below it.

    Raises:
        DataError: The path leaves the root, by its name or by a link.
    """
    folder = Path(os.path.realpath(root / below))
    if root not in image_roots() or not folder.is_relative_to(root) or not folder.is_dir():
        raise DataError(f"{shown(below)[:200]!r} is no folder below the folders that this lab may read: choose another")
    return folder


def folder_in_root(root: Path, below: str) -> DatasetInput:
    """The images of a folder that a browser chose, as `checked_folder` takes it.

    Raises:
        DataError: The path leaves the root, or cannot be read.
    """
    folder = checked_folder(root, below)
    name = PurePosixPath(below).name or root.name
    return DatasetInput(read_source(folder, root=root), Origin("folder", name), False)
