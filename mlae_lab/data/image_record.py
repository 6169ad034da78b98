"""Which images a run was trained and evaluated on: path, label and content of each, kept with the run.

A folder changes after a run: files are added, removed, renamed, classes get other names, the folder moves to another
machine. The record says which of its images are the run's, so that nothing that it was trained on is ever evaluated.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlae_lab.data.bundled import DataError
from mlae_lab.data.content import content_hashes
from mlae_lab.data.folds import Fold
from mlae_lab.data.listing import SPLITS, Item, Listing, counted, shown, some
from mlae_lab.files import write_whole

FORMAT = 1
MAX_BYTES = 200_000_000  # of an unpacked record: the 74,728 images of dSprites take 3.4 MB
_MOST_EXPANSION = 50  # hashes do not compress: a record expands to 4 times its size, with names of 600 characters to 46
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


@dataclass(frozen=True)
class ImageList:
    """Images in the run's order.

    Attributes:
        paths: Below the folder of the images; empty in the file of an exported run, which names no files.
        labels: Class numbers.
        content: (n,) uint64, `content_hash` of each file.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """12 hex digits over labels and contents, not over names."""
        return hashlib.sha256(self.content.tobytes() + np.array(self.labels, dtype="<i8").tobytes()).hexdigest()[:12]


@dataclass(frozen=True)
class ImageRecord:
    """The images of a run.

    Attributes:
        classes: The names of its classes in label order.
        train: The training images.
        evaluation: The evaluation images.
        depth: Bits of the values in files of more than 8 bits, see `data.decode.ResizeRule`.
        unused: Number of the folder's other images at that time, such as a test split; None if unknown.
    """

    classes: tuple[str, ...]
    train: ImageList
    evaluation: ImageList
    depth: int | None = None
    unused: int | None = None


@dataclass(frozen=True)
class Match:
    """The images of a record that a folder still holds.

    Attributes:
        train: Items in the record's order, those that are missing left out.
        evaluation: The same for the evaluation images.
        missing_train: Names of the missing training images; "image 12" without names.
        missing_evaluation: The same for the evaluation images.
        unused: Number of the folder's images that the run does not use.
    """

    train: tuple[Item, ...]
    evaluation: tuple[Item, ...]
    missing_train: tuple[str, ...]
    missing_evaluation: tuple[str, ...]
    unused: int

    @property
    def is_complete(self) -> bool:
        return not self.missing_train and not self.missing_evaluation


NO_MATCH = Match((), (), (), (), 0)


def record_of(
    listing: Listing, protocol: str, contents: tuple[np.ndarray, np.ndarray], fold: Fold | None = None
) -> ImageRecord:
    """The record of a run on a listing.

    Args:
        listing: Of its images.
        protocol: "val" or "test".
        contents: `content_hash` of the training and of the evaluation images, in the listing's order.
        fold: Of a run of a cross-validation.
    """
    train, evaluation = (
        ImageList(tuple(path for path, _ in items), tuple(label for _, label in items), content)
        for items, content in zip(listing.protocol(protocol, fold), contents, strict=True)
    )
    unused = len(_paths(listing)) - len({*train.paths, *evaluation.paths})
    return ImageRecord(listing.class_names, train, evaluation, listing.depth, unused)


def _paths(listing: Listing) -> list[str]:
    return list(dict.fromkeys(path for split in SPLITS for path, _ in listing.splits[split]))


# ---------------------------------------------------------------- the file


def write_record(file: Path, record: ImageRecord, with_paths: bool = True) -> None:
    """Write a record as gzipped JSON; it appears whole or not at all. with_paths: False leaves out the file names."""
    write_whole(file, packed(record, with_paths))


def packed(record: ImageRecord, with_paths: bool = True) -> bytes:
    """The bytes of a record's file; equal records have equal bytes."""
    data: dict = {"format": FORMAT, "classes": record.classes, "depth": record.depth, "unused": record.unused}
    for name, part in (("train", record.train), ("evaluation", record.evaluation)):
        paths = [path.encode("utf-8", "surrogateescape").decode("latin-1") for path in part.paths if with_paths]
        data[name] = {"paths": paths, "labels": part.labels, "content": part.content.astype(">u8").tobytes().hex()}
    return gzip.compress(json.dumps(data).encode(), mtime=0)


