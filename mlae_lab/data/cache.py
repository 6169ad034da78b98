"""The cache of decoded images: one per list and resize rule, read through a memory map.

Images are decoded in threads and written in order, so that the whole set is never in memory and a full disk does not
kill the process (writing into a memory map would). `data.cache_folder` names the files and deletes old ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.data.bundled import DataError
from mlae_lab.data.cache_folder import clear, forget, fresh, lock_file
from mlae_lab.data.content import content_hashes
from mlae_lab.data.decode import ResizeRule, decoded_with_content
from mlae_lab.data.folder_lock import locked
from mlae_lab.data.splits import LabelledImages
from mlae_lab.files import replacing

__all__ = ["ResizeRule", "cached", "forget", "key"]

FORMAT = 1
BLOCK = 64  # images per checksum
FULLY_CHECKED = 256 * 2**20  # bytes of pixels up to which every block is checked on opening
SAMPLED_BLOCKS = 64  # blocks checked in larger caches
PROGRESS_SECONDS = 0.1
MAX_WORKERS = 16

CONTENT = "content.npy"  # (n,) uint64, the content hash of each file

Item = tuple[Path, int]
Decoded = tuple[np.ndarray, int]  # pixels, content hash


class _Unsound(Exception):
    """A cache that is missing, damaged or belongs to another list."""


def cached(
    items: Sequence[Item],
    rule: ResizeRule,
    folder: Path,
    fingerprint: str,
    on_progress: ProgressCallback | None = None,
    workers: int | None = None,
) -> LabelledImages:
    """The images of a list, decoded by the rule, from the cache; the cache is built or repaired first if necessary.

    Of two processes that need the same cache, one builds it and the other waits. On opening, checksums are compared:
    all of them up to 256 MB of pixels, beyond that those of 64 random blocks of 64 images. A cache that fails, or that
    was built from another list, is rebuilt.

    Args:
        items: (file, label) in order.
        rule: how each image is resized.
        folder: of all caches; created if missing.
        fingerprint: any text that changes when the list or its files do.
        on_progress: called with (done, total) at most ten times a second and at the end, only while this process
            builds; an exception that it raises stops the build.
        workers: decoding threads, by default one per core, at most 16.

    Returns:
        Images (n, size, size, 3) uint8, a read-only memory map, labels (n,) int64, and the content hash of each file.

    Raises:
        DataError: the list is empty, an image is unreadable or the folder cannot hold the cache.
    """
    if not items:
        raise DataError("the list has no images: give at least one")
    folder = Path(folder).expanduser().absolute()
    labels = np.array([label for _, label in items], dtype=np.int64)
    home = folder / key(rule, fingerprint)
    with suppress(_Unsound):
        return _open(home, rule, labels, items)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock_file(home)) as alone:
            with suppress(_Unsound):
                return _open(home, rule, labels, items)  # another process built it while this one waited
            clear(home, alone)
            _needs_room(folder, len(items), rule)
            _build(items, labels, rule, home, fingerprint, on_progress, workers)
            return _open(home, rule, labels, items)
    except _Unsound as error:
        raise DataError(
            f"{home} does not read back as it was written ({error}): check that disk or choose another folder"
        ) from None
    except OSError as error:
        raise DataError(
            f"{folder} cannot hold the decoded images, {_size(len(items), rule)} ({error.strerror or error}): "
            "free some space there or choose another folder"
        ) from None


def key(rule: ResizeRule, fingerprint: str) -> str:
    """The name of a cache: 64 hex digits."""
    return hashlib.sha256(json.dumps([FORMAT, rule.kind, rule.size, fingerprint]).encode()).hexdigest()


# ---------------------------------------------------------------- opening


def _open(home: Path, rule: ResizeRule, labels: np.ndarray, items: Sequence[Item]) -> LabelledImages:
    """Open and check a finished cache. Raises _Unsound."""
    try:
        meta = json.loads((home / "meta.json").read_bytes())
        if meta.pop("crc32") != _meta_crc(meta) or meta["pictures"] != len(labels):
            raise _Unsound("its meta.json does not match")
        if not np.array_equal(np.load(home / "labels.npy", allow_pickle=False), labels):
            raise _Unsound("its labels differ")
        images = np.load(home / "pixels.npy", mmap_mode="r", allow_pickle=False)
    except _Unsound:
        raise
    except Exception as error:
        raise _Unsound(str(error)) from None
    if images.shape != (len(labels), rule.size, rule.size, 3) or images.dtype != np.uint8:
        raise _Unsound(f"its pixels have shape {images.shape}")
    numbers: Sequence[int] = range(len(meta["blocks"]))
    if images.nbytes > FULLY_CHECKED:  # other blocks each time, so that damage is found sooner or later
        numbers = random.Random().sample(numbers, min(SAMPLED_BLOCKS, len(numbers)))
    for number in numbers:
        if zlib.crc32(images[number * BLOCK : (number + 1) * BLOCK]) != meta["blocks"][number]:
            raise _Unsound(f"block {number} of its pixels is damaged")
    with suppress(OSError):  # `forget` reads this; a cache on a read-only disk works without
        os.utime(home / "meta.json")
    return LabelledImages(images, labels, _content(home, items))


def _content(home: Path, items: Sequence[Item]) -> np.ndarray:
    """The content hashes of a cache's files; a cache of version 0.5 has none, so they are computed once."""
    try:
        content = np.load(home / CONTENT, allow_pickle=False)
        if content.shape == (len(items),) and content.dtype == np.uint64:
            return content
    except (OSError, ValueError):
        pass
    content = content_hashes([path for path, _ in items])
    with suppress(OSError), replacing(home / CONTENT) as partial, partial.open("wb") as file:
        np.save(file, content, allow_pickle=False)
    return content


