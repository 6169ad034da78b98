"""Variation over seeds: the accuracy of each seed, and the difference of two masks for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlae_lab.core.seed_statistics import SeedStatistics, between, points
from mlae_lab.ui.figures.base import FRAME, Figure, apart, axis, figure

SEEDS_NOTE = (
    "A dot is a run after its last epoch. Line: mean over seeds; band: 95 % interval of the mean, mean ± "
    "t(97.5 %, n − 1) s/√n, cut at 0 and 100 %. "
    "The band covers the variation between seeds, not between evaluation images, which are the same in all runs."
)
PAIRED_NOTE = (
    "A dot is B − A for one seed: the two runs differ only in the mask, so effects of the seed on both cancel. "
    "Band: 95 % interval of the mean difference (Student's t)."
)

_HEIGHT = 320


@dataclass(frozen=True)
class Lane:
    """The seeds of one mask. name: label at the line's end; values: (seed, value); statistics: of the values."""

    name: str
    values: tuple[tuple[int, float], ...]
    statistics: SeedStatistics


def seeds_figure(lanes: Sequence[Lane], split: str) -> Figure:
    """Accuracy of each seed for one mask or two, with mean and interval. split: "val" or "test"."""
    if len(lanes) == 1:
        statistics = lanes[0].statistics
        summary = f"{statistics.mean:.1f} %, one seed"
        if statistics.interval is not None:
            _, low, high = statistics.interval
            summary = f"{statistics.mean:.1f} % (95 % {between(low, high, signed=False)}, n = {statistics.n})"
    else:
        summary = ", ".join(f"{lane.name} {lane.statistics.mean:.1f} %" for lane in lanes)
    title = f"Accuracy on {split}: {summary}"
    styles = [("@quiet", "circle-open", "dash"), ("@accent", "circle", "solid")]
    return _dots(lanes, styles[-len(lanes) :], title, "seeds", f"top-1 accuracy on {split}, %", "%{y:.1f} %")


def paired_figure(lane: Lane) -> Figure:
    """B - A of each seed, with mean, interval and a line at 0."""
    statistics = lane.statistics
    title = f"B − A: {points(statistics.mean, signed=True)} points"
    if statistics.interval is None:
        title += ", one pair"
    else:
        _, low, high = statistics.interval
        title += f" (95 % {between(low, high)}, n = {statistics.n})"
    style = ("@accent", "circle", "solid")
    return _dots(
        [lane], [style], title, "seeds-paired", "B − A, points of top-1 accuracy", "%{y:+.2f} points", zero=True
    )


def _dots(
    lanes: Sequence[Lane],
    styles: Sequence[tuple[str, str, str]],
    title: str,
    name: str,
    quantity: str,
    hover: str,
    zero: bool = False,
) -> Figure:
    data, shapes, ends = [], [], []
    seeds = sorted({seed for lane in lanes for seed, _ in lane.values})
    labels = [str(seed) for seed in seeds]
    values = [v for lane in lanes for _, v in lane.values] + [0.0] * zero
    for lane in lanes:
        values += [v for v in (lane.statistics.low, lane.statistics.high) if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max(0.08 * (high - low), 0.25 if len(values) > 1 else 2.0)
    for lane, (colour, symbol, dash) in zip(lanes, styles, strict=False):
        if lane.statistics.low is not None:
            shapes.append(
                {
                    "type": "rect",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": lane.statistics.low,
                    "y1": lane.statistics.high,
                    "fillcolor": colour,
                    "opacity": 0.12,
                    "line": {"width": 0},
                    "layer": "below",
                }
            )
        if lane.statistics.n > 1:
            shapes.append(
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": lane.statistics.mean,
                    "y1": lane.statistics.mean,
                    "line": {"color": colour, "width": 2, "dash": dash},
                }
            )
        if lane.name:
            ends.append((1, lane.statistics.mean, lane.name, colour))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": lane.name,
                "x": [str(seed) for seed, _ in lane.values],
                "y": [round(value, 3) for _, value in lane.values],
                "cliponaxis": False,  # a dot at 100 % lies on the edge
                "marker": {"size": 10, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
                "hovertemplate": "seed %{x}: " + hover + f"<extra>{lane.name}</extra>",
            }
        )
    if zero:
        shapes.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": "@ink", "width": 1}}
        )
    low, high = low - margin, high + margin if zero else min(100.0, high + margin)
    return figure(
        data,
        title,
        f"Dots by seed: {', '.join(labels)}. {title}.",
        name,
        height=_HEIGHT,
        xaxis=axis(
            "seed", type="category", categoryarray=labels, categoryorder="array", range=[-0.5, len(labels) - 0.5]
        ),
        yaxis=axis(
            quantity,
            range=[low, high],
            **({"tickformat": "+~g"} if zero else {}),
        ),
        shapes=shapes,
        annotations=[label | {"xref": "paper"} for label in apart(ends, (_HEIGHT - FRAME) / (high - low))],
        margin={"l": 58, "r": 56, "t": 44, "b": 44},
    )