def read_record(file: Path) -> ImageRecord | None:
    """The record in a file, None without a file. Raises DataError for a damaged one."""
    try:
        return unpacked(file.read_bytes(), str(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check its permissions") from None


def unpacked(content: bytes, name: str) -> ImageRecord:
    """The record in the bytes of a file, which may come from another machine. Raises DataError."""
    try:
        inflate = zlib.decompressobj(31)
        text = inflate.decompress(content, min(MAX_BYTES, max(1_000_000, _MOST_EXPANSION * len(content))))
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError("it is cut off, or larger than an image record can be")
        frame = _STRING.sub(b"", text)
        if frame.count(b"[") > 5 or frame.count(b"{") > 3:  # before Python's objects take 30 times as much memory
            raise ValueError("it has more lists than a record has")
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"it does not name format {FORMAT}")
        classes = tuple(_of_type(data["classes"], str))
        train, evaluation = (_image_list(data[part], len(classes)) for part in ("train", "evaluation"))
        depth = data.get("depth")
        if depth is not None and (type(depth) is not int or not 8 <= depth <= 16):
            raise ValueError("the depth of its images is not 8 to 16 bits")
        unused = data.get("unused")
        if unused is not None and (type(unused) is not int or unused < 0):
            raise ValueError("the number of unused images is not a whole number from 0")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, zlib.error) as error:
        raise DataError(f"{name} is not a list of a run's images ({str(error)[:200]}): restore the file") from None
    return ImageRecord(classes, train, evaluation, depth, unused)


def _image_list(data: dict, classes: int) -> ImageList:
    labels = tuple(_of_type(data["labels"], int))
    paths = tuple(path.encode("latin-1").decode("utf-8", "surrogateescape") for path in _of_type(data["paths"], str))
    content = np.frombuffer(bytes.fromhex(data["content"]), dtype=">u8").astype(np.uint64)
    if len(content) != len(labels) or len(paths) not in (0, len(labels)):
        raise ValueError("its lists have different lengths")
    if any(not 0 <= label < classes for label in labels):
        raise ValueError(f"a label is outside 0 to {classes - 1}")
    return ImageList(paths, labels, content)


def _of_type(values: object, kind: type) -> list:
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise ValueError(f"it must be a list of {kind.__name__}")
    return values


# ---------------------------------------------------------------- comparison with a folder


def match(record: ImageRecord, listing: Listing, on_chunk: Callable[[], None] = lambda: None) -> Match:
    """Find a record's images in a folder, by content: a renamed, moved or relabelled file is still the same image.

    Args:
        record: Of a run.
        listing: Of the folder as it is now. Every file of it is read.
        on_chunk: Called between pieces of the work; it may raise.
    """
    paths = _paths(listing)
    hashes = content_hashes([listing.folder / path for path in paths], on_chunk).tolist()
    hash_of = dict(zip(paths, hashes, strict=True))
    by_content: dict[int, list[str]] = {}
    for path, value in zip(paths, hashes, strict=True):
        by_content.setdefault(value, []).append(path)

    def find(part: ImageList) -> tuple[list[Item], list[str]]:
        items: list[Item] = []
        missing: list[str] = []
        for i, (label, value) in enumerate(zip(part.labels, part.content.tolist(), strict=True)):
            old = part.paths[i] if part.paths else ""
            if hash_of.get(old) == value and value:
                items.append((old, label))
            elif value and by_content.get(value):
                items.append((by_content[value][0], label))
            else:
                missing.append(old or f"image {i}")
        return items, missing

    train, missing_train = find(record.train)
    evaluation, missing_evaluation = find(record.evaluation)
    used = {0, *record.train.content.tolist(), *record.evaluation.content.tolist()}  # 0: a listed file that is gone
    unused = sum(value not in used for value in hashes)
    return Match(tuple(train), tuple(evaluation), tuple(missing_train), tuple(missing_evaluation), unused)


def missing_sentence(matched: Match, record: ImageRecord, folder: Path) -> str:
    """What of a run's images a folder lacks, as a sentence without a full stop; "" if it has them all."""
    lacks = [
        f"{len(names):,} of the run's {counted(total, noun)} ({some(names, 3)})"
        for names, total, noun in (
            (matched.missing_train, len(record.train), "training image"),
            (matched.missing_evaluation, len(record.evaluation), "evaluation image"),
        )
        if names
    ]
    return f"{shown(str(folder))} lacks {' and '.join(lacks)}" if lacks else ""


def duplicates(record: ImageRecord) -> tuple[str, ...]:
    """Names of evaluation images with the same content as a training image."""
    train = set(record.train.content.tolist()) - {0}
    return tuple(
        record.evaluation.paths[i] if record.evaluation.paths else f"image {i}"
        for i, value in enumerate(record.evaluation.content.tolist())
        if value in train
    )


def as_listing(matched: Match, record: ImageRecord, folder: Path) -> Listing:
    """A listing of the record's images alone, whose protocol "val" gives the run's training and evaluation images."""
    splits: dict[str, tuple[Item, ...]] = {"train": matched.train, "val": matched.evaluation, "test": ()}
    return Listing(folder, "record", splits, record.classes, depth=record.depth)
