"""A user's own images: a folder of class folders, with or without train, val and test above them.

A missing split is sampled with a seed (`data.sampled_splits`). A folder with VTAB's lists is read by its lists.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from mlae_lab.data import vtab
from mlae_lab.data.bundled import DataError
from mlae_lab.data.file_kind import OTHER_IMAGES, READABLE, VIDEO, kind_of_file
from mlae_lab.data.listing import SPLITS, Item, Listing, composed, counted, shown, some
from mlae_lab.data.listing import plain as plain_name
from mlae_lab.data.sampled_splits import Classes, draw_key, sampled, sampled_0_5

# Files with these endings are listed as images without opening them; of all others the first bytes are read.
_SUFFIXES_0_5 = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
SUFFIXES = (*_SUFFIXES_0_5, ".jpe", ".jfif", *([".avif"] if "AVIF" in READABLE else []))

_SPLIT_NAMES_0_5 = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_STEMS = {
    "train": "train|training|trn",
    "val": "val|valid|validation|validate|dev|devel|development|eval|evaluation",
    "test": "test|testing|tst",
}
_SPLIT_PATTERNS = {
    split: re.compile(f"(?:seg)?(?:{stems})(?:set|split|data|dataset|images?|imgs?)?")
    for split, stems in _STEMS.items()
}
# Folders of file managers, network storage and archive programs; those that begin with a dot are hidden anyway.
_OTHER_PROGRAMS = {
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "lost+found", "found.000", "system volume information", "__macosx", "__pycache__",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_MAX_CLASSES = 100_000  # more is a typing error in a list, and a head of that size would fill the memory


def read_own(
    folder: Path, seed: int = 0, as_0_5: bool = False, unreadable: Mapping[str, str] = MappingProxyType({})
) -> Listing:
    """The images below a user's folder, a listing of kind "own".

    Class folders alone are split about 60 / 20 / 20 percent with every class in train (`data.sampled_splits`). Folders
    train, val and test of class folders, under any of their usual names, are used as they are; a missing val or test is
    about 20 percent of train, and if both are missing train is split as above. A class is named after its folder;
    classes are in natural order (2 before 10).

    Args:
        folder: That holds the class folders or the split folders.
        seed: Of the splits that are sampled.
        as_0_5: Whether to read the folder as version 0.5 did, for a run that it made.
        unreadable: Files to leave out: path below the folder to the reason.

    Raises:
        DataError: there is no folder, fewer than 2 classes, a class with fewer than 2 images or none that can be read,
            split folders without a train of class folders, folders that may be splits or classes, or an evaluation
            split without any class of train.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one that holds a folder of images for each class")
    if vtab.has_training_lists(folder):
        return _by_lists(folder, as_0_5, unreadable)
    files = _read_files(folder, as_0_5, unreadable)
    given, notes = _splits_of(folder, files, as_0_5)
    if not as_0_5:
        files.restrict({path for classes in given.values() for paths in classes.values() for path in paths})
        _check_unreadable(folder, given, files.unreadable)
        _check_links(folder, given, files.links)
        given = {
            split: kept
            for split, classes in given.items()
            if (kept := {name: readable for name, paths in classes.items() if (readable := files.readable(paths))})
        }
        given, merged = _merged_by_case(given)
        notes += merged
        _check_shared_classes(folder, given)
    names = _checked_names(folder, given, bool(files.unreadable))
    completed, more = _completed(given, seed, as_0_5)
    notes += [*more, *files.notes()]
    label = {name: i for i, name in enumerate(names)}
    splits: dict[str, tuple[Item, ...]] = {split: _items(completed.get(split, {}), label, seed) for split in SPLITS}
    return Listing(
        folder, "own", splits, tuple(shown(name) for name in names), notes=tuple(notes),
        left_out=tuple(sorted(files.unreadable)),
    )  # fmt: skip


