"""The few evaluation images whose predictions a run records with every evaluation."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mlae_lab.core.data_url import TINY

SAMPLES = 12  # images
SEARCHED = 2_000  # images that are searched for samples
SIZE = 64  # pixels, at most


def chosen(labels: Sequence[int], count: int = SAMPLES) -> list[int]:
    """Indices of the sample images, ascending: the first image of each class, then the second of each, and so on.

    They depend on the labels alone, so every run on one split has the same samples.
    """
    seen: dict[int, int] = {}
    order = []
    for index, label in enumerate(list(labels)[:SEARCHED]):
        seen[label] = seen.get(label, -1) + 1
        order.append((seen[label], index))
    return sorted(index for _, index in sorted(order)[:count])


def encoded_image(pixels: np.ndarray, size: int = SIZE) -> str:
    """An image as base64 of a JPEG of at most `size` pixels, or of a PNG if it is tiny.

    Args:
        pixels: (height, width) or (height, width, 3), uint8.
        size: Largest width and height, in pixels.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > size:
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    tiny = max(image.size) <= TINY
    image.save(buffer, "PNG" if tiny else "JPEG", **({} if tiny else {"quality": 80}))
    return base64.b64encode(buffer.getvalue()).decode()
