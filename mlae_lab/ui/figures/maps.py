"""Maps on images, in the paper's layout (figures 6 and 7): images down, experts across."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlae_lab.core.data_url import data_url
from mlae_lab.data.listing import counted
from mlae_lab.data.overlay import BOTH_WAYS, GLOW, RGB, Row, scaled
from mlae_lab.ui.figures.base import Figure, figure

SCALES = ("from 0", "from minimum", "shared")
_FIGURE_WIDTH = 990  # pixels of a figure in a window 1280 pixels wide
_MAX_MAP = 150  # pixels, largest size of a map
_LABEL_WIDTH = 76  # pixels for the names of images


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
    """Each map drawn over its image, after the image itself. The browser sets the height to fit the width.

    Args:
        rows: Images with their maps.
        columns: Names of the maps.
        title: Of the figure.
        quantity: What the values are.
        name: Of saved files.
        signed: Which maps have both signs, none by default.
        scale: One of SCALES: each map up to its own largest value, shown below it, from 0 or, for maps without sign,
            from its smallest value; or one scale shared by all maps.
        opacity: Of the maps over the images.
    """
    signed_maps = tuple(signed) or (False,) * len(columns)
    height, width = next(values.shape for row in rows for values in row.maps if values is not None)
    gap_y, gap_x = -(-height // 4), -(-width // 12)
    step_y, step_x = height + gap_y, width + gap_x
    shape = (len(rows) * step_y, (len(columns) + 1) * step_x - gap_x)
    largest = max(float(np.abs(values).max()) for row in rows for values in row.maps if values is not None)
    layers = {is_signed: np.full(shape, np.nan) for is_signed in (False, True) if is_signed in signed_maps}
    hover_texts = np.full(shape, "", dtype=object)
    images, labels = [], []
    for number, heading in enumerate(("image", *_headings(columns))):
        labels.append(_label(number * step_x + (width - 1) / 2, -0.5, heading, yanchor="bottom"))
    for down, row in enumerate(rows):
        top = down * step_y
        labels.append(_label(-0.5, top + (height - 1) / 2, row.name[:14], "@ink", xanchor="right", xshift=-6))
        for across, values in enumerate((None, *row.maps)):
            left = across * step_x
            if across and values is None:
                continue
            images.append(_image(row.image, left, top, width, height))
            if values is None:
                continue
            is_signed = signed_maps[across - 1]
            region = slice(top, top + height), slice(left, left + width)
            smallest = float(values.min()) if scale == SCALES[1] and not is_signed else 0.0
            layers[is_signed][region] = scaled(values, largest if scale == SCALES[2] else None, smallest)
            hover_texts[region] = [[f"{row.name}, {columns[across - 1]}: {v:.4g}" for v in line] for line in values]
            if scale != SCALES[2]:
                largest_text = f"{np.abs(values).max():.2g}"
                labels.append(_label(left + (width - 1) / 2, top + height - 0.4, largest_text, yanchor="top", size=10))
    data = [_heat(sheet, hover_texts, is_signed, opacity, quantity) for is_signed, sheet in layers.items()]
    margin = {"l": _LABEL_WIDTH if any(row.name for row in rows) else 4, "r": 4, "t": 76, "b": 8}
    cell = min(_MAX_MAP / width, (_FIGURE_WIDTH - margin["l"] - margin["r"]) / shape[1])  # pixels
    scale_text = f"shared scale up to {largest:.2g}" if scale == SCALES[2] else f"each map {scale} to its maximum"
    bare = {"visible": False, "constrain": "domain"}
    return figure(
        data,
        title,
        f"{counted(len(rows))} down, {counted(len(columns), 'map')} across. {title}. {quantity}; {scale_text}.",
        name,
        height=round(cell * shape[0] + margin["t"] + margin["b"]),
        meta={"fit": {"across": shape[1], "down": shape[0], "most": _MAX_MAP / width}},
        xaxis={**bare, "range": [-0.5, shape[1] - 0.5], "constraintoward": "left"},
        yaxis={**bare, "range": [shape[0] - 0.5, -0.5], "scaleanchor": "x", "constraintoward": "top"},
        images=images,
        annotations=labels,
        margin=margin,
    )


def glow_note(scale: str = SCALES[0]) -> str:
    """Explain dark and bright in maps without sign. scale: one of SCALES."""
    if scale == SCALES[1]:
        return "Dark: the map's smallest value, bright: its largest."
    return (
        f"Dark: 0, bright: {'the largest value of all maps' if scale == SCALES[2] else 'the largest value of the map'}."
    )


def _headings(columns: Sequence[str]) -> list[str]:
    """Short headings above the maps: "expert 1", "2", "3"; "rollout, with" takes two lines."""
    headings = []
    for before, column in zip(("", *columns), columns, strict=False):
        first, _, rest = column.partition(" ")
        continues = rest.isdigit() and before.partition(" ")[0] == first
        headings.append(rest if continues else column.replace(", ", "<br>"))
    return headings


def _heat(values: np.ndarray, hover_texts: np.ndarray, signed: bool, opacity: float, quantity: str) -> dict:
    present = ~np.isnan(values)
    return {
        "type": "heatmap",
        "name": quantity,
        "z": [
            [round(v, 3) if t else None for v, t in zip(*line, strict=False)]
            for line in zip(values.tolist(), present.tolist(), strict=False)
        ],
        "text": np.where(present, hover_texts, "").tolist(),
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
    return {
        "source": data_url(image),
        "xref": "x",
        "yref": "y",
        "x": left - 0.5,
        "y": top - 0.5,
        "sizex": width,
        "sizey": height,
        "sizing": "stretch",
        "layer": "below",
    }


def _label(x: float, y: float, text: str, colour: str = "@quiet", size: int = 12, **where) -> dict:
    font = {"size": size, "color": colour}
    return {"x": x, "y": y, "xref": "x", "yref": "y", "text": text, "showarrow": False, "font": font, **where}
