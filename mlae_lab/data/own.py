"""A user's own images: a folder of class folders, with or without train, val and test above them.

A missing split is sampled with a seed. The result depends on the images' paths below the folder and on the seed only,
not on the machine, the order of the directory or the folder's location. A folder with VTAB's lists is read by its
lists.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

from mlae_lab.data import vtab
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import SPLITS, Item, Listing, composed, counted, shown, some

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LARGE = 1500  # images from which on the split is VTAB-1k's
_MAX_CLASSES = 100_000  # more is a typing error in a list, and a head of that size would fill the memory

Classes = dict[str, list[str]]  # class name in form C, to paths below the dataset's folder


def read_own(folder: Path, seed: int = 0) -> Listing:
    """The images below a user's folder, a listing of kind "own".

    Class folders alone are split 800 / 200 / rest if there are 1,500 images or more, else 60 / 20 / 20 percent,
    stratified by class with every class in train. Folders train, val (valid, validation) and test of class folders are
    used as they are; a missing val or test is 20 percent of train, and if both are missing train is split as above. A
    class is named after its folder; classes are in natural order (2 before 10).

    Args:
        folder: that holds the class folders or the split folders.
        seed: of the splits that are sampled.

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
    completed = _completed(given, seed)
    sampled = [split for split in SPLITS if split not in given]
    if sampled:
        notes.append(f"Split with seed {seed}{' from train' if 'train' in given else ''}: {', '.join(sampled)}.")
    label = {name: i for i, name in enumerate(names)}
    splits: dict[str, tuple[Item, ...]] = {split: _items(completed[split], label, seed) for split in SPLITS}
    return Listing(folder, "own", splits, tuple(shown(name) for name in names), notes=tuple(notes))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: numbers inside a name by value, letters without case, the name itself to break ties."""
    words = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(word[:999]), "") if i % 2 else (1, 0, word) for i, word in enumerate(words) if word], name


def draw_key(path: str, seed: int) -> bytes:
    """Random sort key of an image, the same on every machine, whatever Unicode form its disk uses."""
    return hashlib.sha256(f"{seed}\n{composed(path)}".encode("utf-8", "surrogateescape")).digest()


def split_sizes(images: int) -> tuple[int, int, int]:
    """Sizes of train, val and test of 4 images or more: 800 / 200 / rest from 1,500 on, else 60 / 20 / 20 percent."""
    if images >= _LARGE:
        return 800, 200, images - 1000
    fifth = max(1, round(images / 5))
    return images - 2 * fifth, fifth, fifth


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


def _completed(given: dict[str, Classes], seed: int) -> dict[str, Classes]:
    """All three splits.

    Args:
        given: classes by split, or by "" for class folders alone; returned as it is if no split is missing.
        seed: of the splits that are sampled.
    """
    if all(split in given for split in SPLITS):
        return given
    missing = [split for split in ("val", "test") if split not in given]
    source = given[""] if "" in given else given["train"]
    images = sum(map(len, source.values()))
    if images < 2 + len(missing):
        raise DataError(f"train has {counted(images)}: too few to split off {' and '.join(missing)}")
    if len(missing) == 2:
        sizes: dict[str, int] = dict(zip(SPLITS, split_sizes(images), strict=True))
    else:
        fifth = max(1, round(images / 5))
        sizes = {"train": images - fifth, missing[0]: fifth}
    kept = {split: classes for split, classes in given.items() if split in SPLITS}
    return kept | _stratified(source, sizes, seed)


def _stratified(source: Classes, sizes: dict[str, int], seed: int) -> dict[str, Classes]:
    """Divide images into splits of these sizes, stratified by class.

    The images of each class get evenly spaced positions between 0 and 1 in random order; cutting the sorted sequence
    of all images gives every class its share in every split, up to one image. The first image of each class comes
    before all others, because a class without training images cannot be learned.
    """
    sequence = []
    for name, paths in source.items():
        shuffled = sorted((draw_key(path, seed), path) for path in paths)
        for rank, (key, path) in enumerate(shuffled):
            sequence.append(((rank + 0.5) / len(shuffled) if rank else 0.0, key, name, path))
    sequence.sort()
    splits: dict[str, Classes] = {}
    start = 0
    for split, size in sizes.items():
        splits[split] = {}
        for _, _, name, path in sequence[start : start + size]:
            splits[split].setdefault(name, []).append(path)
        start += size
    return splits


def _items(classes: Classes, label: dict[str, int], seed: int) -> tuple[Item, ...]:
    """Images with labels in random order, so that the first few show several classes."""
    items = [(path, label[name]) for name, paths in classes.items() for path in paths]
    return tuple(sorted(items, key=lambda item: draw_key(item[0], seed)))
