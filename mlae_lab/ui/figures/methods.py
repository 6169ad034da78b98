"""Accuracy of methods against their trained parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlae_lab.core.paper_methods import Row
from mlae_lab.core.seed_statistics import points as points_text
from mlae_lab.runs.method_points import MethodPoint
from mlae_lab.ui.figures.base import Figure, axis, figure, room

_HEIGHT = 440


def methods_figure(
    points: Sequence[MethodPoint], split: str, active: bool, paper: Sequence[tuple[Row, float]]
) -> Figure:
    """One point per method and settings; bars: 95 % interval over seeds.

    Args:
        points: Of runs with one badge, at least one.
        split: "val" or "test".
        active: Whether x is the parameters that act in a step on average, in place of all trained ones.
        paper: Rows of the paper with their accuracy on this task, drawn faintly.
    """
    best = max(points, key=lambda point: point.accuracy.mean)
    counts = [point.active if active else point.parameters for point in points]
    others = [count for count in (*counts, *(row.parameters * 1e6 for row, _ in paper)) if count]
    none = min(others, default=1.0) / 4  # where a logarithmic axis shows no parameters
    x = [count or none for count in counts]
    y = [round(point.accuracy.mean, 3) for point in points]
    intervals = [point.accuracy.interval for point in points]
    title = f"Best on {split}: {best.what}, {best.accuracy.mean:.1f} %"
    if best.accuracy.deviation is not None:
        title += f" (mean of {best.accuracy.n} seeds)"
    data: list[dict] = []
    if paper:
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [row.parameters * 1e6 or none for row, _ in paper],
                "y": [value for _, value in paper],
                "text": [row.title for row, _ in paper],
                "textposition": "top center",
                "textfont": {"size": 11, "color": "@middle"},
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
            "text": [point.what if count else f"{point.what} (0)" for point, count in zip(points, counts, strict=True)],
            "textposition": _sides(x, y),
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "marker": {
                "size": 10,
                "color": ["@accent" if point.name == "mlae" else "@ink" for point in points],
            },
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [0 if i is None else round(i[2] - p, 3) for i, p in zip(intervals, y, strict=True)],
                "arrayminus": [0 if i is None else round(p - i[1], 3) for i, p in zip(intervals, y, strict=True)],
                "color": "@quiet",
                "thickness": 1.2,
                "width": 4,
            },
            "customdata": [
                [p.settings, f"{p.accuracy.n} seed{'s' if p.accuracy.n > 1 else ''}", f"{p.parameters:,}"]
                for p in points
            ],
            "hovertemplate": "%{text}: %{y:.1f} %<br>%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]} "
            "parameters<extra></extra>",
        }
    )
    low, high = room(min(y), max(y), least=4.0)
    high = min(high, 100.5)
    alt = (
        f"Scatter plot of accuracy on {split} against trained parameters: "
        + "; ".join(f"{p.what} {p.accuracy.mean:.1f} % with {p.parameters:,} parameters" for p in points)
        + f". The best is {best.what}, {points_text(best.accuracy.mean - min(y))} points above the lowest."
    )
    return figure(
        data, title, alt, "methods", _HEIGHT,
        xaxis=axis("parameters active in a step (log)" if active else "trained parameters without the head (log)",
                   type="log"),
        yaxis=axis(f"top-1 accuracy on {split}, %", **({} if paper else {"range": [low, high]})),
        margin={"l": 52, "r": 130, "t": 44, "b": 44},
    )  # fmt: skip


def _sides(x: Sequence[float], y: Sequence[float]) -> list[str]:
    """On which side of each point its label stands: on the left where another point is close on the right."""
    height = max(max(y) - min(y), 4.0)

    def is_close(i: int, j: int) -> bool:
        return 0 < math.log10(x[j] / x[i]) < 0.8 and abs(y[i] - y[j]) < 0.05 * height

    return ["middle left" if any(is_close(i, j) for j in range(len(x))) else "middle right" for i in range(len(x))]
