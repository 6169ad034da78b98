"""Images on disk, listed by split and not decoded; and how names in lists meet names on disk.

The readers (`vtab`, `fgvc`, `own`) make listings, `census` checks one against the disk and the
table, and whoever decodes images reads `folder / path`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlae_lab.data.bundled import DataError

Item = tuple[str, int]  # path below the listing's folder, with "/" on every machine; label
SPLITS = ("train", "val", "test")
UNKNOWN_LABEL = -1  # of an image whose class train does not know; the listing's `problems` say which


@dataclass(frozen=True)
class Listing:
    """Which images a task has, where they lie and what they show.

    folder: what the paths are relative to. kind: "vtab", "fgvc" or "own", the reader.
    splits: "train", "val" and "test" to (path, label) pairs; a label may be wrong, `census` looks.
    class_names: one per class in label order, fixed by the reader for all splits together.
    problems, notes: sentences about what the reader could not use, and about what it chose.
    lists: a split's list file and the number of its first line there; empty where there are none.
    """

    folder: Path
    kind: str
    splits: dict[str, tuple[Item, ...]]
    class_names: tuple[str, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lists: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes: labels are 0 to classes - 1."""
        return len(self.class_names)

    @property
    def counts(self) -> dict[str, int]:
        """Listed images per split."""
        return {split: len(self.splits[split]) for split in SPLITS}

    @property
    def fingerprint(self) -> str:
        """12 hex digits over paths, labels, sizes and times of change; another folder name keeps it.

        Asks the disk about every image each time: some 0.2 s for 40,000.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            for path, label in self.splits[split]:
                try:
                    found = os.stat(self.folder / path)
                    state = f"{found.st_size}\t{found.st_mtime_ns}"
                except OSError:
                    state = "missing"
                digest.update(f"{split}\t{path}\t{label}\t{state}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:12]

    def protocol(self, name: str) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """(training items, evaluation items): "val" is train -> val, "test" is train + val -> test.

        Raises DataError for any other name.
        """
        if name == "val":
            return self.splits["train"], self.splits["val"]
        if name == "test":
            return self.splits["train"] + self.splits["val"], self.splits["test"]
        raise DataError(f"{name!r} is not a protocol: val trains on train, test trains on train and val")


class DiskNames:
    """Which files lie below a folder, with one directory read per folder and none per file.

    A name counts as found also in another Unicode form: archives packed on a Mac bring "u" and two
    dots where the list has one letter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[dict[str, bool], dict[str, str]]] = {}
        self._folders: dict[str, str | None] = {"": ""}

    def find(self, path: str) -> str | None:
        """The path as the disk spells it, or None if no such file is there. path: relative, with "/"."""
        return self._look(path, is_folder=False)

    def _look(self, path: str, is_folder: bool) -> str | None:
        above, _, name = path.rpartition("/")
        if above not in self._folders:
            self._folders[above] = self._look(above, is_folder=True)
        real = self._folders[above]
        if real is None:
            return None
        names, forms = self._names(real)
        name = name if name in names else forms.get(composed(name), name)
        if names.get(name) is not is_folder:
            return None
        return f"{real}/{name}" if real else name

    def _names(self, folder: str) -> tuple[dict[str, bool], dict[str, str]]:
        """Names in a folder, each with whether it is a folder; and the same names by their composed form."""
        if folder not in self._read:
            try:
                with os.scandir(self._folder / folder) as entries:
                    names = {entry.name: entry.is_dir() for entry in entries if entry.is_dir() or entry.is_file()}
            except OSError:  # not there, not a folder, or not ours to read: nothing can be loaded from it
                names = {}
            self._read[folder] = names, {composed(name): name for name in names if not name.isascii()}
        return self._read[folder]


def composed(text: str) -> str:
    """The text in Unicode form C, the same for a Mac's spelling and everybody else's."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def shown(text: str) -> str:
    """The text fit for a screen: bytes of a name that are no UTF-8 are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few names, then how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(shown(name) for name in names[:limit]) + more


def counted(number: int, noun: str = "image") -> str:
    """ "1 image", "1,200 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def inside(path: str, where: str) -> str:
    """A listed path in its plain form. where: the list and line, for the message.

    Raises DataError for an empty path and for one that leaves the folder, on this or another system.
    """
    outside = path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", path) or ".." in re.split(r"[\\/]", path)
    plain_path = PurePosixPath(path).as_posix()
    if outside or "\0" in path or plain_path == ".":
        raise DataError(
            f"{where}: {shown(path)!r} is not a path below the list's folder, "
            "use one like images/train800/000000.jpg without a leading slash and without .."
        )
    return plain_path


def plain(name: str) -> str:
    """A folder's or task's name without case, spaces, dashes and underscores."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def find_folder(root: Path, names: Iterable[str], group: str, holds: Callable[[Path], bool]) -> Path | None:
    """A data set's folder: root itself, below root, or below root/group; None if there is none.

    names: the folder's possible names, best first, compared by `plain`. holds: whether a folder of
    the right name has what the data set needs; without it, a namesake is passed over.
    """
    wanted = [plain(name) for name in names]
    root = Path(os.path.abspath(root))  # gives "." a name
    for place in (root, *(path for path in _folders(root) if plain(path.name) == plain(group))):
        if plain(place.name) in wanted and holds(place):
            return place
        below = _folders(place)
        for name in wanted:
            for path in below:
                if plain(path.name) == name and holds(path):
                    return path
    return None


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir())
    except OSError:
        return []
