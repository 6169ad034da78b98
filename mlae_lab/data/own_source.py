"""What a folder holds that becomes a dataset: images with their classes and, where it says so, their splits.

Classes come from folders (`data.own`), from a CSV of file and label, or from VTAB's lists. Nothing is refused here that
a person may still change, such as a class with one image: `data.own_dataset` checks the result.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlae_lab.data import vtab
from mlae_lab.data.bundled import DataError
from mlae_lab.data.folder_files import (
    DATASET_FILE,
    SUFFIXES,
    FolderFiles,
    is_of_other_program,
    is_system_file,
    read_files,
)
from mlae_lab.data.listing import SPLITS, composed, counted, inside, shown, some
from mlae_lab.data.own import merged_by_case, read_own, splits_of
from mlae_lab.data.split_names import split_named
from mlae_lab.files import read_regular

MAX_CSV_BYTES = 20_000_000
OTHER_PROGRAMS = "hidden files and files of other programs"
NO_CLASS = "without a class"
NO_IMAGE = "not an image"
OUTSIDE = "a link that leaves the folder"
_FILE_COLUMNS = ("file", "filename", "file_name", "path", "filepath", "image", "image_path", "image_id", "id", "name")
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "species")
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold")


@dataclass(frozen=True)
class SourceImage:
    """An image: its path below the source's folder, its class, and its split, "" where the source does not say."""

    path: str
    label: str
    split: str = ""


