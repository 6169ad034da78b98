"""The identity of an image file: a hash of its bytes, the same under any name and in any folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlae_lab.files import open_regular

_WORKERS = 8
_CHUNK = 2**20  # bytes: a file that is named like an image may be larger than the memory


def content_hash(content: bytes) -> int:
    """The first 64 bits of the SHA-256 of a file."""
    return _first_bits(hashlib.sha256(content).digest())


def content_hashes(files: Sequence[Path], on_chunk: Callable[[], None] = lambda: None) -> np.ndarray:
    """(n,) uint64, the `content_hash` of each file, 0 for one that cannot be read.

    Args:
        files: To read, completely.
        on_chunk: Called after every 64 files; it may raise.
    """
    hashes = np.zeros(len(files), dtype=np.uint64)
    with ThreadPoolExecutor(_WORKERS) as pool:  # reading and hashing release Python's lock
        for start in range(0, len(files), 64):
            batch = files[start : start + 64]
            hashes[start : start + len(batch)] = list(pool.map(_hash_of, batch))
            on_chunk()
    return hashes


def _hash_of(file: Path) -> int:
    digest = hashlib.sha256()
    try:
        with open_regular(file) as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return 0
    return _first_bits(digest.digest())


def _first_bits(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