def read_images(folder: Path) -> Listing:
    """Every image below a folder, whatever its layout, with the label 0: to find the images of a run among them.

    Raises DataError for a folder that cannot be read.
    """
    files = _read_files(folder, False, {})
    items: tuple[Item, ...] = tuple((path, 0) for path in files.readable(files.images))
    return Listing(folder, "own", {"train": items, "val": (), "test": ()}, ("",))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: numbers inside a name by value, letters without case, the name itself to break ties."""
    words = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(word[:999]), "") if i % 2 else (1, 0, word) for i, word in enumerate(words) if word], name


def is_of_other_program(name: str) -> bool:
    """Whether a folder is hidden, or one that file managers, network storage or archive programs create."""
    return name.startswith(".") or name.casefold() in _OTHER_PROGRAMS


def _by_lists(folder: Path, as_0_5: bool, unreadable: Mapping[str, str]) -> Listing:
    splits, lists, notes = vtab.read_lists(folder)
    labels = {label for split in SPLITS for _, label in splits[split]}
    first = 0 if as_0_5 else max(0, min(labels))
    classes = max(labels) + 1 - first
    if len(labels) < 2 or not 2 <= classes <= _MAX_CLASSES:
        raise DataError(
            f"The labels in the lists of {folder} run from {min(labels):,} to {max(labels):,}: "
            f"they must count at least 2 and at most {_MAX_CLASSES:,} classes from 0"
        )
    if first:
        notes += (f"The labels in the lists run from {first:,}: there is no class below it.",)
    listed = {path for split in SPLITS for path, _ in splits[split]}
    left_out = tuple(sorted(listed & set(unreadable)))
    if left_out:
        notes += (_unreadable_note({path: unreadable[path] for path in left_out}, len(listed)),)
        lists = {}  # the census would name wrong lines
    splits = {
        split: tuple((path, label - first) for path, label in items if path not in unreadable)
        for split, items in splits.items()
    }
    for split, items in splits.items():
        if not items:
            reasons = some(sorted(set(unreadable.values())), 3)
            raise DataError(
                f"{folder}: none of the images that the list of {split} names can be read ({reasons}): restore them, "
                "or correct the paths in the list"
            )
    names = tuple(str(first + i) for i in range(classes))
    return Listing(folder, "own", splits, names, notes=notes, lists=lists, left_out=left_out)


# ---------------------------------------------------------------- the content of the folder


@dataclass
class _Files:
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
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    of_programs: set[str] = field(default_factory=set)
    links: dict[str, Path] = field(default_factory=dict)
    upward_links: list[str] = field(default_factory=list)

    def readable(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if path not in self.unreadable]

    def restrict(self, listed: Collection[str]) -> None:
        """Count only images that have a split and a class: of others, no note says that they cannot be read."""
        self.images = [path for path in self.images if path in listed]
        self.unreadable = {path: reason for path, reason in self.unreadable.items() if path in listed}

    def notes(self) -> Iterator[str]:
        if self.unreadable:
            yield _unreadable_note(self.unreadable, len(self.images))
        if self.others:
            yield f"Files that are not images are ignored: {len(self.others):,} ({some(sorted(self.others), 3)})."
        if self.of_programs:
            yield f"Hidden folders and folders of other programs are ignored: {some(sorted(self.of_programs))}."
        if self.upward_links:
            yield f"Links to a folder that holds them are ignored: {some(sorted(self.upward_links))}."


def _unreadable_note(unreadable: Mapping[str, str], total: int) -> str:
    named = [f"{path} ({reason})" for path, reason in sorted(unreadable.items())]
    return f"Left out, as they cannot be read: {len(unreadable):,} of {counted(total)}, {some(named)}."


def _read_files(folder: Path, as_0_5: bool, unreadable: Mapping[str, str]) -> _Files:
    files = _Files()

    def read(start: str, depth: int, follow: bool) -> None:
        try:
            with os.scandir(folder / start) as iterator:
                entries = sorted(iterator, key=lambda entry: entry.name)
        except OSError as error:
            if depth > 1 and as_0_5:
                return
            place = folder / start if start else folder
            raise DataError(f"{place} cannot be read ({error.strerror}): check its permissions") from None
        for entry in entries:
            path = f"{start}/{entry.name}" if start else entry.name
            if entry.name.startswith(".") and (as_0_5 or not entry.is_dir(follow_symlinks=follow)):
                continue
            if entry.is_dir(follow_symlinks=follow):
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
                read(path, depth + 1, follow=not start and _split_named(entry.name, as_0_5) is not None)
            else:
                _add(files, folder, path, as_0_5)

    read("", 0, follow=True)
    files.folders.sort(key=natural)
    _count_videos_without_images(files)
    files.unreadable.update({path: unreadable[path] for path in files.images if path in unreadable})
    return files


def _add(files: _Files, folder: Path, path: str, as_0_5: bool) -> None:
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


def _count_videos_without_images(files: _Files) -> None:
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


def _split_named(name: str, as_0_5: bool) -> str | None:
    """The split that a folder's name stands for."""
    if as_0_5:
        return _SPLIT_NAMES_0_5.get(name.casefold())
    return next((split for split, pattern in _SPLIT_PATTERNS.items() if pattern.fullmatch(plain_name(name))), None)


