"""What each expert adds to a class or an image, beside what it adds on the whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mlae_lab.core.events import Canvas
from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui.figures.base import DIVERGING, SEQUENTIAL, Figure, axis, figure

FORMULA = "mean over tokens of ‖λ b aᵀx‖ / ‖Wx + bias‖"
_BAR = {"thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11, "color": "@quiet"}}


def against_figure(canvas: Canvas, mean: Canvas, plan: MaskPlan, what: str) -> Figure:
    """The grid of experts coloured by how much more or less each adds to `what` than on average, in percent."""
    change = [[_change(v, m) for v, m in zip(row, base, strict=False)] for row, base in zip(canvas, mean, strict=False)]
    known = [(v, r, c) for r, row in enumerate(change) for c, v in enumerate(row) if v is not None]
    reach = max((abs(v) for v, *_ in known), default=1.0) or 1.0
    title = f"{what}: no expert adds anything"
    if known:
        value, row, column = max(known, key=lambda one: abs(one[0]))
        title = f"{what}: layer {plan.row_labels[row]}, expert {column + 1} adds {abs(value):.0f} % {'more' if value > 0 else 'less'}"
    x, y = [str(i + 1) for i in range(plan.columns)], list(plan.row_labels)
    absent = [(x[c], y[r]) for r in range(plan.rows) for c in range(plan.columns) if not plan.keep[r][c]]
    data = [
        {
            "type": "heatmap", "name": "change in percent", "x": x, "y": y, "z": change, "zmin": -reach, "zmax": reach,
            "colorscale": DIVERGING, "xgap": 3, "ygap": 3, "hoverongaps": False,
            "hovertemplate": "layer %{y}, expert %{x}: %{z:+.1f} %<extra></extra>", "colorbar": _percent(reach),
        },
        {
            "type": "scatter", "mode": "markers", "name": "no expert", "meta": "decoration",
            "x": [a for a, _ in absent], "y": [b for _, b in absent],
            "hovertemplate": "layer %{y}, expert %{x}: masked for good<extra></extra>",
            "marker": {"symbol": "line-ne-open", "size": 9, "color": "@quiet", "line": {"color": "@quiet", "width": 1}},
        },
    ]  # fmt: skip
    return figure(
        data,
        title,
        f"Heat map, {plan.rows} layers by {plan.columns} experts. {title} than on average. {FORMULA}.",
        "contribution-against-average",
        height=max(240, 27 * plan.rows + 92),
        xaxis=axis("expert", showgrid=False, type="category", categoryarray=x, range=[-0.5, plan.columns - 0.5]),
        yaxis=axis("layer", autorange="reversed", showgrid=False, type="category", categoryarray=y),
    )


def class_figure(
    values: Sequence[Canvas], mean: Canvas, classes: Sequence[str], plan: MaskPlan, row: int | None, relative: bool
) -> Figure:
    """Classes down, experts across. row: a layer (from 0), None for the experts of all layers side by side.

    relative: percent more or less than the expert adds on average, in place of the contribution itself.
    """
    experts = [
        (r, c) for r in range(plan.rows) if row in (None, r) for c in range(plan.columns) if plan.keep[r][c]
    ]  # fmt: skip
    x = [f"{plan.row_labels[r]}.{c + 1}" if row is None else str(c + 1) for r, c in experts]
    z = [[_change(one[r][c], mean[r][c]) if relative else one[r][c] for r, c in experts] for one in values]
    known = [(v, k, e) for k, line in enumerate(z) for e, v in enumerate(line) if v is not None]
    reach = max((abs(v) for v, *_ in known), default=1.0) or 1.0
    unit = "%{z:+.1f} % of its mean" if relative else "%{z:.4f}"
    title = "No expert adds anything to a class"
    if known:
        value, k, e = max(known, key=lambda one: abs(one[0]) if relative else one[0])
        who = f"layer {plan.row_labels[experts[e][0]]}, expert {experts[e][1] + 1}"
        title = (
            f"{who} adds most, to {classes[k]}"
            if not relative
            else f"{who} turns most to a class: {classes[k]}, {value:+.0f} %"
        )
        title = title[:1].upper() + title[1:]
    starts = [e for e in range(1, len(experts)) if experts[e][0] != experts[e - 1][0]]
    data = [
        {
            "type": "heatmap", "name": "change in percent" if relative else "contribution", "x": x, "y": list(classes), "z": z,
            "zmin": -reach if relative else 0, "zmax": reach, "colorscale": DIVERGING if relative else SEQUENTIAL,
            "xgap": 1, "ygap": 2, "hoverongaps": False, "colorbar": _percent(reach) if relative else {**_BAR, "nticks": 4},
            "hovertemplate": f"%{{y}}, {'layer and expert' if row is None else 'expert'} %{{x}}: {unit}<extra></extra>",
        }
    ]  # fmt: skip
    ticks: dict = {"showgrid": False, "type": "category"}
    if row is None:  # one name for each layer, in the middle of its experts
        bounds = [0, *starts, len(experts)]
        middles = [(a + b - 1) // 2 for a, b in itertools.pairwise(bounds)]
        ticks |= {
            "tickmode": "array",
            "tickvals": [x[m] for m in middles],
            "ticktext": [plan.row_labels[experts[m][0]] for m in middles],
        }
    return figure(
        data,
        title,
        f"Heat map, {len(classes)} classes by {len(experts)} experts. {title}. {FORMULA}.",
        "contribution-by-class",
        height=max(240, 22 * len(classes) + 96),
        xaxis=axis("layer, its experts side by side" if row is None else f"expert of layer {plan.row_labels[row]}", **ticks),
        yaxis=axis("", autorange="reversed", showgrid=False, type="category", automargin=True),
        shapes=[
            {"type": "line", "xref": "x", "yref": "paper", "x0": s - 0.5, "x1": s - 0.5, "y0": 0, "y1": 1, "line": {"color": "@quiet", "width": 1}}
            for s in (starts if row is None else [])
        ],
    )  # fmt: skip


def _change(value: float | None, mean: float | None) -> float | None:
    return None if value is None or not mean else round(100 * (value / mean - 1), 2)


def _percent(reach: float) -> dict:
    ends = [-reach, 0, reach]
    return {**_BAR, "tickvals": ends, "ticktext": [f"{v:+.0f} %" if v else "mean" for v in ends]}
