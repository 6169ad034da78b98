"""Render dSprites images from their factors, without the 26 MB archive.

dSprites (Matthey et al. 2017) shows a white square, ellipse or heart on a black 64 x 64 canvas, given by five factors.
The outlines below were fitted to original images of the dataset; `tests/data/test_dsprites.py` checks their areas and
bounding boxes.
"""

from __future__ import annotations

import numpy as np

SIZE = 64
SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.5, 1.0, 6)
ORIENTATIONS = np.linspace(0.0, 2.0 * np.pi, 40)  # both ends included: levels 0 and 39 give the same image
POSITIONS = np.linspace(0.0, 1.0, 32)
FACTOR_SIZES = (len(SHAPES), len(SCALES), len(ORIENTATIONS), len(POSITIONS), len(POSITIONS))
GRID_SIZE = int(np.prod(FACTOR_SIZES))  # 737,280 images

_SQUARE_HALF_SIDE = 9.6
_ELLIPSE_RADII = (12.765, 7.213)


def _heart_outline() -> tuple[np.ndarray, np.ndarray]:
    t = 2.0 * np.pi * np.arange(120) / 120
    u = 9.6043 * np.sin(t) ** 3
    v = -(8.6091 * np.cos(t) - 3.3101 * np.cos(2 * t) - 1.3266 * np.cos(3 * t) - 0.66358 * np.cos(4 * t)) - 1.44128
    return u, v


def _inside_polygon(u: np.ndarray, v: np.ndarray, outline: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Whether points lie inside a polygon, by the even-odd rule.

    Args:
        u, v: coordinates, any shape.
        outline: coordinates of the vertices, (vertices,) each.

    Returns:
        A bool array in the shape of u.
    """
    inside = np.zeros(u.shape, dtype=bool)
    xs, ys = outline
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > v) != (y1 > v)
        inside ^= crosses & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
    return inside


_HEART = _heart_outline()


def factors(index: np.ndarray) -> np.ndarray:
    """Factor levels of image numbers.

    Args:
        index: (n,) integers in [0, 737280), mixed radix with the vertical position fastest.

    Returns:
        (n, 5) integers: shape, scale, orientation, x position, y position.
    """
    return np.stack(np.unravel_index(np.asarray(index), FACTOR_SIZES), axis=-1)


def render(levels: np.ndarray) -> np.ndarray:
    """Render images without antialiasing: a pixel is 1 if its centre lies inside the outline.

    Args:
        levels: (n, 5) integer factor levels as `factors` returns them. The shape rotates counter-clockwise as the
            orientation grows.

    Returns:
        (n, 64, 64) uint8 with values 0 and 1.
    """
    levels = np.atleast_2d(np.asarray(levels))
    images = np.zeros((len(levels), SIZE, SIZE), dtype=np.uint8)
    for start in range(0, len(levels), 1024):  # bounds the float work arrays to some 20 MB
        _draw(levels[start : start + 1024], images[start : start + 1024])
    return images


def _draw(levels: np.ndarray, images: np.ndarray) -> None:
    """Render into `images` in place; the shape fits into a 32 x 32 window around its centre."""
    scale, angle = SCALES[levels[:, 1]], ORIENTATIONS[levels[:, 2]]
    x, y = (16.0 + 32.0 * POSITIONS[levels[:, column]] for column in (3, 4))
    left, top = (np.floor(middle).astype(int) - 16 for middle in (x, y))
    window = np.arange(32)
    columns, rows = left[:, None] + window, top[:, None] + window
    dx, dy = (columns + 0.5 - x[:, None])[:, None, :], (rows + 0.5 - y[:, None])[:, :, None]
    cos, sin, size = (value[:, None, None] for value in (np.cos(angle), np.sin(angle), scale))
    u, v = (cos * dx - sin * dy) / size, (sin * dx + cos * dy) / size
    for shape, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
        index = np.flatnonzero(levels[:, 0] == shape)
        images[index[:, None, None], rows[index][:, :, None], columns[index][:, None, :]] = inside(u[index], v[index])


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) < _SQUARE_HALF_SIDE) & (np.abs(v) < _SQUARE_HALF_SIDE)


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / _ELLIPSE_RADII[0]) ** 2 + (v / _ELLIPSE_RADII[1]) ** 2 < 1.0


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _inside_polygon(u, v, _HEART)


def location_label(levels: np.ndarray) -> np.ndarray:
    """dSprites-Loc: 16 equal bins of the horizontal position, floor(level / 2) (VTAB)."""
    return np.atleast_2d(levels)[:, 3] // 2


def orientation_label(levels: np.ndarray) -> np.ndarray:
    """dSprites-Ori: 16 bins of the orientation, floor(level / 2.5) (VTAB)."""
    return np.floor(np.atleast_2d(levels)[:, 2] / 2.5).astype(np.int64)
