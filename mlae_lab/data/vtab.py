"""VTAB-1k in its common layout: one folder per task, images below `images/`, four text lists.

A line is a path below the task's folder, one space, and a label from 0. `train800val200.txt` names a second copy of
the images in the two other training lists, so it is read only without them.
"""

from __future__ import annotations

import re
from pathlib import Path

from mlae_lab.core.catalog import Task
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import DiskNames, Item, Listing, counted, find_folder, inside, shown
from mlae_lab.files import read_regular

TRAIN, VAL, BOTH, TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"
_FIRST_VAL_LINE = 801  # of BOTH


def find_vtab(root: Path, task: Task) -> Path | None:
    """The task's folder: root itself, below root, or below root/vtab-1k, under its name or an alias.

    The folder must hold at least one of the lists. None if there is none or root cannot be read.
    """
    return find_folder(root, (task.name, *task.aliases), "vtab-1k", has_lists)


def has_lists(folder: Path) -> bool:
    """Whether the folder holds one of the four lists."""
    return any((folder / name).is_file() for name in (TRAIN, VAL, BOTH, TEST))


def has_training_lists(folder: Path) -> bool:
    """Whether the folder holds a list of training or validation images; a test.txt alone may be any text."""
    return any((folder / name).is_file() for name in (TRAIN, VAL, BOTH))


def read_vtab(folder: Path, task: Task) -> Listing:
    """The images that the folder's lists name, with as many classes as the catalog says.

    Missing images and labels out of range are left to `census`.

    Raises:
        DataError: a list is missing, empty or not text, a line is not a path and a label, or a path leaves the folder.
    """
    splits, lists, notes = read_lists(folder)
    return Listing(folder, "vtab", splits, tuple(str(i) for i in range(task.classes)), notes=notes, lists=lists)


def read_lists(
    folder: Path,
) -> tuple[dict[str, tuple[Item, ...]], dict[str, tuple[str, int]], tuple[str, ...]]:
    """A folder's lists of any task: items, list files with first lines, and notes, as in `Listing`.

    Raises DataError like `read_vtab`.
    """
    disk = DiskNames(folder)
    if not (folder / TEST).is_file():
        raise DataError(f"{folder} has no {TEST}: a VTAB-1k task needs {TRAIN}, {VAL} and {TEST}")
    test = _read_list(folder / TEST, disk)
    if all((folder / name).is_file() for name in (TRAIN, VAL)):
        splits = {"train": _read_list(folder / TRAIN, disk), "val": _read_list(folder / VAL, disk), "test": test}
        return splits, {"train": (TRAIN, 1), "val": (VAL, 1), "test": (TEST, 1)}, ()
    if not (folder / BOTH).is_file():
        missing = " and ".join(name for name in (TRAIN, VAL) if not (folder / name).is_file())
        raise DataError(f"{folder} has no {missing}: a VTAB-1k task needs {TRAIN} and {VAL}, or {BOTH} instead")
    items = _read_list(folder / BOTH, disk)
    train = _FIRST_VAL_LINE - 1
    if len(items) <= train:
        raise DataError(
            f"{folder / BOTH} lists {counted(len(items))}: it needs more than {train}, as the first {train} are train "
            "and the others val"
        )
    splits = {"train": items[:train], "val": items[train:], "test": test}
    note = f"{TRAIN} or {VAL} is missing: the first {train} lines of {BOTH} are train and the others val."
    return splits, {"train": (BOTH, 1), "val": (BOTH, _FIRST_VAL_LINE), "test": (TEST, 1)}, (note,)


def _read_list(path: Path, disk: DiskNames) -> tuple[Item, ...]:
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text from byte {error.start:,} on: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    lines = text.rstrip().split("\n")  # not splitlines: it would also split at rare characters inside a name
    if lines == [""]:
        raise DataError(f"{path} lists no images: every line must be a path, one space and a label")
    return tuple(_item(line.rstrip(), f"{path}, line {number}", disk) for number, line in enumerate(lines, 1))


def _item(line: str, where: str, disk: DiskNames) -> Item:
    path, _, label = line.rpartition(" ")  # from the right: a path may contain spaces
    if not path or not re.fullmatch(r"-?[0-9]{1,9}", label):
        raise DataError(
            f"{where} is {shown(line)!r}: a line must be a path, one space and a whole number, "
            "like images/train800/000000.jpg 3"
        )
    path = inside(path, where)
    return disk.find(path) or path, int(label)
