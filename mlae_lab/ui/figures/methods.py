"""Accuracy of methods: ranked, and against their trained parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlae_lab.core.paper_methods import Row
from mlae_lab.core.seed_statistics import SeedStatistics
from mlae_lab.runs.method_points import MethodPoint
from mlae_lab.runs.method_table import RECIPES, TablePoint
from mlae_lab.ui.figures.base import FRAME, Figure, axis, end_label, figure, room

Paper = Sequence[tuple[Row, float]]
_HEIGHT = 440
_WIDTH = 620  # pixels of the plot in a wide window: labels that collide there are left out
_LETTER, _LINE = 6.6, 15  # pixels of a label
_SIDES = {"middle right": (0.0, -0.5), "middle left": (-1.0, -0.5), "top center": (-0.5, -1.0),
          "bottom center": (-0.5, 0.0)}  # fmt: skip
_GAP = 8  # pixels between a point and its label
# of a recipe in the lab's table: symbol, colour, and rows above the middle of the method's row
_RECIPE_STYLES = {"common": ("circle", "@accent", 0.16), "own": ("diamond-open", "@high", -0.16)}
_LEFT = 30  # pixels between the first point and the axis


def ranking_figure(points: Sequence[MethodPoint], split: str, paper: Paper) -> Figure:
    """One row per method and settings, the highest accuracy on top; bars: 95 % interval over seeds.

    Args:
        points: Of runs with one badge, at least one.
        split: "val" or "test".
        paper: Rows of the paper with their accuracy on this task, open circles in the rows of their methods.
    """
    ranked = sorted(points, key=lambda point: point.accuracy.mean)
    names = _distinct(ranked)
    best = ranked[-1]
    title = f"Best on {split}: {best.what}, {best.accuracy.mean:.1f} %"
    if best.accuracy.deviation is not None:
        title += f" (mean of {best.accuracy.n} seeds)"
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [round(point.accuracy.mean, 3) for point in ranked],
            "y": names,
            "marker": {"size": 9, "color": [_colour(point) for point in ranked]},
            "error_x": _bars([point.accuracy for point in ranked]),
            "customdata": [_described(point) for point in ranked],
            "hovertemplate": "%{y}: %{x:.1f} %<br>%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]} "
            "parameters<extra></extra>",
        }
    ]
    rows = [(names[i], row, value) for row, value in paper for i, p in enumerate(ranked) if p.name == row.method]
    if rows:
        data.insert(
            0,
            {
                "type": "scatter",
                "mode": "markers",
                "x": [value for _, _, value in rows],
                "y": [name for name, _, _ in rows],
                "marker": {"size": 8, "color": "@middle", "symbol": "circle-open"},
                "hovertemplate": "%{text}, paper: %{x:.1f} %<extra></extra>",
                "text": [row.title for _, row, _ in rows],
            },
        )
    alt = f"Dot plot of accuracy on {split} by method: " + "; ".join(
        f"{name} {point.accuracy.mean:.1f} %" for name, point in zip(names, ranked, strict=True)
    )
    return figure(
        data, title, f"{alt}.", "methods-ranked", FRAME + 24 * len(ranked),
        xaxis=axis(f"top-1 accuracy on {split}, %"),
        yaxis=axis("", type="category", categoryorder="array", categoryarray=names, automargin=True, dtick=1),
        margin={"l": 12, "r": 16, "t": 44, "b": 44},
    )  # fmt: skip


def methods_figure(points: Sequence[MethodPoint], split: str, active: bool, paper: Paper) -> Figure:
    """Accuracy against parameters, one point per method and settings; a label that would cover another is left out.

    Args:
        points: Of runs with one badge, at least one.
        split: "val" or "test".
        active: Whether x is the parameters that act in a step on average, in place of all trained ones.
        paper: Rows of the paper with their accuracy on this task, drawn faintly.
    """
    counts = [point.active if active else point.parameters for point in points]
    others = [count for count in (*counts, *(row.parameters * 1e6 for row, _ in paper)) if count]
    none = min(others, default=1.0) / 4  # where a logarithmic axis shows no parameters
    x = [count or none for count in counts]
    y = [round(point.accuracy.mean, 3) for point in points]
    texts = [point.what if count else f"{point.what} (0)" for point, count in zip(points, counts, strict=True)]
    low, high = room(min(y), max(y), least=4.0)
    high = min(high, 100.5)
    if paper:
        low, high = min(low, *(value for _, value in paper)) - 1, max(high, *(value for _, value in paper)) + 1
    positions = label_sides(x, y, texts, (low, high))
    data: list[dict[str, Any]] = []
    if paper:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [row.parameters * 1e6 or none for row, _ in paper],
                "y": [value for _, value in paper],
                "text": [row.title for row, _ in paper],
                "marker": {"size": 7, "color": "@middle", "symbol": "circle-open"},
                "hovertemplate": "%{text}, paper: %{y:.1f} %<extra></extra>",
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": x,
            "y": y,
            "text": [text if position else "" for text, position in zip(texts, positions, strict=True)],
            "textposition": [position or "middle right" for position in positions],
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "marker": {"size": 9, "color": [_colour(point) for point in points]},
            "hovertext": texts,
            "customdata": [_described(point) for point in points],
            "hovertemplate": "%{hovertext}: %{y:.1f} %<br>%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]} "
            "parameters<extra></extra>",
        }
    )
    quantity = "parameters active in a step" if active else "trained parameters without the head"
    alt = f"Scatter plot of accuracy on {split} against {quantity}: " + "; ".join(
        f"{p.what} {p.accuracy.mean:.1f} % with {p.parameters:,} parameters" for p in points
    )
    return figure(
        data, f"Accuracy against {'active' if active else 'trained'} parameters", f"{alt}.", "methods", _HEIGHT,
        xaxis=axis(f"{quantity} (log)", type="log"),
        yaxis=axis(f"top-1 accuracy on {split}, %", range=[low, high]),
        margin={"l": 52, "r": 130, "t": 44, "b": 44},
    )  # fmt: skip


def table_figure(points: Sequence[TablePoint], task: str) -> Figure:
    """One row per method of the lab's own table, the highest accuracy with the common recipe on top.

    Filled circles are runs with the common recipe, open diamonds those with the method's own; bars are 95 % intervals
    over seeds, the dashed line is the linear probe.

    Args:
        points: Of one task, at least one.
        task: Its title.
    """
    ranked = sorted(points, key=lambda point: (point.recipe == "common", point.accuracy.mean))
    rows = {method: row for row, method in enumerate(dict.fromkeys(point.method for point in reversed(ranked)))}
    rows = {method: len(rows) - 1 - row for method, row in rows.items()}
    best = max(points, key=lambda point: point.accuracy.mean)
    data = []
    for recipe, (symbol, colour, shift) in _RECIPE_STYLES.items():
        shown = [point for point in ranked if point.recipe == recipe]
        if not shown:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": RECIPES[recipe].lower(),
                "x": [round(point.accuracy.mean, 3) for point in shown],
                "y": [rows[point.method] + shift for point in shown],
                "marker": {"size": 9, "symbol": symbol, "color": colour, "line": {"width": 1.6, "color": colour}},
                "error_x": _bars([point.accuracy for point in shown], colour),
                "customdata": [[point.title, _seeds(point.accuracy), f"{point.parameters:,}"] for point in shown],
                "hovertemplate": f"%{{customdata[0]}}, {RECIPES[recipe].lower()}: %{{x:.1f}} %<br>%{{customdata[1]}}, "
                "%{customdata[2]} parameters<extra></extra>",
            }
        )
    probe = next((p.accuracy.mean for p in points if (p.method, p.recipe) == ("linear", "common")), None)
    marks: dict[str, Any] = {}
    if probe is not None:
        line = {"color": "@quiet", "width": 1.2, "dash": "dash"}
        marks["shapes"] = [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": probe, "x1": probe, "line": line}]
        label = end_label(probe, 1, "linear probe", "@quiet")
        marks["annotations"] = [label | {"yref": "paper", "yanchor": "bottom", "xanchor": "center", "xshift": 0}]
    titles = {point.method: point.title for point in points}
    alt = f"Dot plot of accuracy on the test set of {task} by method: " + "; ".join(
        f"{point.title}, {RECIPES[point.recipe].lower()} {point.accuracy.mean:.1f} % ({_seeds(point.accuracy)})"
        for point in reversed(ranked)
    )
    height = FRAME + 40 + 24 * len(rows)
    title = f"Best: {best.title}, {best.accuracy.mean:.1f} % ({_seeds(best.accuracy)})"
    return figure(
        data, title, f"{alt}.", "method-table", height, showlegend=True,
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "xref": "container", "y": 1 - 28 / height,
            "yref": "container", "yanchor": "top", "font": {"size": 12, "color": "@quiet"},
        },
        xaxis=axis(f"top-1 accuracy on test, {task}, %"),
        yaxis=axis(
            "", tickvals=list(rows.values()), ticktext=[titles[method] for method in rows], automargin=True,
            range=[-0.7, len(rows) - 0.3],
        ),
        margin={"l": 12, "r": 16, "t": 92, "b": 44}, **marks,
    )  # fmt: skip


def _distinct(points: Sequence[MethodPoint]) -> list[str]:
    """A name for each point: the method, with its settings where several have the same."""
    names = [point.what for point in points]
    full = [
        name if names.count(name) == 1 else f"{name} ({point.settings})"
        for name, point in zip(names, points, strict=True)
    ]
    return [name if full.count(name) == 1 else f"{name}, run {p.runs[0]}" for name, p in zip(full, points, strict=True)]


def label_sides(
    x: Sequence[float],
    y: Sequence[float],
    texts: Sequence[str],
    limits: tuple[float, float],
    width: int = _WIDTH,
    right: float = math.inf,
    order: Sequence[str] = tuple(_SIDES),
    least: float = 0.5,
) -> list[str | None]:
    """The side of each point on which its label covers no other label or point, None where each does.

    The highest points choose first.

    Args:
        x: Positions on a logarithmic axis.
        y: Positions on a linear axis.
        texts: Labels, "" for none.
        limits: Of the y axis.
        width: Of the plot in pixels.
        right: Pixels that a label may extend beyond the last point.
        order: Sides, the best first.
        least: Powers of ten that the x axis spans at least.
    """
    wide = max(math.log10(max(x) / min(x)), least)
    pixels = [
        (width * math.log10(a / min(x)) / wide, _HEIGHT * (limits[1] - b) / (limits[1] - limits[0]))
        for a, b in zip(x, y, strict=True)
    ]
    taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in pixels]
    positions: list[str | None] = [None] * len(x)
    for i in sorted(range(len(x)), key=lambda i: -y[i]):
        if not texts[i]:
            continue
        long = _LETTER * len(texts[i])
        for side in order:
            across, down = _SIDES[side]
            left = pixels[i][0] + across * long + _GAP * (across + 0.5) * 2
            top = pixels[i][1] + down * _LINE + _GAP * (down + 0.5) * 2
            box = (left, top, left + long, top + _LINE)
            covers = any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken)
            if left >= -_LEFT and box[2] <= width + right and not covers:
                positions[i] = side
                taken.append(box)
                break
    return positions


def _bars(accuracies: Sequence[SeedStatistics], colour: str = "@quiet") -> dict[str, Any]:
    """Error bars of the 95 % interval over seeds; of length 0 for one seed."""
    ends = [(i[1], i[2]) if (i := accuracy.interval) else (accuracy.mean,) * 2 for accuracy in accuracies]
    means = [accuracy.mean for accuracy in accuracies]
    return {
        "type": "data",
        "symmetric": False,
        "array": [round(high - mean, 3) for (_, high), mean in zip(ends, means, strict=True)],
        "arrayminus": [round(mean - low, 3) for (low, _), mean in zip(ends, means, strict=True)],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _colour(point: MethodPoint) -> str:
    return "@accent" if point.name == "mlae" else "@ink"


def _described(point: MethodPoint) -> list[str]:
    return [point.settings, _seeds(point.accuracy), f"{point.parameters:,}"]


def _seeds(accuracy: SeedStatistics) -> str:
    return f"{accuracy.n} seed{'s' if accuracy.n > 1 else ''}"
