"""Images that a dataset holds twice: with the same content, or nearly alike.

Content is compared by a hash of the file (`data.content`). Nearly alike are images whose difference hashes differ in
few bits (dHash, Krawetz 2013): the image as 9 x 8 grey means g, and one bit for each pair of horizontal neighbours,
g[i, j + 1] > g[i, j], 64 in all. It ignores size, compression and brightness, and finds no cropped or mirrored copies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.decode import ResizeRule, examined

NEAR_BITS = 4  # of 64 that two images nearly alike may differ in
MOST_PAIRS = 200  # that are listed; all are counted
THUMBNAIL = ResizeRule("square", 72)  # 72 = 8 x 9: its blocks are the 9 x 8 means exactly
_FLAT = 12.0  # grey values: the bits of a plainer image are noise
_BATCH = 256
_TABLE = 2_000_000  # distances that are in memory at once


@dataclass(frozen=True)
class ImageFacts:
    """What decoding a file shows.

    Attributes:
        content: Its `content_hash`, 0 for a file that cannot be read.
        look: Its difference hash, None for an image without structure or one that cannot be read.
        problem: Why it cannot be read, "" for a readable one.
    """

    content: int
    look: int | None
    problem: str = ""


def examine(folder: Path, paths: Sequence[str], progress: ProgressCallback | None = None) -> dict[str, ImageFacts]:
    """Decode every file once, in threads.

    Args:
        folder: That holds them.
        paths: Below the folder.
        progress: Called with (done, total); it may raise.
    """
    facts: dict[str, ImageFacts] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release Python's lock
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            facts |= zip(batch, pool.map(_facts, [folder / path for path in batch]), strict=True)
            if progress:
                progress(len(facts), len(paths))
    return facts


def _facts(path: Path) -> ImageFacts:
    result = examined(path, THUMBNAIL)
    return ImageFacts(0, None, result) if isinstance(result, str) else ImageFacts(result[1], difference_hash(result[0]))


def difference_hash(pixels: np.ndarray) -> int | None:
    """The 64-bit dHash of (72, 72, 3) uint8 pixels; None for an image without structure."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    means = grey.reshape(8, 9, 9, 8).mean((1, 3))
    if np.ptp(means) < _FLAT:
        return None
    return int.from_bytes(np.packbits(means[:, 1:] > means[:, :-1]).tobytes(), "big")


def same_content(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Groups of two or more positions with the same content, in order."""
    groups: dict[int, list[int]] = {}
    for i, fact in enumerate(facts):
        if fact.content:
            groups.setdefault(fact.content, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that are nearly alike and have different contents.

    Attributes:
        across: Number of pairs in two splits.
        within: Number of pairs in one split.
        pairs: (position, position, bits that differ), those across splits and the closest first; at most MOST_PAIRS.
        leaked: Positions of images that are nearly alike to one of an earlier split.
    """

    across: int = 0
    within: int = 0
    pairs: tuple[tuple[int, int, int], ...] = ()
    leaked: frozenset[int] = frozenset()


def near_duplicates(facts: Sequence[ImageFacts], splits: Sequence[int], bits: int = NEAR_BITS) -> NearDuplicates:
    """Compare all images with each other. It takes n² / 2 comparisons: 10,000 images about a second.

    Args:
        facts: Of the images.
        splits: Number of the split of each image, in their order: 0 is train.
        bits: That may differ.
    """
    with_look = [i for i, fact in enumerate(facts) if fact.look is not None]
    looks = np.array([facts[i].look for i in with_look], dtype=">u8")
    # with bits as -1 and 1, a product of two rows is 64 - 2 x the bits that differ
    signs = np.unpackbits(looks.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1
    content = np.array([facts[i].content for i in with_look], dtype=np.uint64)
    split = np.array([splits[i] for i in with_look])
    position = np.array(with_look)
    across = within = 0
    leaked: set[int] = set()
    kept: list[tuple[bool, int, int, int]] = []  # (within a split, bits, position, position): the order of the list
    step = max(1, _TABLE // max(1, len(with_look)))
    for start in range(0, len(with_look), step):
        rows = slice(start, start + step)
        rest = slice(start, None)
        product = signs[rows] @ signs[rest].T
        first, second = np.nonzero(product >= 64 - 2 * bits)
        a, b = first + start, second + start
        is_pair = (a < b) & (content[a] != content[b])
        differing = ((64 - product[first[is_pair], second[is_pair]]) / 2).astype(int)
        a, b = a[is_pair], b[is_pair]
        is_within = split[a] == split[b]
        across += int((~is_within).sum())
        within += int(is_within.sum())
        later = np.where(split[a] > split[b], a, b)[~is_within]
        leaked |= set(position[later].tolist())
        order = np.lexsort((differing, is_within))[:MOST_PAIRS]
        columns = (is_within[order], differing[order], position[a[order]], position[b[order]])
        kept = sorted([*kept, *zip(*(column.tolist() for column in columns), strict=True)])[:MOST_PAIRS]
    return NearDuplicates(across, within, tuple((i, j, n) for _, n, i, j in kept), frozenset(leaked))


def thumbnails(folder: Path, paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Path and (72, 72, 3) uint8 pixels of each file that can be read."""
    for path in paths:
        result = examined(folder / path, THUMBNAIL)
        if not isinstance(result, str):
            yield path, result[0]
