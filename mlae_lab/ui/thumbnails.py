"""Small images as data addresses: a plan or a bar as SVG, an array as PNG or JPEG. No Streamlit here."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from functools import lru_cache

import numpy as np
from PIL import Image

from mlae_lab.core.data_url import TINY, data_url
from mlae_lab.core.plan import MaskPlan

# An image does not know the theme of the page: both colours are readable on the light and on the dark surface.
_ACCENT, _QUIET = "#17998B", "#86939A"
_CELL, _GAP = 7, 2


def _svg_address(width: float, height: float, parts: list[str]) -> str:
    text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


@lru_cache(maxsize=512)
def mask_image(plan: MaskPlan, columns: int = 14) -> str:
    """The plan as an image: filled where an expert exists, paler the more often it is dropped.

    Args:
        plan: The plan.
        columns: Minimum width in cells, so that plans of different width have one scale.
    """
    step = _CELL + _GAP
    width, height = max(columns, plan.columns) * step - _GAP, plan.rows * step - _GAP
    left = (width - (plan.columns * step - _GAP)) / 2
    present: dict[float, list[str]] = {}  # one path for each shade: an image is sent with every change of its page
    absent = []
    for r, (kept, rates) in enumerate(zip(plan.keep, plan.drop_rate, strict=True)):
        for c, (k, p) in enumerate(zip(kept, rates, strict=True)):
            x, y = left + c * step, r * step
            if k:
                present.setdefault(max(0.1, 1 - p), []).append(f"M{x:g} {y}h{_CELL}v{_CELL}h-{_CELL}z")
            else:
                absent.append(f"M{x + 0.5:g} {y + 0.5}h{_CELL - 1}v{_CELL - 1}h-{_CELL - 1}z")
    parts = [f'<path d="{"".join(d)}" fill="{_ACCENT}" fill-opacity="{shade:.2f}"/>' for shade, d in present.items()]
    if absent:
        parts.append(f'<path d="{"".join(absent)}" fill="none" stroke="{_QUIET}" stroke-opacity="0.4"/>')
    return _svg_address(width, height, parts)


def gain_image(probe: float, adapted: float) -> str:
    """Two accuracies in percent on one bar: grey up to the linear probe, accent from there to the adapted network."""
    scale, low, high = 2.0, min(probe, adapted), max(probe, adapted)
    return _svg_address(
        200,
        12,
        [
            f'<rect x="0" y="4" width="200" height="4" rx="2" fill="{_QUIET}" fill-opacity="0.22"/>',
            f'<rect x="0" y="4" width="{low * scale:g}" height="4" rx="2" fill="{_QUIET}" fill-opacity="0.75"/>',
            f'<rect x="{low * scale:g}" y="2" width="{(high - low) * scale:g}" height="8" rx="1.5" fill="{_ACCENT}"/>',
        ],
    )


# Of a drawing of one block: name to (x, width) on the upper line.
_BOXES = {
    "patch": (0, 16), "norm1": (28, 8), "qkv": (40, 18), "proj": (74, 14), "norm2": (112, 8), "fc1": (124, 18),
    "fc2": (146, 18), "norm": (190, 8), "head": (202, 16),
}  # fmt: skip
_ADDED = {
    "tokens": (19, 6),
    "before qkv": (37, 2.5),
    "before fc1": (121, 2.5),
    "after attention": (91, 8),
    "after mlp": (167, 8),
}
_PARALLEL = {"parallel to attention": (40, 48), "parallel to mlp": (124, 40)}


def block_image(places: Collection[str]) -> str:
    """Where a method acts in a vision transformer: patch embedding, one block, last norm and head, left to right.

    The layers stand above the residual stream, which is a line. What is trained is filled.

    Args:
        places: Names of `core.method.PLACES`.
    """
    stroke = f'fill="none" stroke="{_QUIET}" stroke-width="1"'
    parts = [f'<path d="M8 50H210M24 50V36q0-6 6-6H98q6 0 6 6V50M108 50V36q0-6 6-6H174q6 0 6 6V50" {stroke}/>']
    parts += [f'<circle cx="{x}" cy="50" r="3" fill="{_QUIET}"/>' for x in (104, 180)]
    parts.append(f'<circle cx="66" cy="30" r="5" {stroke}/>')  # softmax
    for name, (x, width) in {**_BOXES, **_ADDED, **_PARALLEL}.items():
        trained = name in places
        if not trained and name not in _BOXES:
            continue
        y, height = (41, 18) if name in ("patch", "norm", "head") else (7, 10) if name in _PARALLEL else (21, 18)
        if name in ("norm1", "norm2"):
            y, height = 23, 14
        if name == "tokens":
            y, height = 44, 12
        fill = f'fill="{_ACCENT}"' if trained else f'fill="{_QUIET}" fill-opacity="0.3"'
        parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="2.5" {fill}/>')
        if name in _PARALLEL:
            parts.append(f'<path d="M{x - 4} 30V12H{x}M{x + width} 12H{x + width + 3}V30" {stroke}/>')
    return _svg_address(220, 62, parts)


def image_address(pixels: np.ndarray, size: int = 96) -> str:
    """A grey (h, w) or colour (h, w, 3) uint8 image as a data address.

    A tiny image is a PNG of the same size, whose pixels pages enlarge; any other is a JPEG of size x size pixels.
    """
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if max(image.size) <= TINY:
        image.save(buffer, "PNG")
    else:
        image.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return data_url(base64.b64encode(buffer.getvalue()).decode())