@dataclass(frozen=True)
class ImageSource:
    """What a dataset can be made of.

    Attributes:
        folder: What the paths are relative to.
        images: In the order of the folder or of the CSV.
        left_out: Reason to the paths of the files that are no images of the source.
        notes: Sentences about what was chosen.
    """

    folder: Path
    images: tuple[SourceImage, ...]
    left_out: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the source says which images are train, and which are val or test."""
        splits = {image.split for image in self.images}
        return "" not in splits and "train" in splits and len(splits) > 1


def read_source(folder: Path, labels: bytes | None = None, root: Path | None = None) -> ImageSource:
    """Read a folder, or the one folder in it that encloses everything.

    Args:
        folder: Of class folders, of train, val and test above class folders, with VTAB's lists, or of any images.
        labels: A CSV that gives each file its label and maybe its split, in place of the folders.
        root: That no image may leave by a link; None for a folder that its own user names.

    Raises:
        DataError: The folder cannot be read or names no class, or the CSV is not one.
    """
    if not folder.is_dir():
        raise DataError(f"{shown(str(folder))} is not a folder: give one that holds images")
    given = folder
    folder, notes = _opened(folder) if labels is None else (folder, [])
    if labels is None and vtab.has_training_lists(folder):
        listing = read_own(folder)
        images = [
            SourceImage(path, listing.class_names[label], split)
            for split in SPLITS
            for path, label in listing.splits[split]
        ]
        left_out: dict[str, list[str]] = {}
        notes += listing.notes
    else:
        files = read_files(folder, False, {}, root)
        images, left_out, more = _from_csv(files, labels) if labels is not None else _from_folders(folder, files)
        notes += more
        for path, reason in files.unreadable.items():
            left_out.setdefault(f"cannot be read: {reason}", []).append(path)
        images = [image for image in images if image.path not in files.unreadable]
        if files.others:
            left_out[NO_IMAGE] = files.others
        if files.outside:
            left_out[OUTSIDE] = files.outside
    if root is not None:
        resolved = root.resolve()
        escaped = [i.path for i in images if not (folder / i.path).resolve().is_relative_to(resolved)]
        if escaped:
            left_out[OUTSIDE] = [*left_out.get(OUTSIDE, []), *escaped]
            images = [image for image in images if image.path not in set(escaped)]
    if junk := _of_programs(given):
        left_out[OTHER_PROGRAMS] = junk
    return ImageSource(folder, tuple(images), {r: tuple(sorted(p)) for r, p in left_out.items()}, tuple(notes))


def _opened(folder: Path) -> tuple[Path, list[str]]:
    """The folder, or the one in it that encloses everything, as an archive often has; with a note about it."""
    names: list[str] = []
    while len(names) < 4:
        entries = _visible(folder)
        if len(entries) != 1 or not entries[0].is_dir(follow_symlinks=False) or split_named(entries[0].name, False):
            break
        inner = folder / entries[0].name
        if not any(entry.is_dir(follow_symlinks=False) for entry in _visible(inner)):
            break  # a class
        folder = inner
        names.append(entries[0].name)
    return folder, [f"The folder {shown('/'.join(names))} encloses everything and was opened."] if names else []


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not is_system_file(e.name) and not is_of_other_program(e.name)]
    except OSError as error:
        raise DataError(f"{shown(str(folder))} cannot be read ({error.strerror}): check its permissions") from None


def _from_folders(folder: Path, files: FolderFiles) -> tuple[list[SourceImage], dict[str, list[str]], list[str]]:
    if not files.images:
        raise DataError(f"{shown(str(folder))} holds no image: give a folder with a folder of images for each class")
    given, notes = splits_of(folder, files, False)
    given, merged = merged_by_case(given)
    images = [
        SourceImage(path, name, split)
        for split, classes in given.items()
        for name, paths in classes.items()
        for path in paths
    ]
    with_class = {image.path for image in images}
    outside = [path for path in files.images if path not in with_class and path not in files.unreadable]
    return images, {NO_CLASS: outside} if outside else {}, [*notes, *merged]


def _of_programs(folder: Path) -> list[str]:
    """Hidden files and those of other programs, at any depth."""
    paths = []
    for top, _, names in os.walk(folder):
        below = Path(top).relative_to(folder).parts
        is_skipped = any(is_of_other_program(part) for part in below)
        of_programs = (name for name in names if is_skipped or is_system_file(name))
        paths += ["/".join((*below, name)) for name in of_programs if name != DATASET_FILE]
    return paths


# ---------------------------------------------------------------- a CSV of file and label


def _from_csv(files: FolderFiles, content: bytes) -> tuple[list[SourceImage], dict[str, list[str]], list[str]]:
    find = _finder(files.images)
    images: dict[str, tuple[int, SourceImage]] = {}
    missing = []
    for line, name, label, split in _rows(content):
        path = find(name)
        if path is None:
            missing.append(name)
            continue
        image = SourceImage(path, label, split)
        line_before, before = images.setdefault(path, (line, image))
        if before != image:
            raise DataError(
                f"the CSV names {shown(name)} twice, in line {line_before} as {_class_and_split(before)} and in line "
                f"{line} as {_class_and_split(image)}: keep one of them"
            )
    if not images:
        raise DataError(
            f"the CSV names {counted(len(missing), 'file')} and none of them is among the images "
            f"({some(missing, 3) or 'it has no rows'}): its first column must be paths below the folder, or file names"
        )
    left_out = {"in the CSV but not among the files": missing} if missing else {}
    if outside := [path for path in files.images if path not in images and path not in files.unreadable]:
        left_out["not in the CSV"] = outside
    splits = {image.split for _, image in images.values()}
    notes = []
    if "" in splits and len(splits) > 1:
        notes.append("Some rows of the CSV name a split and others do not: its splits are not used.")
    return [image for _, image in images.values()], left_out, notes


def labels_by_file(paths: Sequence[str], content: bytes) -> dict[str, str]:
    """The labels that a CSV gives to some of the files.

    Args:
        paths: Of all files, which the CSV names as in `read_source`.
        content: Of the CSV.

    Raises:
        DataError: It names a file that is none of them, a file twice with two labels, or a split.
    """
    find = _finder(list(paths))
    labels: dict[str, str] = {}
    for line, name, label, split in _rows(content):
        path = find(name)
        if path is None:
            raise DataError(
                f"line {line} of the CSV names {shown(name)!r}, which is no image or several of them: write its path "
                f"below the folder, such as {shown(paths[0])}"
            )
        if split:
            raise DataError(f"line {line} of the CSV names a split: corrected labels keep the splits, leave it out")
        if labels.setdefault(path, label) != label:
            raise DataError(f"the CSV names {shown(name)!r} twice with two labels: keep one of them")
    return labels


def _class_and_split(image: SourceImage) -> str:
    return shown(f"{image.label} in {image.split}" if image.split else image.label)


def _finder(paths: list[str]) -> Callable[[str], str | None]:
    """A lookup by path, else by a file name or a name without its ending that only one image has."""
    known: dict[str, list[str]] = {}
    for path in paths:
        name = composed(path)
        last = PurePosixPath(name).name
        for alias in {name, last, PurePosixPath(last).stem}:
            known.setdefault(alias, []).append(path)
    exact = {composed(path): path for path in paths}

    def find(text: str) -> str | None:
        name = composed(text.replace("\\", "/").removeprefix("./"))
        if name in exact:
            return exact[name]
        matches = known.get(name) or known.get(PurePosixPath(name).name) or []
        return matches[0] if len(matches) == 1 else None

    return find


def _rows(content: bytes) -> Iterator[tuple[int, str, str, str]]:
    """Line number, file, label and split ("" without one) of each row."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the CSV is not UTF-8 text from byte {error.start:,} on: save it as UTF-8") from None
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"the CSV cannot be read ({error}): save it with the columns file,label") from None
    if not rows:
        raise DataError("the CSV is empty: it needs the columns file,label and maybe split")
    header = [cell.lower() for cell in rows[0][1]]
    columns = [
        next((header.index(n) for n in names if n in header), None)
        for names in (_FILE_COLUMNS, _LABEL_COLUMNS, _SPLIT_COLUMNS)
    ]
    if columns[0] is None or columns[1] is None:
        if len(header) < 2 or not header[0].endswith(SUFFIXES):
            raise DataError(f"the CSV has the columns {some(rows[0][1], 6)}: name them file,label or file,label,split")
        columns = [0, 1, 2 if len(header) > 2 else None]
    else:
        rows = rows[1:]
    file, label, split = columns
    assert file is not None
    assert label is not None
    for line, row in rows:
        cells = dict(enumerate(row))
        name, value, named = (
            cells.get(file, ""),
            cells.get(label, ""),
            cells.get(split, "") if split is not None else "",
        )
        if not name or not value:
            raise DataError(f"line {line} of the CSV is {shown(delimiter.join(row))!r}: it needs a file and a label")
        part = split_named(named, False) if named else ""
        if part is None:
            raise DataError(f"line {line} of the CSV has the split {shown(named)!r}: use train, val or test")
        yield line, inside(name.replace("\\", "/"), f"line {line} of the CSV"), composed(value), part


def read_labels(path: Path) -> bytes:
    """The content of a CSV file. Raises DataError if it cannot be read or is larger than MAX_CSV_BYTES."""
    try:
        content = read_regular(path)
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read ({error.strerror}): name a CSV of file and label") from None
    if len(content) > MAX_CSV_BYTES:
        raise DataError(f"{shown(str(path))} has {len(content):,} bytes: a CSV of labels has at most {MAX_CSV_BYTES:,}")
    return content
