"""The four bundled tasks: two image sets in `assets/`, two rendered when they are loaded.

Each is split 800 / 200 / test, the same on every machine; `CHECKSUMS` holds SHA-256 over images and labels of all
splits, and a test compares them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from functools import lru_cache
from itertools import accumulate

import numpy as np

from mlae_lab.core import catalog
from mlae_lab.data import dsprites
from mlae_lab.data.splits import LabelledImages, Splits
from mlae_lab.errors import LabError
from mlae_lab.locations import ASSETS

CHECKSUMS = {
    "digits": "1528d56c109ed220",
    "fashion": "cb1fd215be674149",
    "dsprites_loc_rendered": "ca51d1eb46fc91d0",
    "dsprites_ori_rendered": "9e1393993672a1aa",
}

_DSPRITES_SEED = 20_260_001


class DataError(LabError):
    """Images that are missing or damaged; its text says where they were looked for."""


@lru_cache(maxsize=8)
def load_bundled(name: str) -> Splits:
    """All images of a bundled task, uint8 grey.

    Raises CatalogError for an unknown name, DataError if its file is missing or it is not bundled.
    """
    task = catalog.task(name)
    if task.name != name:
        return load_bundled(task.name)
    if not task.bundled:
        raise DataError(f"{name} is not a bundled task: choose one of {', '.join(CHECKSUMS)}")
    if name in ("digits", "fashion"):
        images, labels = _read(name)
    else:
        levels, images = _rendered()
        labels = dsprites.location_label(levels) if "loc" in name else dsprites.orientation_label(levels)
    sizes = (task.train, task.val, task.test)
    train, val, test = (
        LabelledImages(images[end - size : end], labels[end - size : end].astype(np.int64))
        for size, end in zip(sizes, accumulate(sizes), strict=True)
    )
    return Splits(train, val, test, _class_names(name))


def checksum(splits: Splits) -> str:
    """SHA-256 over the bytes of images and labels, train to test, first 16 hex digits."""
    digest = hashlib.sha256()
    for part in (splits.train, splits.val, splits.test):
        digest.update(np.ascontiguousarray(part.images).tobytes())
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _read(name: str) -> tuple[np.ndarray, np.ndarray]:
    path = ASSETS / {"digits": "digits.npz", "fashion": "fashion_mnist_1k.npz"}[name]
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}): it is part of the repository, restore it from there"
        ) from None
    if name == "digits":  # stored as pixel counts, 0 to 16 per cell
        images = np.round(images.astype(np.float32) * (255 / 16)).astype(np.uint8)
    return images, labels


@lru_cache(maxsize=1)
def _rendered() -> tuple[np.ndarray, np.ndarray]:
    """3,000 different images sampled uniformly from the full factor grid: their factor levels and the images.

    They differ as images, not only in their factors: rotation by 0 and by 2π, or by too little to change a pixel,
    gives the same image, and the same image in two splits would be a leak.
    """
    rng = np.random.default_rng(_DSPRITES_SEED)
    index = rng.choice(dsprites.GRID_SIZE, size=3200, replace=False)
    levels = dsprites.factors(index)
    images = dsprites.render(levels) * np.uint8(255)
    packed = np.packbits(images.reshape(len(images), -1) > 0, axis=1)
    _, first = np.unique(packed, axis=0, return_index=True)
    order = np.sort(first)[:3000]
    return levels[order], images[order]


def _class_names(name: str) -> tuple[str, ...]:
    if name == "fashion":
        return ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    if name == "dsprites_loc_rendered":
        return tuple(f"x {i + 1} of 16" for i in range(16))
    if name == "dsprites_ori_rendered":
        return tuple(f"turn {i + 1} of 16" for i in range(16))
    return tuple(str(i) for i in range(10))
