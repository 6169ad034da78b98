"""Parts shared by all figures: frame, axes, labels at line ends, bands, and thinning of long series."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import NamedTuple

from mlae_lab.core.events import TrainStep
from mlae_lab.core.plan import MaskPlan

MAX_POINTS = 400
FRAME = 88  # pixels of a figure above and below its plot
_ENDS = (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
_LABEL_PIXELS = 15  # least distance of two labels at line ends
_CLEAR = "rgba(0,0,0,0)"
_KEEP = 1 - 1 / 8  # decay of a running mean per step
SEQUENTIAL = [[0.0, "@faint"], [0.5, "@middle"], [1.0, "@accent"]]
DIVERGING = [[0.0, "@low"], [0.5, "@surface"], [1.0, "@high"]]
_FONT = {"family": "Inter, sans-serif", "size": 13, "color": "@ink"}


@dataclass(frozen=True)
class Figure:
    """spec: Plotly JSON with named colours; alt: text alternative; name: of saved files."""

    spec: str
    alt: str
    name: str

    @property
    def data(self) -> list[dict]:
        return json.loads(self.spec)["data"]


class Moment(NamedTuple):
    """One step of a curve: its loss, and the running means of loss and training accuracy in percent."""

    step: int
    epoch: int
    loss: float | None
    mean_loss: float | None
    mean_accuracy: float | None


@dataclass(frozen=True)
class Reference:
    """A level to compare with: a dashed line with a label at its end."""

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
        "margin": {
            "l": 52,
            "r": 16,
            "t": 66 if layout.get("showlegend") else 44,  # the legend is under the title
            "b": 44,
        },
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


def end_label(x: float, y: float, text: str, colour: str, shift: int = 0, of: str = "") -> dict:
    """An annotation that labels a line at its end.

    Args:
        x: Position on the x axis.
        y: Position on the y axis.
        text: The label.
        colour: Of the label.
        shift: Vertical offset in pixels.
        of: Name of the trace that a click on the label hides or shows, "" for none.
    """
    return {
        **({"name": of, "captureevents": True} if of else {}),
        "x": x,
        "y": y,
        "text": text,
        "xanchor": "left",
        "yanchor": "middle",
        "xshift": 6,
        "yshift": shift,
        "showarrow": False,
        "font": {"size": 12, "color": colour},
        "bgcolor": "@surface",  # a line of another trace may pass under it
    }


def thinned(values: Sequence, limit: int = MAX_POINTS) -> list:
    """At most `limit` of the values, evenly spread and including the last."""
    if len(values) <= limit:
        return list(values)
    stride = -(-len(values) // (limit - 1))
    return [*values[::stride], *([] if (len(values) - 1) % stride == 0 else [values[-1]])]


def room(low: float, high: float, least: float) -> tuple[float, float]:
    """An axis range that contains low to high with a margin and spans at least `least`."""
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    margin = 0.09 * (high - low)
    return low - margin, high + margin


def colour_reach(values: Iterable[float]) -> float:
    """End of a diverging colour scale: the 95th percentile of the sizes, rounded up to 1, 1.5, 2, 3, 5 or 7 × 10ⁿ.

    A few outliers do not wash out the rest, and the end seldom changes during a run. At most 1, at least 0.01.
    """
    sizes = sorted(map(abs, values))
    most = sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))] if sizes else 1.0
    return next((end for end in _ENDS if end >= most), 1.0)


def band(
    name: str,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    hatched: bool = False,
    opacity: float = 1.0,
) -> list[dict]:
    """A filled area between two lines as one closed outline; none for fewer than two points."""
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


def absent_experts(plan: MaskPlan) -> dict:
    """Strokes through the cells of a grid of experts that a mask leaves out."""
    absent = [(r, c) for r in range(plan.rows) for c in range(plan.columns) if not plan.keep[r][c]]
    cells = [(str(c + 1), plan.row_labels[r]) for r, c in absent]
    return struck(cells, "layer %{y}, expert %{x}: not in this mask", "no expert")


def struck(cells: Sequence[tuple[str, str]], text: str, name: str = "none") -> dict:
    """Strokes through cells (column, row) of a grid. text: of a cell that is pointed at."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "meta": "decoration",
        "x": [column for column, _ in cells],
        "y": [row for _, row in cells],
        "hovertemplate": f"{text}<extra></extra>",
        "marker": {"symbol": "line-ne-open", "size": 9, "color": "@quiet", "line": {"color": "@quiet", "width": 1}},
    }


def apart(ends: Sequence[tuple[float, float, str, str]], pixels_per_unit: float) -> list[dict]:
    """Labels at line ends, each (x, y, text, colour), moved apart where they would overlap."""
    labels: list[dict] = []
    for x in sorted({end[0] for end in ends}):
        labels += spread([end_label(*end) for end in ends if end[0] == x], pixels_per_unit)
    return labels


def spread(labels: Sequence[dict], pixels_per_unit: float) -> list[dict]:
    """Labels of `end_label`, moved apart vertically where they would overlap, and centred on their lines.

    Args:
        labels: Labels at about the same x.
        pixels_per_unit: Of the y axis.
    """
    labels = sorted(labels, key=lambda label: label["y"])
    blocks: list[list[float]] = []  # of labels that touch: position minus that in a stack of all labels
    for i, label in enumerate(labels):
        blocks.append([label["y"] * pixels_per_unit - i * _LABEL_PIXELS])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    bases = [fmean(block) for block in blocks for _ in block]
    return [
        label | {"yshift": round(base + i * _LABEL_PIXELS - label["y"] * pixels_per_unit)}
        for i, (label, base) in enumerate(zip(labels, bases, strict=True))
    ]


class Running:
    """The steps of a run as a growing curve of at most MAX_POINTS moments, so that drawing has a constant cost.

    The means are exponential, over about eight steps, with bias correction; values that are not finite are skipped.
    """

    def __init__(self, steps: Iterable[TrainStep] = ()) -> None:
        self._kept: list[Moment] = []
        self._last: Moment | None = None
        self._stride, self._count = 1, 0
        self._totals = {"loss": (0.0, 0.0), "accuracy": (0.0, 0.0)}
        for step in steps:
            self.add(step)

    def add(self, step: TrainStep) -> None:
        """Add the next step."""
        means = self._mean("loss", step.loss), self._mean("accuracy", step.accuracy)
        moment = Moment(step.step, step.epoch, finite(step.loss), *means)
        if self._count % self._stride == 0:
            self._kept.append(moment)
            if len(self._kept) >= MAX_POINTS:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._count += 1
        self._last = moment

    def _mean(self, name: str, value: float) -> float | None:
        total, weight = self._totals[name]
        if isfinite(value):
            total, weight = _KEEP * total + value, _KEEP * weight + 1
            self._totals[name] = total, weight
        return total / weight if weight else None

    @property
    def moments(self) -> list[Moment]:
        """The curve, including the last step."""
        ends = self._last is None or (self._kept and self._kept[-1] is self._last)
        return [*self._kept] if ends or self._last is None else [*self._kept, self._last]


def finite(value: float) -> float | None:
    """The value, or None if it is not finite, which JSON cannot represent."""
    return value if isfinite(value) else None


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
