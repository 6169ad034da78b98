"""A user's own images: a folder of class folders, with or without train, val and test above them.

A missing split is sampled with a seed (`data.sampled_splits`). A folder with VTAB's lists is read by its lists.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from mlae_lab.data import vtab
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import SPLITS, Item, Listing, composed, counted, shown, some
from mlae_lab.data.sampled_splits import Classes, draw_key, sampled, sampled_0_5

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MAX_CLASSES = 100_000  # more is a typing error in a list, and a head of that size would fill the memory


def read_own(folder: Path, seed: int = 0, as_0_5: bool = False) -> Listing:
    """The images below a user's folder, a listing of kind "own".

    Class folders alone are split about 60 / 20 / 20 percent with every class in train (`data.sampled_splits`). Folders
    train, val (valid, validation) and test of class folders are used as they are; a missing val or test is about 20
    percent of train, and if both are missing train is split as above. A class is named after its folder; classes are in
    natural order (2 before 10).

    Args:
        folder: That holds the class folders or the split folders.
        seed: Of the splits that are sampled.
        as_0_5: Whether to sample missing splits as version 0.5 did, for a run that it made.

    Raises:
        DataError: there is no folder, fewer than 2 classes, a class with fewer than 2 images, or split folders without
            a train of class folders.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one that holds a folder of images for each class")
    if vtab.has_lists(folder):
        return _by_lists(folder)
    given, notes = _read_folders(folder)
    names = _checked_names(folder, given)
    completed, more = _completed(given, seed, as_0_5)
    notes += more
    label = {name: i for i, name in enumerate(names)}
    splits: dict[str, tuple[Item, ...]] = {split: _items(completed.get(split, {}), label, seed) for split in SPLITS}
    return Listing(folder, "own", splits, tuple(shown(name) for name in names), notes=tuple(notes))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: numbers inside a name by value, letters without case, the name itself to break ties."""
    words = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(word[:999]), "") if i % 2 else (1, 0, word) for i, word in enumerate(words) if word], name


def _by_lists(folder: Path) -> Listing:
    splits, lists, notes = vtab.read_lists(folder)
    labels = {label for split in SPLITS for _, label in splits[split]}
    classes = max(labels) + 1
    if len(labels) < 2 or not 2 <= classes <= _MAX_CLASSES:
        raise DataError(
            f"The labels in the lists of {folder} run from {min(labels):,} to {max(labels):,}: "
            f"they must count at least 2 and at most {_MAX_CLASSES:,} classes from 0"
        )
    return Listing(folder, "own", splits, tuple(str(i) for i in range(classes)), notes=notes, lists=lists)


# ---------------------------------------------------------------- the content of the folder


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}): check its permissions") from None


def _visible_folders(folder: Path) -> list[str]:
    return sorted((name for name in _names(folder) if (folder / name).is_dir()), key=natural)


def _read_folders(folder: Path) -> tuple[dict[str, Classes], list[str]]:
    """Images by split and class, and notes; the split is "" for class folders alone."""
    names = _visible_folders(folder)
    split_of = {name: _SPLIT_NAMES[name.casefold()] for name in names if name.casefold() in _SPLIT_NAMES}
    given: dict[str, Classes] = {}
    loose = False  # images directly below train: then it is not a split, but possibly a class
    for name, split in split_of.items():
        loose = loose or (split == "train" and any(map(_is_image, _names(folder / name))))
        for class_name, paths in _classes(folder, name).items():
            given.setdefault(split, {}).setdefault(class_name, []).extend(paths)
    others = [name for name in names if name not in split_of]
    if "train" in given and not loose and (len(given) > 1 or not others):
        return given, [f"Only train, val and test are read, not {some(others)}."] if others else []
    if split_of and not others:
        raise DataError(
            f"{folder} has only {some(list(split_of))}: it needs a folder train that holds a folder of images for each "
            "class and no loose images"
        )
    classes = _classes(folder, "")
    empty = [name for name in names if composed(name) not in classes]
    notes = [f"Folders without images are ignored: {some(empty)}."] if empty else []
    stray = [name for name in _names(folder) if _is_image(name) and name not in names]
    if stray:
        notes.append(f"Images outside the class folders have no class and are ignored: {some(stray)}.")
    return {"": classes}, notes


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _classes(folder: Path, parent: str) -> Classes:
    """Images of each class folder below folder/parent, nested ones included; folders without images are left out."""
    classes: Classes = {}
    for name in _visible_folders(folder / parent):
        for inner, folders, files in os.walk(folder / parent / name):
            folders[:] = [child for child in folders if not child.startswith(".")]
            start = Path(inner).relative_to(folder).as_posix()
            paths = [f"{start}/{file}" for file in files if _is_image(file)]
            if paths:
                classes.setdefault(composed(name), []).extend(paths)
    return classes


def _checked_names(folder: Path, given: dict[str, Classes]) -> list[str]:
    total = Counter({name: 0 for classes in given.values() for name in classes})
    for classes in given.values():
        total.update({name: len(paths) for name, paths in classes.items()})
    if len(total) < 2:
        present = f"only the class folder {shown(next(iter(total)))!r}" if total else "no class folder"
        raise DataError(
            f"{folder} has {present} with images ({', '.join(suffix[1:] for suffix in SUFFIXES)}): "
            "at least 2 classes are needed, each a folder"
        )
    few = sorted((name for name, count in total.items() if count < 2), key=natural)
    if few:
        raise DataError(f"{folder} has classes with a single image ({some(few)}): each class needs at least 2")
    return sorted(total, key=natural)


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
