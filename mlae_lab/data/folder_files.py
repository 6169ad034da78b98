"""The files below a folder of a user's images: what is an image, what is not, and what belongs to other programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlae_lab.data.bundled import DataError
from mlae_lab.data.file_kind import OTHER_IMAGES, READABLE, VIDEO, kind_of_file
from mlae_lab.data.listing import counted, is_folder, natural, some
from mlae_lab.data.split_names import split_named

# Files with these endings are listed as images without opening them; of all others the first bytes are read.
_SUFFIXES_0_5 = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
SUFFIXES = (*_SUFFIXES_0_5, ".jpe", ".jfif", *([".avif"] if "AVIF" in READABLE else []))
# Folders of file managers, network storage and archive programs; those that begin with a dot are hidden anyway.
_OTHER_PROGRAMS = {
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "lost+found", "found.000", "system volume information", "__macosx", "__pycache__",
}  # fmt: skip
DATASET_FILE = "mlae-lab-dataset.json"  # how `data.own_dataset` made the folder
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", DATASET_FILE}


@dataclass
class FolderFiles:
    """What a folder holds, as paths below it.

    Attributes:
        folders: the visible folders directly in it, in natural order.
        images: readable and unreadable ones.
        unreadable: those of the images that cannot be read: path to reason.
        others: files that are no images.
        videos: those of them that are videos.
        of_programs: names of skipped folders.
        links: links to folders whose images are listed, each with the folder that it leads to.
        upward_links: links to a folder that holds them, which would list its images again.
        outside: links that leave the root, which are neither followed nor opened.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    of_programs: set[str] = field(default_factory=set)
    links: dict[str, Path] = field(default_factory=dict)
    upward_links: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def readable(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that can be read."""
        return [path for path in paths if path not in self.unreadable]

    def notes(self) -> Iterator[str]:
        """Sentences about files and folders that are ignored."""
        if self.others:
            yield f"Files that are not images are ignored: {len(self.others):,} ({some(sorted(self.others), 3)})."
        if self.of_programs:
            yield f"Hidden folders and folders of other programs are ignored: {some(sorted(self.of_programs))}."
        if self.upward_links:
            yield f"Links to a folder that holds them are ignored: {some(sorted(self.upward_links))}."


def read_files(folder: Path, as_0_5: bool, unreadable: Mapping[str, str], root: Path | None = None) -> FolderFiles:
    """What a folder holds, at any depth.

    Links to folders are followed in the folder itself and in split folders, where they may stand for classes.

    Args:
        folder: Of a user's images.
        as_0_5: Whether to read it as version 0.5 did.
        unreadable: Files that an earlier check could not read: path below the folder to the reason.
        root: That nothing may leave by a link; None for a folder that its own user names.

    Raises:
        DataError: A folder cannot be read.
    """
    files = FolderFiles()
    resolved = root.resolve() if root is not None else None

    def read(start: str, depth: int, follow: bool) -> None:
        try:
            with os.scandir(folder / start) as iterator:
                entries = sorted(iterator, key=lambda entry: entry.name)
        except OSError as error:
            if depth > 1 and as_0_5:
                return
            raise DataError(f"{folder / start} cannot be read ({error.strerror}): check its permissions") from None
        for entry in entries:
            path = f"{start}/{entry.name}" if start else entry.name
            is_dir = is_folder(entry, follow)
            if entry.name.startswith(".") and (as_0_5 or not is_dir):
                continue
            if resolved and entry.is_symlink() and not (folder / path).resolve().is_relative_to(resolved):
                files.outside.append(path)
                continue
            if is_dir:
                if not as_0_5 and is_of_other_program(entry.name):
                    files.of_programs.add(entry.name)
                    continue
                if not as_0_5 and entry.is_symlink():
                    target = (folder / path).resolve()
                    if (folder / start).resolve().is_relative_to(target):
                        files.upward_links.append(path)
                        continue
                    files.links[path] = target
                if not start:
                    files.folders.append(entry.name)
                read(path, depth + 1, follow=not start and split_named(entry.name, as_0_5) is not None)
            else:
                _add(files, folder, path, as_0_5)

    read("", 0, follow=True)
    files.folders.sort(key=natural)
    _count_videos_without_images(files)
    files.unreadable.update({path: unreadable[path] for path in files.images if path in unreadable})
    return files


def _add(files: FolderFiles, folder: Path, path: str, as_0_5: bool) -> None:
    name = path.rpartition("/")[2].lower()
    if name.endswith(_SUFFIXES_0_5 if as_0_5 else SUFFIXES):
        files.images.append(path)
    elif not as_0_5 and name not in _SYSTEM_FILES:
        kind = kind_of_file(folder / path)
        if kind in READABLE:
            files.images.append(path)
        elif kind in OTHER_IMAGES:
            files.images.append(path)
            files.unreadable[path] = kind
        else:
            files.others.append(path)
            if kind == VIDEO:
                files.videos.append(path)


def _count_videos_without_images(files: FolderFiles) -> None:
    """Videos count as unreadable images where no folder above them holds an image: else their class would vanish."""
    with_images = {path.rpartition("/")[0] for path in files.images}
    above = {str(parent) for folder in with_images for parent in PurePosixPath(folder).parents}
    counted_as_images = set()
    for path in files.videos:
        parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        if parents and parents[0] not in above and with_images.isdisjoint(parents):
            counted_as_images.add(path)
    files.images += sorted(counted_as_images)
    files.unreadable |= dict.fromkeys(counted_as_images, VIDEO)
    files.others = [path for path in files.others if path not in counted_as_images]


def unreadable_note(unreadable: Mapping[str, str], total: int) -> str:
    """The note on images that are left out. total: number of images, these included."""
    named = [f"{path} ({reason})" for path, reason in sorted(unreadable.items())]
    return f"Left out, as they cannot be read: {len(unreadable):,} of {counted(total)}, {some(named)}."


def is_system_file(name: str) -> bool:
    """Whether a file is hidden, or one that a file manager or the lab itself creates."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def is_of_other_program(name: str) -> bool:
    """Whether a folder is hidden, or one that file managers, network storage or archive programs create."""
    return name.startswith(".") or name.casefold() in _OTHER_PROGRAMS
