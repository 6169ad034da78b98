"""FGVC with VPT's splits: train.json, val.json and test.json beside a data set's own images.

Each file is one object {image: class id}. What an image's path starts from differs from copy to
copy, and so do the ids; both are settled here, once per split and once per data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mlae_lab.core.catalog import Task
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import (
    SPLITS,
    UNKNOWN_LABEL,
    DiskNames,
    Item,
    Listing,
    counted,
    find_folder,
    inside,
    shown,
    some,
)

IMAGE_ROOTS = {"cub": "images", "nabirds": "images", "stanford_dogs": "Images"}  # the others: the data set's folder
_OTHER_ROOTS = ("images", "Images", "jpg", "car_ims")  # where the archives of the data sets unpack to


def find_fgvc(root: Path, task: Task) -> Path | None:
    """The data set's folder: root itself, below root, or below root/fgvc, under its name or an alias.

    Case, dashes and underscores do not count. Only a folder with a train.json counts; None if there is none.
    """
    return find_folder(root, (task.name, *task.aliases), "fgvc", lambda folder: (folder / "train.json").is_file())


def read_fgvc(folder: Path, task: Task) -> Listing:
    """The images that the three files name, with the class ids of train as labels 0, 1, ... in rising order.

    A class is called after its folder where each class has one of its own, else after its id. Ids
    that only val or test have become UNKNOWN_LABEL and a problem of the listing.
    Raises DataError for a file that is missing or is no such object, an id that is no whole number, a
    path that leaves the folder, and a split of which no image can be found.
    """
    disk = DiskNames(folder)
    ids = {split: _read_split(folder, split) for split in SPLITS}
    labels = {class_id: label for label, class_id in enumerate(sorted({class_id for _, class_id in ids["train"]}))}
    splits, problems = {}, []
    for split in SPLITS:
        paths = _resolved(folder, split, [key for key, _ in ids[split]], task, disk)
        known = [labels.get(class_id, UNKNOWN_LABEL) for _, class_id in ids[split]]
        splits[split] = tuple(zip(paths, known, strict=False))
        strange = [(path, i) for path, (_, i) in zip(paths, ids[split], strict=False) if i not in labels]
        if strange:
            lacking = some([str(class_id) for class_id in sorted({class_id for _, class_id in strange})])
            problems.append(
                f"{split}.json has class ids that train.json lacks ({lacking}), "
                f"which leaves {counted(len(strange))} without a label: {some([path for path, _ in strange])}."
            )
    return Listing(folder, "fgvc", splits, _class_names(splits["train"], list(labels)), tuple(problems))


def _read_split(folder: Path, split: str) -> list[tuple[str, int]]:
    """(key in plain form, class id) pairs, in the file's order; a key that is there twice comes twice."""
    path = folder / f"{split}.json"
    try:
        # Pairs as a tuple: a dict would drop a key's first id in silence, and a list would pass for an array.
        pairs = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=tuple)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: an FGVC data set needs train.json, val.json and test.json") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it is yours to read") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON in UTF-8 ({error}): it must be one object of image to class id") from None
    if not isinstance(pairs, tuple) or not pairs:
        kind = "an empty object" if pairs == () else "not an object"
        raise DataError(f'{path} is {kind}: it must be one object of image to class id, like {{"1.jpg": 7}}')
    return [(inside(key, str(path)), _class_id(value, key, path)) for key, value in pairs]


def _class_id(value: object, key: str, path: Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    raise DataError(f"{path}: the class id of {shown(key)!r} is {value!r}, but it must be a whole number")


def _resolved(folder: Path, split: str, keys: list[str], task: Task, disk: DiskNames) -> list[str]:
    """The keys as paths below the folder, all made the way that works for the first image that is there."""
    for key in keys:
        for way, path in enumerate(_ways(key, task)):
            if disk.find(path):
                paths = [next(islice(_ways(other, task), way, None)) for other in keys]
                return [disk.find(path) or path for path in paths]
    tried = some([str(folder / path) for path in dict.fromkeys(_ways(keys[0], task))], 3)
    raise DataError(f"{split}.json lists {counted(len(keys))} and none is there: looked for {tried}")


def _ways(key: str, task: Task) -> Iterator[str]:
    """Where a key may point, the likeliest first: always equally many paths, in the same order.

    Never the bare file name: in two folders of Stanford Cars it stands for two images.
    """
    roots = ("", IMAGE_ROOTS.get(task.name, ""), *_OTHER_ROOTS)
    shorter = key.partition("/")[2] or key  # some copies begin with the data set's own folder
    for tail in (key, shorter):
        for root in roots:
            yield f"{root}/{tail}" if root else tail


def _class_names(train: tuple[Item, ...], ids: list[int]) -> tuple[str, ...]:
    folders: dict[int, set[str]] = {}
    for path, label in train:
        folders.setdefault(label, set()).add(Path(path).parent.name)
    names = [shown(next(iter(found))) for _, found in sorted(folders.items()) if len(found) == 1]
    if len(names) == len(set(names)) == len(ids) > 1:
        return tuple(names)
    return tuple(str(class_id) for class_id in ids)