def _meta_crc(meta: dict) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


# ---------------------------------------------------------------- building


def _build(
    items: Sequence[Item],
    labels: np.ndarray,
    rule: ResizeRule,
    home: Path,
    fingerprint: str,
    on_progress: ProgressCallback | None,
    workers: int | None,
) -> None:
    building = fresh(home, "building")
    building.mkdir()
    try:
        blocks: list[int] = []
        content = np.zeros(len(items), dtype=np.uint64)
        shape = (len(items), rule.size, rule.size, 3)
        with open(building / "pixels.npy", "wb") as file, closing(_decoded(items, rule, workers)) as images:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for number, (image, value) in enumerate(_with_progress(images, len(items), on_progress)):
                content[number] = value
                if number % BLOCK == 0:
                    blocks.append(0)
                blocks[-1] = zlib.crc32(image.data, blocks[-1])
                file.write(image.data)
            file.flush()
            os.fsync(file.fileno())  # a crash after the rename must not leave a cache of zeros
        np.save(building / "labels.npy", labels, allow_pickle=False)
        np.save(building / CONTENT, content, allow_pickle=False)
        # "side" and "pictures" are the keys of version 0.5, which may use the same folder
        meta: dict = {"format": FORMAT, "kind": rule.kind, "side": rule.size, "fingerprint": fingerprint}
        meta |= {"pictures": len(items), "blocks": blocks}
        (building / "meta.json").write_text(json.dumps(meta | {"crc32": _meta_crc(meta)}), encoding="utf-8")
        try:
            building.rename(home)
        except OSError:
            if not home.is_dir():  # without a lock another process can finish first: then its cache is used
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _decoded(items: Sequence[Item], rule: ResizeRule, workers: int | None) -> Generator[Decoded, None, None]:
    """All images in order, decoded ahead in threads (PIL releases Python's lock while it decodes)."""
    workers = workers or min(MAX_WORKERS, _cores())
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[Future[Decoded]] = deque()
    try:
        for path, _ in items:
            ahead.append(pool.submit(decoded_with_content, Path(path), rule))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _with_progress(images: Iterator[Decoded], total: int, on_progress: ProgressCallback | None) -> Iterator[Decoded]:
    reported = -PROGRESS_SECONDS
    for done, image in enumerate(images, 1):
        yield image
        now = time.monotonic()
        if on_progress and (done == total or now - reported >= PROGRESS_SECONDS):
            on_progress(done, total)
            reported = now


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _needs_room(folder: Path, images: int, rule: ResizeRule) -> None:
    free = shutil.disk_usage(folder).free
    if images * rule.image_bytes > free:
        raise DataError(
            f"{folder} has {free / 1e9:.1f} GB free and the decoded images take {_size(images, rule)}: "
            "free some space there or choose another folder"
        )


def _size(images: int, rule: ResizeRule) -> str:
    return f"{images * rule.image_bytes / 1e9:.2f} GB"
