"""FGVC with VPT's splits: train.json, val.json and test.json next to the images of a dataset.

Each file is one object {image: class id}. The folder that image paths start from differs between copies of a dataset,
and so do the ids; the folder is determined once per split, the labels once per dataset.
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
from mlae_lab.files import read_regular

IMAGE_ROOTS = {"cub": "images", "nabirds": "images", "stanford_dogs": "Images"}  # the others: the dataset's folder
_OTHER_ROOTS = ("images", "Images", "jpg", "car_ims")  # where the archives of the datasets unpack to


def find_fgvc(root: Path, task: Task) -> Path | None:
    """The dataset's folder: root itself, below root, or below root/fgvc, under its name or an alias.

    Case, dashes and underscores are ignored. The folder must hold a train.json; None if there is none.
    """
    return find_folder(root, (task.name, *task.aliases), "fgvc", lambda folder: (folder / "train.json").is_file())


def read_fgvc(folder: Path, task: Task) -> Listing:
    """The images that the three files name, with the class ids of train as labels 0, 1, ... in ascending order.

    A class is named after its folder if each class has its own folder, else by its id. Ids that occur only in val or
    test become UNKNOWN_LABEL and a problem of the listing.

    Raises:
        DataError: a file is missing or not such an object, an id is not a whole number, a path leaves the folder, or
            no image of a split exists.
    """
    disk = DiskNames(folder)
    ids = {split: _read_split(folder, split) for split in SPLITS}
    labels = {class_id: label for label, class_id in enumerate(sorted({class_id for _, class_id in ids["train"]}))}
    splits, problems = {}, []
    for split in SPLITS:
        paths = _resolved(folder, split, [key for key, _ in ids[split]], task, disk)
        known = [labels.get(class_id, UNKNOWN_LABEL) for _, class_id in ids[split]]
        splits[split] = tuple(zip(paths, known, strict=True))
        unlabelled = [(path, i) for path, (_, i) in zip(paths, ids[split], strict=True) if i not in labels]
        if unlabelled:
            unknown_ids = some([str(class_id) for class_id in sorted({class_id for _, class_id in unlabelled})])
            problems.append(
                f"{split}.json has class ids that train.json lacks ({unknown_ids}), "
                f"which leaves {counted(len(unlabelled))} without a label: {some([path for path, _ in unlabelled])}."
            )
    return Listing(folder, "fgvc", splits, _class_names(splits["train"], list(labels)), tuple(problems))


def _read_split(folder: Path, split: str) -> list[tuple[str, int]]:
    """(key in plain form, class id) pairs in the file's order; a repeated key stays repeated."""
    path = folder / f"{split}.json"
    try:
        # Pairs as a tuple: a dict would silently drop the first id of a repeated key, a list would look like an array.
        pairs = json.loads(read_regular(path).decode("utf-8-sig"), object_pairs_hook=tuple)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: an FGVC dataset needs train.json, val.json and test.json") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
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
    raise DataError(f"{path}: the class id of {shown(key)!r} is {value!r}: it must be a whole number")


def _resolved(folder: Path, split: str, keys: list[str], task: Task, disk: DiskNames) -> list[str]:
    """The keys as paths below the folder, all formed in the way that works for the first image that exists."""
    for key in keys:
        for number, path in enumerate(_candidates(key, task)):
            if disk.find(path):
                paths = [next(islice(_candidates(other, task), number, None)) for other in keys]
                return [disk.find(path) or path for path in paths]
    tried = some([str(folder / path) for path in dict.fromkeys(_candidates(keys[0], task))], 3)
    raise DataError(f"{split}.json lists {counted(len(keys))} and none exists: looked for {tried}")


def _candidates(key: str, task: Task) -> Iterator[str]:
    """Paths that a key may stand for, the most likely first: always the same number, in the same order.

    The bare file name is not among them: in two folders of Stanford Cars it stands for two images.
    """
    roots = ("", IMAGE_ROOTS.get(task.name, ""), *_OTHER_ROOTS)
    shorter = key.partition("/")[2] or key  # some copies begin with the dataset's own folder
    for tail in (key, shorter):
        for root in roots:
            yield f"{root}/{tail}" if root else tail


def _class_names(train: tuple[Item, ...], ids: list[int]) -> tuple[str, ...]:
    folders: dict[int, set[str]] = {}
    for path, label in train:
        folders.setdefault(label, set()).add(Path(path).parent.name)
    names = [shown(next(iter(parents))) for _, parents in sorted(folders.items()) if len(parents) == 1]
    if len(names) == len(set(names)) == len(ids) > 1:
        return tuple(names)
    return tuple(str(class_id) for class_id in ids)
