"""VTAB-1k as it is passed around: one folder per task, images below `images/`, four text lists.

A line is a path below the task's folder, one space, and a label from 0. The images that
`train800val200.txt` names are a second copy of the others, so it is read only if it is alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from mlae_lab.core.catalog import Task
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import DiskNames, Item, Listing, counted, find_folder, inside, shown

TRAIN, VAL, BOTH, TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"
_FIRST_VAL_LINE = 801  # of BOTH


def find_vtab(root: Path, task: Task) -> Path | None:
    """The task's folder: root itself, below root, or below root/vtab-1k, under its name or an alias.

    Only a folder with at least one of the lists counts. None if there is none or root cannot be read.
    """
    return find_folder(root, (task.name, *task.aliases), "vtab-1k", has_lists)


def has_lists(folder: Path) -> bool:
    """Whether one of the four lists lies in the folder."""
    return any((folder / name).is_file() for name in (TRAIN, VAL, BOTH, TEST))


def read_vtab(folder: Path, task: Task) -> Listing:
    """The images that the folder's lists name, with as many classes as the catalog says.

    Raises DataError for a list that is missing, empty or not text, a line that is no path and
    label, and a path that leaves the folder. Missing images and strange labels are for `census`.
    """
    splits, lists, notes = read_lists(folder)
    return Listing(folder, "vtab", splits, tuple(str(i) for i in range(task.classes)), notes=notes, lists=lists)


def read_lists(
    folder: Path,
) -> tuple[dict[str, tuple[Item, ...]], dict[str, tuple[str, int]], tuple[str, ...]]:
    """A folder's lists, whatever the task: items, list file with first line, and notes, as in `Listing`.

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
        lost = " and ".join(name for name in (TRAIN, VAL) if not (folder / name).is_file())
        raise DataError(f"{folder} has no {lost}: a VTAB-1k task needs {TRAIN} and {VAL}, or {BOTH} instead")
    items = _read_list(folder / BOTH, disk)
    cut = _FIRST_VAL_LINE - 1
    if len(items) <= cut:
        raise DataError(
            f"{folder / BOTH} lists {counted(len(items))}: it is cut after {cut} into train and val, so it needs more"
        )
    splits = {"train": items[:cut], "val": items[cut:], "test": test}
    note = f"There is no {TRAIN} with {VAL}: the first {cut} lines of {BOTH} are train and the others val."
    return splits, {"train": (BOTH, 1), "val": (BOTH, _FIRST_VAL_LINE), "test": (TEST, 1)}, (note,)


def _read_list(path: Path, disk: DiskNames) -> tuple[Item, ...]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text from byte {error.start:,} on: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check that it is yours to read") from None
    lines = text.rstrip().split("\n")  # not splitlines: it would also cut at rare characters inside a name
    if lines == [""]:
        raise DataError(f"{path} lists no images: every line should be a path, one space and a label")
    return tuple(_item(line.rstrip(), f"{path}, line {number}", disk) for number, line in enumerate(lines, 1))


def _item(line: str, where: str, disk: DiskNames) -> Item:
    path, _, label = line.rpartition(" ")  # from the right: a path may hold spaces
    if not path or not re.fullmatch(r"-?[0-9]{1,9}", label):
        raise DataError(
            f"{where} is {shown(line)!r}: a line must be a path, one space and a whole number, "
            "like images/train800/000000.jpg 3"
        )
    path = inside(path, where)
    return disk.find(path) or path, int(label)
