"""The few evaluation images that a run is watched by: which they are, and how they look."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

SAMPLES = 12  # images
LOOKED_AT = 2_000  # only among so many are they sought
SIZE = 64  # pixels, at most


def chosen(labels: Sequence[int], count: int = SAMPLES) -> list[int]:
    """Places of the images, rising: the first of each class while classes last, then the second of each, and so on.

    Depends on the labels alone, so that every run on one split shows the same ones.
    """
    fair_queue: dict[int, int] = {}
    order = []
    for place, label in enumerate(list(labels)[:LOOKED_AT]):
        fair_queue[label] = fair_queue.get(label, -1) + 1
        order.append((fair_queue[label], place))
    return sorted(place for _, place in sorted(order)[:count])


def encoded_image(pixels: np.ndarray, size: int = SIZE) -> str:
    """An image, (height, width) or (height, width, 3) uint8, as base64 of a JPEG of at most `size` pixels, of a PNG if it is tiny."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    tiny = max(image.size) <= 32
    image.save(held, "PNG" if tiny else "JPEG", **({} if tiny else {"quality": 80}))
    return base64.b64encode(held.getvalue()).decode()