def _splits_of(folder: Path, files: _Files, as_0_5: bool) -> tuple[dict[str, Classes], list[str]]:
    """Images by split and class, unreadable ones included, and notes; the split is "" for class folders alone."""
    inside: dict[str, Classes] = {name: {} for name in files.folders}  # of each folder, its own folders
    loose: dict[str, list[str]] = {name: [] for name in files.folders}
    for path in files.images:
        top, *middle = path.split("/")[:-1] or [""]
        if middle:
            inside[top].setdefault(composed(middle[0]), []).append(path)
        elif top:
            loose[top].append(path)
    split_of = _split_folders(files.folders, as_0_5)
    given: dict[str, Classes] = {}
    for name, split in split_of.items():
        if not as_0_5 and not loose[name]:
            inside[name] = _without_doubled(inside[name], split)
        for class_name, paths in inside[name].items():
            given.setdefault(split, {}).setdefault(class_name, []).extend(paths)
    stray = [path for path in files.images if "/" not in path]
    of_train = [path for name, split in split_of.items() if split == "train" for path in loose[name]]
    others = [name for name in files.folders if name not in split_of]
    if not as_0_5:
        filled = [name for name in others if inside[name] or loose[name]]
        shared = set(given.get("train", {})) & {name for split in given if split != "train" for name in given[split]}
        in_train = "train" in given and (not of_train or bool(shared)) and (len(given) > 1 or not filled)
    else:
        in_train = "train" in given and not of_train and (len(given) > 1 or not others)
    if in_train:
        if not as_0_5:
            _check_misspelt(folder, given, {name: inside[name] for name in others})
        notes = [f"Only train, val and test are read, not {some(others)}."] if others else []
        if without_class := [*stray, *(path for name in split_of for path in loose[name])]:
            notes.append(f"Images outside the class folders have no class and are ignored: {some(without_class)}.")
        unusual = [f"{n} as {split}" for n, split in split_of.items() if n.casefold() not in _SPLIT_NAMES_0_5]
        if len(set(split_of.values())) < len(split_of):
            unusual = [f"{n} as {split}" for n, split in split_of.items()]
        if unusual and not as_0_5:
            notes.append(f"Folders read as splits: {some(unusual)}.")
        return given, notes
    if split_of and not others:
        raise DataError(
            f"{folder} has only {some(list(split_of))}: it needs a folder train that holds a folder of images for each "
            "class and no loose images"
        )
    if not as_0_5:
        _check_ambiguous(folder, inside, split_of)
    classes: Classes = {}
    for name in files.folders:
        paths = [*loose[name], *(path for group in inside[name].values() for path in group)]
        if paths:
            classes.setdefault(composed(name), []).extend(paths)
    empty = [name for name in files.folders if composed(name) not in classes]
    notes = [f"Folders without images are ignored: {some(empty)}."] if empty else []
    if stray:
        notes.append(f"Images outside the class folders have no class and are ignored: {some(stray)}.")
    return {"": classes}, notes


def _without_doubled(classes: Classes, split: str) -> Classes:
    """The class folders of a split whose folder holds nothing but another of that split: seg_train/seg_train."""
    if len(classes) != 1 or _split_named(next(iter(classes)), False) != split:
        return classes
    inner: Classes = {}
    for path in next(iter(classes.values())):
        parts = path.split("/")
        if len(parts) < 4:  # an image directly in the inner folder: then that is a class
            return classes
        inner.setdefault(composed(parts[2]), []).append(path)
    return inner


