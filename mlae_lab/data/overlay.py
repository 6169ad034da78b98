"""Maps drawn over images: their colours, and a sheet of them as PNG or SVG. No torch: PIL and arrays.

A low value darkens the image and a high value lights it up, which is legible on any image and in light and dark mode.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlae_lab.core.data_url import data_url

RGB = tuple[int, int, int]
GLOW: tuple[RGB, ...] = ((16, 20, 24), (24, 110, 104), (94, 234, 212))  # 0 to the largest
# -largest to 0 to largest: blue below 0 and orange above, as in every figure ("low" and "high" of ui/palette.js)
BOTH_WAYS: tuple[RGB, ...] = ((122, 178, 238), (16, 20, 24), (243, 154, 90))
TILE = 128  # pixels of one map on a sheet
_GAP, _LEFT, _TOP = 10, 120, 34
_INK, _PAPER, _QUIET = (27, 35, 40), (250, 250, 247), (91, 104, 112)


@dataclass(frozen=True)
class Row:
    """One row of a sheet.

    Attributes:
        image: base64 of an image file.
        name: its caption.
        maps: one per column, (height, width), None where there is none.
    """

    image: str
    name: str
    maps: tuple[np.ndarray | None, ...]


def scaled(values: np.ndarray, largest: float | None = None, smallest: float = 0.0) -> np.ndarray:
    """A map scaled to [-1, 1]: `smallest` becomes 0, and `largest`, by default the map's largest magnitude, 1."""
    most = float(np.abs(values).max()) if largest is None else largest
    return np.clip((values - smallest) / (most - smallest), -1, 1) if most > smallest else np.zeros_like(values)


def coloured(values: np.ndarray, signed: bool = False) -> np.ndarray:
    """Values from 0 (signed: -1) to 1, (height, width), as colours (height, width, 3) uint8."""
    stops = np.array(BOTH_WAYS if signed else GLOW, float)
    at = ((values + 1) / 2 if signed else values).clip(0, 1) * (len(stops) - 1)
    low = np.minimum(at.astype(int), len(stops) - 2)
    part = (at - low)[..., None]
    return (stops[low] * (1 - part) + stops[low + 1] * part).round().astype(np.uint8)


def opened(image: str) -> Image.Image:
    """An image from its base64."""
    return Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")


def over(image: Image.Image, values: np.ndarray, opacity: float, signed: bool = False) -> Image.Image:
    """A map blended over its image, at the image's size; patches keep sharp edges.

    Args:
        image: below the map.
        values: as in `coloured`.
        opacity: of the map, 0 to 1.
        signed: as in `coloured`.
    """
    colours = Image.fromarray(coloured(values, signed)).resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image, colours, opacity)


def sheet(
    rows: Sequence[Row], columns: Sequence[str], opacity: float = 0.7, signed: Sequence[bool] = ()
) -> Image.Image:
    """The paper's layout (figures 6 and 7): a row per image, first the plain image, then its maps.

    Args:
        rows: the images and their maps, each scaled by its own largest value.
        columns: names of the maps.
        opacity: of the maps, 0 to 1.
        signed: which maps have both signs, none by default.
    """
    is_signed = tuple(signed) or (False,) * len(columns)
    step = TILE + _GAP
    page = Image.new("RGB", (_LEFT + (len(columns) + 1) * step, _TOP + len(rows) * step), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, name in enumerate(("image", *columns)):
        draw.text((_LEFT + number * step, 12), name, _QUIET, font)
    for down, row in enumerate(rows):
        top = _TOP + down * step
        draw.text((8, top + TILE // 2 - 8), row.name[:17], _INK, font)
        image = opened(row.image).resize((TILE, TILE), Image.Resampling.BICUBIC)
        page.paste(image, (_LEFT, top))
        for across, (values, has_sign) in enumerate(zip(row.maps, is_signed, strict=True), 1):
            if values is not None:
                page.paste(over(image, scaled(values), opacity, has_sign), (_LEFT + across * step, top))
    return page


def svg(rows: Sequence[Row], columns: Sequence[str], opacity: float = 0.7, signed: Sequence[bool] = ()) -> str:
    """`sheet` as SVG: one square per patch over the embedded image, and names as text."""
    is_signed, step = tuple(signed) or (False,) * len(columns), TILE + _GAP
    parts = []
    for number, name in enumerate(("image", *columns)):
        parts.append(f'<text x="{_LEFT + number * step}" y="24" fill="#5B6870">{escape(name)}</text>')
    for down, row in enumerate(rows):
        top = _TOP + down * step
        parts.append(f'<text x="8" y="{top + TILE // 2}" fill="#1B2328">{escape(row.name[:17])}</text>')
        for across, (values, has_sign) in enumerate(zip((None, *row.maps), (False, *is_signed), strict=True)):
            left = _LEFT + across * step
            if across and values is None:
                continue
            parts.append(
                f'<image x="{left}" y="{top}" width="{TILE}" height="{TILE}" preserveAspectRatio="none" '
                f'href="{data_url(row.image)}"/>'
            )
            if values is not None:
                parts += _squares(coloured(scaled(values), has_sign), left, top, opacity)
    width, height = _LEFT + (len(columns) + 1) * step, _TOP + len(rows) * step
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="13">'
        f'<rect width="{width}" height="{height}" fill="#FAFAF7"/>{"".join(parts)}</svg>'
    )


def _squares(colours: np.ndarray, left: float, top: float, opacity: float) -> list[str]:
    down, across = TILE / colours.shape[0], TILE / colours.shape[1]
    return [
        f'<rect x="{left + c * across:.2f}" y="{top + r * down:.2f}" width="{across:.2f}" height="{down:.2f}" '
        f'fill="#{red:02x}{green:02x}{blue:02x}" fill-opacity="{opacity:g}"/>'
        for r, line in enumerate(colours)
        for c, (red, green, blue) in enumerate(line)
    ]
