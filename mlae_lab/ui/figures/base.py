"""What all figures share: the frame, the axes, and how a long series becomes a short one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

MAX_POINTS = 400
FRAME = 88  # pixels of a figure above and below its plot
_LABEL_PIXELS = 15  # between two names at the ends of lines
_CLEAR = "rgba(0,0,0,0)"
SEQUENTIAL = [[0.0, "@faint"], [0.5, "@middle"], [1.0, "@accent"]]
DIVERGING = [[0.0, "@low"], [0.5, "@surface"], [1.0, "@high"]]
_FONT = {"family": "Inter, sans-serif", "size": 13, "color": "@ink"}


@dataclass(frozen=True)
class Figure:
    """spec: Plotly JSON with named colours. alt: what it shows, in words. name: for saved files."""

    spec: str
    alt: str
    name: str

    @property
    def data(self) -> list[dict]:
        return json.loads(self.spec)["data"]


@dataclass(frozen=True)
class Reference:
    """A level to compare with: a dashed line that is named at its end."""

    label: str
    value: float


def figure(data: list[dict], title: str, alt: str, name: str, height: int = 300, **layout) -> Figure:
    base = {
        "title": {
            "text": title,
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "font": {"size": 15, "weight": 600},
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 6, "l": 2},
        },
        "font": _FONT,
        "height": height,
        "margin": {"l": 52, "r": 16, "t": 44, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "uirevision": name,
        "hovermode": "closest",
        "dragmode": "zoom",
        "hoverlabel": {
            "bgcolor": "@raised",
            "bordercolor": "@hairline",
            "font": {"color": "@ink", "family": "Inter, sans-serif"},
        },
        "modebar": {"bgcolor": "@surface", "color": "@quiet", "activecolor": "@accent"},
    }
    return Figure(json.dumps({"data": data, "layout": base | layout}, separators=(",", ":")), alt, name)


def axis(title: str, **more) -> dict:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": "@quiet"}},
        "gridcolor": "@hairline",
        "linecolor": "@hairline",
        "zeroline": False,
        "tickfont": {"size": 12, "color": "@quiet"},
        **more,
    }


def end_label(x: float, y: float, text: str, colour: str, shift: int = 0) -> dict:
    return {
        "x": x,
        "y": y,
        "text": text,
        "xanchor": "left",
        "yanchor": "middle",
        "xshift": 6,
        "yshift": shift,
        "showarrow": False,
        "font": {"size": 12, "color": colour},
    }


def thinned(values: Sequence, most: int = MAX_POINTS) -> list:
    """At most `most` of the values, evenly spread, the last always among them."""
    if len(values) <= most:
        return list(values)
    stride = -(-len(values) // (most - 1))
    return [*values[::stride], *([] if (len(values) - 1) % stride == 0 else [values[-1]])]


def smoothed(values: Sequence[float], span: int = 8) -> list[float]:
    """Exponential mean over about `span` values, without a bias towards the start."""
    keep, total, weight, found = 1 - 1 / span, 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight)
    return found


def room(low: float, high: float, least: float) -> tuple[float, float]:
    """An axis range that holds low to high with some air, at least so wide."""
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    air = 0.09 * (high - low)
    return low - air, high + air


def band(
    name: str,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    hatched: bool = False,
    opacity: float = 1.0,
) -> list[dict]:
    """A surface between two lines as one closed outline; none for fewer than two places."""
    if len(x) < 2:
        return []
    fill: dict = {"fillcolor": colour}
    if hatched:
        fill = {
            "fillcolor": _CLEAR,
            "fillpattern": {
                "shape": "/",
                "fgcolor": "@quiet",
                "bgcolor": _CLEAR,
                "fillmode": "replace",
                "size": 7,
                "solidity": 0.12,
            },
        }
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": [*x, *reversed(x)],
            "y": [round(v, 5) for v in (*low, *reversed(high))],
            "fill": "toself",
            **fill,
            "opacity": opacity,
            "line": {"width": 0, "color": colour},
            "hoverinfo": "skip",
        }
    ]


def apart(ends: Sequence[tuple[float, float, str, str]], pixels_per_unit: float) -> list[dict]:
    """Names at the ends of lines, (x, y, text, colour), moved apart where they would lie on each other."""
    labels: list[dict] = []
    for x in sorted({end[0] for end in ends}):
        here = sorted((end for end in ends if end[0] == x), key=lambda end: end[1])
        wanted = [y * pixels_per_unit for _, y, _, _ in here]
        placed: list[float] = []
        for at in wanted:
            placed.append(max(at, placed[-1] + _LABEL_PIXELS) if placed else at)
        shift = sum(wanted) / len(wanted) - sum(placed) / len(placed)  # as many go down as go up
        labels += [
            end_label(x, y, text, colour, round(at + shift - want))
            for (_, y, text, colour), at, want in zip(here, placed, wanted)
        ]
    return labels
