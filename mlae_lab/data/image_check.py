"""Decode every image of a user's folder once, before a run, and remember what cannot be read.

The result is kept below the cache of decoded images, by the fingerprint of the listing, so that the process of the run
leaves out the same images without a second check. It can be deleted like the cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.decode import problem_of
from mlae_lab.data.listing import SPLITS, Listing
from mlae_lab.files import write_whole
from mlae_lab.locations import cache_folder

_FORMAT = 1
_BATCH = 256  # images; bounds the queue, and the time until a stopped check ends


@dataclass(frozen=True)
class ImageCheck:
    """What decoding every image showed.

    Attributes:
        unreadable: path below the listing's folder to the reason.
        largest: the largest value of files of more than 8 bits per channel, 0 without such files.
    """

    unreadable: dict[str, str]
    largest: int


def problems(folder: Path, paths: Sequence[str], progress: ProgressCallback | None) -> Iterator[tuple[str, int]]:
    """The `problem_of` each file, in order, decoded in threads. progress may raise."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release Python's lock
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            yield from pool.map(problem_of, [folder / path for path in batch])
            if progress:
                progress(start + len(batch), len(paths))


def known_check(listing: Listing) -> ImageCheck | None:
    """The result of an earlier check of these images, None if they have not been checked."""
    return _stored(_file(listing))


def _stored(file: Path) -> ImageCheck | None:
    try:
        data = json.loads(file.read_bytes())
        if data["format"] != _FORMAT:
            return None
        return ImageCheck({str(path): str(reason) for path, reason in data["unreadable"].items()}, int(data["largest"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_images(listing: Listing, progress: ProgressCallback | None = None) -> ImageCheck:
    """Decode every image of a listing completely, unless that was done before.

    Args:
        listing: of the images.
        progress: called with (done, total); it may raise.
    """
    file = _file(listing)  # before decoding: images that change meanwhile have another file and are checked again
    check = _stored(file)
    if check is not None:
        return check
    paths = list(dict.fromkeys(path for split in SPLITS for path, _ in listing.splits[split]))
    unreadable: dict[str, str] = {}
    largest = 0
    for path, (problem, value) in zip(paths, problems(listing.folder, paths, progress), strict=True):
        if problem:
            unreadable[path] = problem
        largest = max(largest, value)
    check = ImageCheck(unreadable, largest)
    with suppress(OSError):  # without room for it, the check is made again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"format": _FORMAT, "unreadable": unreadable, "largest": largest}), sync=False)
    return check


def _file(listing: Listing) -> Path:
    return cache_folder() / "checks" / f"{listing.fingerprint}.json"
