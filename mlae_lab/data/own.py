"""A user's own images: a folder of class folders, with or without train, val and test above them.

`data.folder_files` finds the images and `data.split_names` the split folders; a missing split is sampled with a seed
(`data.sampled_splits`). A folder with VTAB's lists is read by its lists.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from mlae_lab.data import vtab
from mlae_lab.data.bundled import DataError
from mlae_lab.data.folder_files import SUFFIXES, FolderFiles, is_of_other_program, read_files, unreadable_note
from mlae_lab.data.listing import SPLITS, Item, Listing, composed, counted, natural, shown, some
from mlae_lab.data.sampled_splits import Classes, draw_key, sampled, sampled_0_5
from mlae_lab.data.split_names import split_folders, split_named

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
    files = read_files(folder, as_0_5, unreadable)
    given, notes = splits_of(folder, files, as_0_5)
    paths = [path for classes in given.values() for of_class in classes.values() for path in of_class]
    left_out = {path: files.unreadable[path] for path in paths if path in files.unreadable}
    if not as_0_5:
        _check_unreadable(folder, given, left_out)
        _check_links(folder, given, files.links)
        given, merged = merged_by_case(_only_readable(given, files))
        notes += merged
        _check_shared_classes(folder, given)
    names = _checked_names(folder, given, bool(left_out))
    completed, more = _completed(given, seed, as_0_5)
    notes += [*more, *([unreadable_note(left_out, len(paths))] if left_out else []), *files.notes()]
    label = {name: i for i, name in enumerate(names)}
    splits: dict[str, tuple[Item, ...]] = {split: _items(completed.get(split, {}), label, seed) for split in SPLITS}
    return Listing(
        folder, "own", splits, tuple(shown(name) for name in names), notes=tuple(notes),
        left_out=tuple(sorted(left_out)),
    )  # fmt: skip


def read_images(folder: Path) -> Listing:
    """Every image below a folder, whatever its layout, with the label 0: to find the images of a run among them.

    Raises DataError for a folder that cannot be read.
    """
    files = read_files(folder, False, {})
    items: tuple[Item, ...] = tuple((path, 0) for path in files.readable(files.images))
    return Listing(folder, "own", {"train": items, "val": (), "test": ()}, ("",))


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
        notes += (unreadable_note({path: unreadable[path] for path in left_out}, len(listed)),)
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


def splits_of(folder: Path, files: FolderFiles, as_0_5: bool) -> tuple[dict[str, Classes], list[str]]:
    """Images by split and class, unreadable ones included, and notes; the split is "" for class folders alone."""
    inside: dict[str, Classes] = {name: {} for name in files.folders}  # of each folder, its own folders
    loose: dict[str, list[str]] = {name: [] for name in files.folders}
    for path in files.images:
        top, *middle = path.split("/")[:-1] or [""]
        if middle:
            inside[top].setdefault(composed(middle[0]), []).append(path)
        elif top:
            loose[top].append(path)
    split_of = split_folders(files.folders, as_0_5)
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
            roots = {folder.resolve() / name: name for name in others}
            linked = {name for root, name in roots.items() for to in files.links.values() if to.is_relative_to(root)}
            _check_misspelt(folder, given, {name: inside[name] for name in others if name not in linked})
        notes = [f"Only train, val and test are read, not {some(others)}."] if others else []
        if without_class := [*stray, *(path for name in split_of for path in loose[name])]:
            notes.append(f"Images outside the class folders have no class and are ignored: {some(without_class)}.")
        unusual = [f"{n} as {split}" for n, split in split_of.items() if split_named(n, as_0_5=True) is None]
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
    if len(classes) != 1 or split_named(next(iter(classes)), False) != split:
        return classes
    inner: Classes = {}
    for path in next(iter(classes.values())):
        parts = path.split("/")
        if len(parts) < 4:  # an image directly in the inner folder: then that is a class
            return classes
        inner.setdefault(composed(parts[2]), []).append(path)
    return inner


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


def _only_readable(given: Mapping[str, Classes], files: FolderFiles) -> dict[str, Classes]:
    """The images that can be read; a class without any in a split is left out there."""
    readable: dict[str, Classes] = {}
    for split, classes in given.items():
        for name, paths in classes.items():
            if kept := files.readable(paths):
                readable.setdefault(split, {})[name] = kept
    return readable


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


def merged_by_case(given: dict[str, Classes]) -> tuple[dict[str, Classes], list[str]]:
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


# ---------------------------------------------------------------- missing splits


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