def _split_folders(names: Iterable[str], as_0_5: bool) -> dict[str, str]:
    """The folders that are named like a split, each with its split."""
    split_of = {name: split for name in names if (split := _split_named(name, as_0_5))}
    validation = [name for name, split in split_of.items() if split == "val"]
    evaluation = [name for name in validation if plain_name(name).startswith("eval")]
    if "test" not in split_of.values() and 0 < len(evaluation) < len(validation):  # as in Food-11
        split_of |= dict.fromkeys(evaluation, "test")
    return split_of


def _check_ambiguous(folder: Path, inside: Mapping[str, Classes], split_of: Mapping[str, str]) -> None:
    """Refuse folders that hold folders of the same names: they may be splits of the same classes.

    One equal name is enough where one of the folders is named like a split.
    """
    for (first, of_first), (second, of_second) in combinations(inside.items(), 2):
        common = sorted({n.casefold() for n in of_first} & {n.casefold() for n in of_second}, key=natural)
        if len(common) > (0 if first in split_of or second in split_of else 1):
            raise DataError(
                f"{folder}: {shown(first)} and {shown(second)} hold folders of the same names ({some(common)}), so "
                "they may be splits or classes: for splits, name them train, val and test; for classes, put their "
                "images into them directly"
            )


def _check_misspelt(folder: Path, given: Mapping[str, Classes], others: Mapping[str, Classes]) -> None:
    """Refuse a folder with train's classes that may be a split of which none has the name: `tset` next to `val`."""
    missing = [split for split in SPLITS if split not in given]
    if not missing:
        return
    of_train = {name.casefold() for name in given["train"]}
    for name, classes in others.items():
        common = sorted({n for n in classes if n.casefold() in of_train}, key=natural)
        if common:
            raise DataError(
                f"{folder}: {shown(name)} holds folders of the same names as train ({some(common)}), so it may be the "
                f"split {' or '.join(missing)}: name it so, or move it away"
            )


def _check_unreadable(folder: Path, given: Mapping[str, Classes], unreadable: Mapping[str, str]) -> None:
    """Refuse classes and splits without an image that can be read: leaving one out would change the task."""
    images: dict[str, list[str]] = {}
    for split, classes in given.items():
        for name, paths in classes.items():
            images.setdefault(f"the class {shown(name)}", []).extend(paths)
            images.setdefault(split, []).extend(paths)
    for name, paths in images.items():
        if all(path in unreadable for path in paths):
            which = f"none of the {counted(len(paths))} of {name} can"
            raise DataError(
                f"{folder}: {which if len(paths) > 1 else f'the only image of {name} cannot'} be read "
                f"({some(sorted({unreadable[path] for path in paths}), 3)}): convert or restore them, or move that "
                "folder away"
            )


def _check_links(folder: Path, given: Mapping[str, Classes], links: Mapping[str, Path]) -> None:
    """Refuse a link that would list the same files again, as another class or in another split."""
    if not links:
        return
    paths = [path for classes in given.values() for group in classes.values() for path in group]
    root = folder.resolve()
    for link, target in links.items():
        same = [other for other, other_target in links.items() if other < link and other_target == target]
        if target.is_relative_to(root):
            same.append(target.relative_to(root).as_posix())
        for other in same:
            if all(any(path.startswith(f"{name}/") for path in paths) for name in (link, other)):
                raise DataError(
                    f"{folder}: {shown(link)} and {shown(other)} are the same folder, by a link, so its images would "
                    "be listed twice: remove the link"
                )


