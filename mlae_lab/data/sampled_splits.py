"""Which split an image of a user's folder belongs to, where the folder does not say.

Every image decides for itself, by a hash of the seed and its path below the folder: adding or removing images moves
no other image to another split, and the result is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from mlae_lab.data.listing import composed

Classes = dict[str, list[str]]  # class name in form C, to paths below the dataset's folder
SHARE = 0.2  # of the images, in each sampled split
_LARGE_0_5 = 1500  # images from which on version 0.5 used VTAB-1k's sizes


def draw_key(path: str, seed: int) -> bytes:
    """Random sort key of an image, the same on every machine, whatever Unicode form its disk uses."""
    return hashlib.sha256(f"{seed}\n{composed(path)}".encode("utf-8", "surrogateescape")).digest()


def sampled(source: Classes, missing: Sequence[str], seed: int) -> tuple[dict[str, Classes], list[str]]:
    """Divide images into train and the missing splits, each a fifth of the images on average.

    With u uniform in [0, 1) from `draw_key`, an image belongs to the last missing split if u >= 1 - SHARE, to the one
    before if u >= 1 - 2 SHARE, else to train. Only where that would leave a class without a training image, or a split
    empty, the image that comes next in this order fills the place; such images may move when the folder grows.

    Args:
        source: Images by class.
        missing: "val", "test" or both.
        seed: Of the hash.

    Returns:
        Images by split and class, and the paths of the images that fill a place.
    """
    paths = [path for of_class in source.values() for path in of_class]
    position = {path: int.from_bytes(draw_key(path, seed)[:8], "big") / 2**64 for path in paths}
    name_of = {path: name for name, paths in source.items() for path in paths}
    order = sorted(position, key=lambda path: (position[path], path))
    split_of = {path: _split(position[path], missing) for path in order}
    filled: list[str] = []

    def fill(path: str, split: str) -> None:
        split_of[path] = split
        filled.append(path)

    in_train = {name_of[path] for path in order if split_of[path] == "train"}
    for path in order:  # the smallest of each class that has none in train
        if name_of[path] not in in_train:
            in_train.add(name_of[path])
            fill(path, "train")
    for split in missing:
        if split in split_of.values():
            continue
        train = [path for path in order if split_of[path] == "train"]
        more = {name_of[path] for path in train if sum(name_of[p] == name_of[path] for p in train) > 1}
        candidates = [path for path in reversed(train) if name_of[path] in more]
        candidates += [path for path in reversed(order) if sum(s == split_of[path] for s in split_of.values()) > 1]
        fill(candidates[0], split)
    return _by_class(split_of, name_of), filled


def _split(u: float, missing: Sequence[str]) -> str:
    for number, split in enumerate(reversed(missing), 1):
        if u >= 1 - number * SHARE:
            return split
    return "train"


def _by_class(split_of: dict[str, str], name_of: dict[str, str]) -> dict[str, Classes]:
    splits: dict[str, Classes] = {}
    for path, split in split_of.items():
        splits.setdefault(split, {}).setdefault(name_of[path], []).append(path)
    return splits


def stratified(source: Classes, sizes: Mapping[str, int], key: Callable[[str], bytes]) -> dict[str, Classes]:
    """Divide images into splits of exact sizes with equal shares of every class, as far as whole images allow.

    The images of each class get evenly spaced positions between 0 and 1 in random order, the first of them 0, so that
    every class is in the first split; the sorted sequence of all images is cut.

    Args:
        source: Images by class.
        sizes: Number of images of each split, in order; together all images.
        key: Random sort key of an image. Images with equal keys, which are neighbours then, are usually in one split.

    Returns:
        Images by split and class.
    """
    sequence = []
    for name, paths in source.items():
        shuffled = sorted((key(path), path) for path in paths)
        for rank, (drawn, path) in enumerate(shuffled):
            sequence.append(((rank + 0.5) / len(shuffled) if rank else 0.0, drawn, name, path))
    sequence.sort()
    splits: dict[str, Classes] = {}
    start = 0
    for split, size in sizes.items():
        splits[split] = {}
        for _, _, name, path in sequence[start : start + size]:
            splits[split].setdefault(name, []).append(path)
        start += size
    return splits


# ---------------------------------------------------------------- version 0.5


def sampled_0_5(source: Classes, missing: Sequence[str], seed: int) -> dict[str, Classes]:
    """The splits of version 0.5, for runs that it made: exact sizes, stratified by class.

    `stratified` at 800 / 200 / rest from 1,500 images on, else at 60 / 20 / 20 percent. One more image changes the
    split of others, which is why new runs use `sampled`.
    """
    images = sum(map(len, source.values()))
    fifth = max(1, round(images / 5))
    sizes = {"train": images - fifth * len(missing), **dict.fromkeys(missing, fifth)}
    if len(missing) == 2 and images >= _LARGE_0_5:
        sizes = dict(zip(("train", *missing), (800, 200, images - 1000), strict=True))
    return stratified(source, sizes, lambda path: draw_key(path, seed))
