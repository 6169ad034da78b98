"""Images on disk, listed by split and not decoded, and the lookup of listed names on disk.

The readers (`vtab`, `fgvc`, `own`) build listings, `census` checks a listing against the disk and the catalog, and
decoding reads `folder / path`.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PurePosixPath

from mlae_lab.core.sanitize import printable
from mlae_lab.data.bundled import DataError
from mlae_lab.data.folds import Fold, is_evaluated

Item = tuple[str, int]  # path below the listing's folder, with "/" on every platform; label
SPLITS = ("train", "val", "test")
UNKNOWN_LABEL = -1  # of an image whose class is not in train; the listing's `problems` name it


@dataclass(frozen=True)
class Listing:
    """The images of a task: their paths, splits and labels.

    Attributes:
        folder: what the paths are relative to.
        kind: the reader: "vtab", "fgvc" or "own".
        splits: "train", "val" and "test" to (path, label) pairs; `census` checks the labels.
        class_names: one per class in label order, the same for all splits.
        problems: sentences about what the reader could not use.
        notes: sentences about what the reader chose.
        lists: per split its list file and the number of the first line there; empty without list files.
        left_out: paths of images that cannot be read and are in no split.
        depth: bits of the values in files of more than 8 bits, see `data.decode.ResizeRule`.
    """

    folder: Path
    kind: str
    splits: dict[str, tuple[Item, ...]]
    class_names: tuple[str, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lists: dict[str, tuple[str, int]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    depth: int | None = None

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
        """12 hex digits over paths, labels, file sizes and modification times; renaming the folder does not change it.

        Reads the status of every image file on each call: about 0.2 s for 40,000.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            for path, label in self.splits[split]:
                try:
                    status = os.stat(self.folder / path)
                    state = f"{status.st_size}\t{status.st_mtime_ns}"
                except OSError:
                    state = "missing"
                digest.update(f"{split}\t{path}\t{label}\t{state}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:12]

    def protocol(self, name: str, fold: Fold | None = None) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """(training items, evaluation items): "val" is train -> val, "test" is train + val -> test.

        With a fold, train and val together without it -> the fold. Raises DataError for any other name.
        """
        if fold is not None:
            items = self.splits["train"] + self.splits["val"]
            evaluated = is_evaluated([label for _, label in items], fold)
            return tuple(compress(items, ~evaluated)), tuple(compress(items, evaluated))
        if name == "val":
            return self.splits["train"], self.splits["val"]
        if name == "test":
            return self.splits["train"] + self.splits["val"], self.splits["test"]
        raise DataError(f"{name!r} is not a protocol: val trains on train, test trains on train and val")


class DiskNames:
    """The files below a folder, found with one directory read per folder and none per file.

    A name also matches in another Unicode form: archives packed on a Mac store "u" and two dots where the list has
    one letter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[dict[str, bool], dict[str, str]]] = {}
        self._folders: dict[str, str | None] = {"": ""}

    def find(self, path: str) -> str | None:
        """The path as the disk spells it, or None if there is no such file. `path` is relative, with "/"."""
        return self._look(path, is_folder=False)

    def _look(self, path: str, is_folder: bool) -> str | None:
        parent, _, name = path.rpartition("/")
        if parent not in self._folders:
            self._folders[parent] = self._look(parent, is_folder=True)
        on_disk = self._folders[parent]
        if on_disk is None:
            return None
        names, composed_names = self._names(on_disk)
        name = name if name in names else composed_names.get(composed(name), name)
        if names.get(name) is not is_folder:
            return None
        return f"{on_disk}/{name}" if on_disk else name

    def _names(self, folder: str) -> tuple[dict[str, bool], dict[str, str]]:
        """The names in a folder, each with whether it is a folder, and the same names by their composed form."""
        if folder not in self._read:
            try:
                with os.scandir(self._folder / folder) as entries:
                    names = {e.name: is_dir for e in entries if (is_dir := is_folder(e)) or _is_file(e)}
            except OSError:  # missing, not a folder, or no permission: nothing can be loaded from it
                names = {}
            self._read[folder] = names, {composed(name): name for name in names if not name.isascii()}
        return self._read[folder]


def is_folder(entry: os.DirEntry[str], follow: bool = True) -> bool:
    """Whether an entry is a folder or, with `follow`, a link to one.

    False for a link that cannot be followed, as it leads in a circle or to where this user may not look:
    `DirEntry.is_dir` raises OSError for it.
    """
    return follow and os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file(follow_symlinks=False)


def composed(text: str) -> str:
    """The text in Unicode normal form C, in which macOS and other systems spell names alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def shown(text: str) -> str:
    """The text as it can be displayed: control characters and bytes that are not UTF-8 are written as escapes."""
    if not text.isprintable():
        text = "".join(c if printable(c) and c != "\t" else c.encode("unicode_escape").decode() for c in text)
    return text


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few names, then the number of the others."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(shown(name) for name in names[:limit]) + more


def counted(number: int, noun: str = "image") -> str:
    """ "1 image", "1,200 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def inside(path: str, where: str) -> str:
    """A listed path in its plain form.

    Args:
        path: as the list has it.
        where: the list and line, for the error message.

    Raises:
        DataError: the path is empty or leaves the folder, on this or another operating system.
    """
    outside = path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", path) or ".." in re.split(r"[\\/]", path)
    plain_path = PurePosixPath(path).as_posix()
    if outside or "\0" in path or plain_path == ".":
        raise DataError(
            f"{where}: {shown(path)!r} is not a path below the list's folder: "
            "use one like images/train800/000000.jpg without a leading slash and without .."
        )
    return plain_path


def plain(name: str) -> str:
    """A folder's or task's name without case, spaces, dashes and underscores."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: numbers inside a name by value, letters without case, the name itself to break ties."""
    words = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(word[:999]), "") if i % 2 else (1, 0, word) for i, word in enumerate(words) if word], name


def find_folder(root: Path, names: Iterable[str], group: str, holds: Callable[[Path], bool]) -> Path | None:
    """The folder of a dataset: root itself, below root, or below root/group; None if there is none.

    Args:
        root: where to search.
        names: possible names of the folder, best first, compared by `plain`.
        group: name of the folder that collects several datasets.
        holds: whether a folder of a matching name has what the dataset needs; others are skipped.
    """
    wanted = [plain(name) for name in names]
    root = Path(os.path.abspath(root))  # gives "." a name
    for parent in (root, *(path for path in _folders(root) if plain(path.name) == plain(group))):
        if plain(parent.name) in wanted and holds(parent):
            return parent
        folders = _folders(parent)
        for name in wanted:
            for path in folders:
                if plain(path.name) == name and holds(path):
                    return path
    return None


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if os.path.isdir(path))  # Path.is_dir can raise
    except OSError:
        return []
