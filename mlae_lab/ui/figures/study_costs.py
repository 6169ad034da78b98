"""Accuracy of the arms of a study against what they cost, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui.figures.base import Figure, axis, figure, room
from mlae_lab.ui.figures.methods import label_sides
from mlae_lab.ui.figures.study_parts import BOTTOM, SIGNS, TOP, ends_of, mean_of, shortened, sign_of, statistics_of

_COST_SIDES = ("middle left", "top center", "bottom center", "middle right")  # the line leaves a point to the right
_COST_WIDTH = 400  # pixels of the plot of costs in a wide window


def pareto(arms: Sequence[ArmResult], quantity: str) -> list[ArmResult]:
    """The arms for which no other one costs less and is at least as accurate, or as much and is more accurate."""
    front: list[ArmResult] = []
    for result in sorted(arms, key=lambda result: (getattr(result, quantity), -statistics_of(result).mean)):
        if not front or statistics_of(result).mean > statistics_of(front[-1]).mean:
            front.append(result)
    return front


def cost_figure(results: Results, arms: Sequence[ArmResult], quantity: str) -> Figure:
    """Accuracy against trained parameters or seconds, with the Pareto front. quantity: of `ArmResult`."""
    counts = [float(getattr(result, quantity)) for result in arms]
    none = min((count for count in counts if count), default=1.0) / 4  # where a logarithmic axis shows no parameters
    costs = {result.arm.name: count or none for result, count in zip(arms, counts, strict=True)}
    front = pareto(arms, quantity)
    means = [statistics_of(result).mean for result in arms]
    ends = [end for result in arms for end in ends_of(statistics_of(result))]
    low, high = room(min([*means, *ends]), max([*means, *ends]), least=2.0)
    high = min(high, 100.8)
    texts = [shortened(result.arm.name, 32) if result in front else "" for result in arms]
    x = [costs[result.arm.name] for result in arms]
    sides = label_sides(x, means, texts, (low, high), _COST_WIDTH, right=20, order=_COST_SIDES, least=0.02)
    signs = [SIGNS[sign_of(result, results.study.reference)] for result in arms]
    unit = "trained parameters without the head" if quantity == "parameters" else "seconds of a run"
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [costs[result.arm.name] for result in front],
            "y": [round(statistics_of(result).mean, 3) for result in front],
            "line": {"color": "@accent", "width": 1.5, "shape": "hv"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "arms",
            "x": x,
            "y": [round(mean, 3) for mean in means],
            "text": [escape(text) if side else "" for text, side in zip(texts, sides, strict=True)],
            "textposition": [side or "middle right" for side in sides],
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "customdata": [[escape(result.arm.name), mean_of(result), f"{count:,.0f}"]
                           for result, count in zip(arms, counts, strict=True)],
            "hovertemplate": "%{customdata[0]}: %{customdata[1]}, %{customdata[2]} " + quantity + "<extra></extra>",
            "marker": {
                "size": 10,
                "symbol": [symbol for symbol, _ in signs],
                "color": [colour for _, colour in signs],
                "line": {"width": 1.6, "color": [colour for _, colour in signs]},
            },
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [round((ends_of(s) or (0, s.mean))[1] - s.mean, 3) for s in map(statistics_of, arms)],
                "arrayminus": [round(s.mean - (ends_of(s) or (s.mean,))[0], 3) for s in map(statistics_of, arms)],
                "color": "@quiet",
                "thickness": 1,
                "width": 2,
            },
        },
    ]  # fmt: skip
    title = f"Accuracy against {'parameters' if quantity == 'parameters' else 'time'}"
    alt = f"Scatter plot of accuracy against {unit}. On the Pareto front: " + "; ".join(
        f"{result.arm.name} {statistics_of(result).mean:.1f} %, {getattr(result, quantity):,.0f} {quantity}"
        for result in front
    )
    return figure(
        data, title, f"{alt}.", f"study-{quantity}", 400,
        xaxis=axis(f"{unit} (log)", type="log", **_ticks(x)),
        yaxis=axis("top-1 accuracy, %", range=[low, high]),
        margin={"l": 52, "r": 24, "t": TOP, "b": BOTTOM},
    )  # fmt: skip


def _ticks(x: Sequence[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, or at these only where there are many."""
    if max(x) < 4 * min(x):
        return {}
    low, high = math.floor(math.log10(min(x))), math.ceil(math.log10(max(x)))
    digits = (1, 2, 5) if high - low <= 2 else (1,)
    values = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
    return {"tickvals": values, "ticktext": [_engineering(value) for value in values]}


def _engineering(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