def _merged_by_case(given: dict[str, Classes]) -> tuple[dict[str, Classes], list[str]]:
    """Classes with equal names up to case in different splits as one class, named as in train; and a note.

    Two such folders in the same split stay two classes, which the note says too.
    """
    names = {name for classes in given.values() for name in classes}
    similar: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (name not in given.get("train", {}), natural(name))):
        similar.setdefault(name.casefold(), []).append(name)
    new_name: dict[str, str] = {}
    distinct: list[str] = []
    for group in similar.values():
        if any(sum(name in classes for name in group) > 1 for classes in given.values()):
            distinct += group
        else:
            new_name |= dict.fromkeys(group[1:], group[0])
    notes = []
    if new_name:
        pairs = [f"{old} is {new}" for old, new in sorted(new_name.items())]
        notes.append(f"Class folders whose names differ only in case are one class: {some(pairs)}.")
    if distinct:
        notes.append(f"Classes whose names differ only in case are kept apart: {some(distinct)}.")
    merged: dict[str, Classes] = {}
    for split, classes in given.items():
        for name, paths in classes.items():
            merged.setdefault(split, {}).setdefault(new_name.get(name, name), []).extend(paths)
    return merged, notes


def _check_shared_classes(folder: Path, given: Mapping[str, Classes]) -> None:
    for split in ("val", "test"):
        if "train" in given and split in given and not set(given[split]) & set(given["train"]):
            raise DataError(
                f"{folder}: {split} holds the classes {some(sorted(given[split], key=natural), 3)} and train "
                f"{some(sorted(given['train'], key=natural), 3)}: both need class folders of the same names"
            )


def _checked_names(folder: Path, given: dict[str, Classes], unreadable: bool) -> list[str]:
    total = Counter({name: 0 for classes in given.values() for name in classes})
    for classes in given.values():
        total.update({name: len(paths) for name, paths in classes.items()})
    if len(total) < 2:
        present = f"only the class folder {shown(next(iter(total)))!r}" if total else "no class folder"
        raise DataError(
            f"{folder} has {present} with images ({', '.join(suffix[1:] for suffix in SUFFIXES)}): "
            f"at least 2 classes are needed, each a folder{_inner_hint(folder, list(total))}"
        )
    few = sorted((name for name, count in total.items() if count < 2), key=natural)
    if few:
        image = "image that can be read" if unreadable else "image"
        raise DataError(f"{folder} has classes with a single {image} ({some(few)}): each class needs at least 2")
    return sorted(total, key=natural)


def _inner_hint(folder: Path, names: list[str]) -> str:
    """What helps where the dataset is one folder deeper."""
    if len(names) != 1:
        return ""
    try:
        with os.scandir(folder / names[0]) as entries:
            inner = sum(entry.is_dir() and not is_of_other_program(entry.name) for entry in entries)
    except OSError:
        return ""
    return f"; or name {shown(str(folder / names[0]))}, which has {inner} folders" if inner > 1 else ""


# ---------------------------------------------------------------- splitting


def _completed(given: dict[str, Classes], seed: int, as_0_5: bool) -> tuple[dict[str, Classes], list[str]]:
    """All three splits, and notes about the sampled ones.

    Args:
        given: Classes by split, or by "" for class folders alone; returned as it is if no split is missing.
        seed: Of the splits that are sampled.
        as_0_5: Whether to sample as version 0.5 did.
    """
    missing = [split for split in ("val", "test") if split not in given]
    if not missing and "train" in given:
        return given, []
    source = given[""] if "" in given else given["train"]
    images = sum(map(len, source.values()))
    if images < 2 + len(missing):
        raise DataError(f"train has {counted(images)}: too few to split off {' and '.join(missing)}")
    kept = {split: classes for split, classes in given.items() if split in SPLITS}
    names = ", ".join(missing if "train" in given else SPLITS)
    notes = [f"Split with seed {seed}{' from train' if 'train' in given else ''}: {names}."]
    if as_0_5:
        return kept | sampled_0_5(source, missing, seed), notes
    splits, filled = sampled(source, missing, seed)
    if filled:
        notes.append(
            f"{counted(len(filled))} moved to another split, as that split or a class in train would have none: "
            f"{some(filled)}."
        )
    return kept | splits, notes


def _items(classes: Classes, label: dict[str, int], seed: int) -> tuple[Item, ...]:
    """Images with labels in random order, so that the first few show several classes."""
    items = [(path, label[name]) for name, paths in classes.items() for path in paths]
    return tuple(sorted(items, key=lambda item: draw_key(item[0], seed)))
