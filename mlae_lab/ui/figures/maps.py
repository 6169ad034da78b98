"""Maps on images, in the paper's layout (figures 6 and 7): images down, experts across."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlae_lab.data.overlay import BOTH_WAYS, GLOW, RGB, Row, scaled
from mlae_lab.ui.figures.base import Figure, figure

SCALES = ("from 0", "from its smallest", "one for all")
_WIDE = 990  # pixels that a figure has at a window of 1280
_LARGEST = 150  # pixels of a map
_LEFT = 76  # pixels for names


def maps_figure(
    rows: Sequence[Row],
    columns: Sequence[str],
    title: str,
    quantity: str,
    name: str,
    signed: Sequence[bool] = (),
    scale: str = SCALES[0],
    opacity: float = 0.7,
) -> Figure:
    """Each map over its image; the bare image stands first.

    columns: names of the maps. signed: which of them have both signs. quantity: of the values, in words. scale: one of
    SCALES: each map up to its own largest value, which stands under it, from 0 or, for a map without signs, from its
    smallest; or one scale for all. The browser makes the figure as high as its width asks for.
    """
    both = tuple(signed) or (False,) * len(columns)
    height, width = next(values.shape for row in rows for values in row.maps if values is not None)
    gap_y, gap_x = -(-height // 4), -(-width // 12)
    step_y, step_x = height + gap_y, width + gap_x
    shape = (len(rows) * step_y, (len(columns) + 1) * step_x - gap_x)
    largest = max(float(np.abs(values).max()) for row in rows for values in row.maps if values is not None)
    sheets = {two: np.full(shape, np.nan) for two in (False, True) if two in both}
    hints = np.full(shape, "", dtype=object)
    images, words = [], []
    for number, head in enumerate(("image", *_heads(columns))):
        words.append(_word(number * step_x + (width - 1) / 2, -0.5, head, yanchor="bottom"))
    for down, row in enumerate(rows):
        top = down * step_y
        words.append(_word(-0.5, top + (height - 1) / 2, row.name[:14], "@ink", xanchor="right", xshift=-6))
        for across, values in enumerate((None, *row.maps)):
            left = across * step_x
            if across and values is None:
                continue
            images.append(_image(row.image, left, top, width, height))
            if values is None:
                continue
            two = both[across - 1]
            own = slice(top, top + height), slice(left, left + width)
            smallest = float(values.min()) if scale == SCALES[1] and not two else 0.0
            sheets[two][own] = scaled(values, largest if scale == SCALES[2] else None, smallest)
            hints[own] = [[f"{row.name}, {columns[across - 1]}: {v:.4g}" for v in line] for line in values]
            if scale != SCALES[2]:
                most = f"{np.abs(values).max():.2g}"
                words.append(_word(left + (width - 1) / 2, top + height - 0.4, most, yanchor="top", size=10))
    data = [_heat(sheet, hints, two, opacity, quantity) for two, sheet in sheets.items()]
    margin = {"l": _LEFT if any(row.name for row in rows) else 4, "r": 4, "t": 76, "b": 8}
    cell = min(_LARGEST / width, (_WIDE - margin["l"] - margin["r"]) / shape[1])  # pixels
    words_on_scale = (
        f"one scale, up to {largest:.2g}" if scale == SCALES[2] else f"each map {scale} to its own largest value"
    )
    bare = {"visible": False, "constrain": "domain"}
    return figure(
        data,
        title,
        f"{len(rows)} images down, {len(columns)} maps across. {title}. {quantity}; {words_on_scale}.",
        name,
        height=round(cell * shape[0] + margin["t"] + margin["b"]),
        meta={"fit": {"across": shape[1], "down": shape[0], "most": _LARGEST / width}},
        xaxis={**bare, "range": [-0.5, shape[1] - 0.5], "constraintoward": "left"},
        yaxis={**bare, "range": [shape[0] - 0.5, -0.5], "scaleanchor": "x", "constraintoward": "top"},
        images=images,
        annotations=words,
        margin=margin,
    )


def glow_note(scale: str = SCALES[0]) -> str:
    """What dark and bright are in maps without a sign, as a sentence. scale: one of SCALES."""
    if scale == SCALES[1]:
        return "Dark: the map's smallest value, bright: its largest."
    return (
        f"Dark: 0, bright: {'the largest value of all maps' if scale == SCALES[2] else 'the largest value of the map'}."
    )


def _heads(columns: Sequence[str]) -> list[str]:
    """Short names above the maps: "expert 1", "2", "3"; "rollout, with" takes two lines."""
    found = []
    for before, column in zip(("", *columns), columns, strict=False):
        first, _, rest = column.partition(" ")
        same = rest.isdigit() and before.partition(" ")[0] == first
        found.append(rest if same else column.replace(", ", "<br>"))
    return found


def _heat(sheet: np.ndarray, hints: np.ndarray, signed: bool, opacity: float, quantity: str) -> dict:
    there = ~np.isnan(sheet)
    return {
        "type": "heatmap",
        "name": quantity,
        "z": [
            [round(v, 3) if t else None for v, t in zip(*line, strict=False)]
            for line in zip(sheet.tolist(), there.tolist(), strict=False)
        ],
        "text": np.where(there, hints, "").tolist(),
        "zmin": -1 if signed else 0,
        "zmax": 1,
        "colorscale": _scale(BOTH_WAYS if signed else GLOW),
        "opacity": opacity,
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _scale(stops: Sequence[RGB]) -> list[list]:
    return [[number / (len(stops) - 1), "rgb({},{},{})".format(*stop)] for number, stop in enumerate(stops)]


def _image(image: str, left: float, top: float, width: int, height: int) -> dict:
    kind = "png" if image.startswith("iVBOR") else "jpeg"
    return {
        "source": f"data:image/{kind};base64,{image}",
        "xref": "x",
        "yref": "y",
        "x": left - 0.5,
        "y": top - 0.5,
        "sizex": width,
        "sizey": height,
        "sizing": "stretch",
        "layer": "below",
    }


def _word(x: float, y: float, text: str, colour: str = "@quiet", size: int = 12, **where) -> dict:
    font = {"size": size, "color": colour}
    return {"x": x, "y": y, "xref": "x", "yref": "y", "text": text, "showarrow": False, "font": font, **where}
