"""Contribution of each expert to a class or an image, compared with its mean contribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mlae_lab.core.events import Canvas
from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui.figures.base import DIVERGING, SEQUENTIAL, Figure, absent_experts, axis, figure

FORMULA = "mean over tokens of ‖λ b aᵀx‖ / ‖Wx + bias‖"
_BAR = {"thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11, "color": "@quiet"}}


def against_figure(canvas: Canvas, mean: Canvas, plan: MaskPlan, name: str) -> Figure:
    """The grid of experts, coloured by the difference of a contribution to the mean contribution, in percent.

    Args:
        canvas: Contributions to one class or image.
        mean: Mean contributions.
        plan: The mask.
        name: Of the class or image.
    """
    change = [[_change(v, m) for v, m in zip(row, base, strict=False)] for row, base in zip(canvas, mean, strict=False)]
    cells = [(v, r, c) for r, row in enumerate(change) for c, v in enumerate(row) if v is not None]
    limit = max((abs(v) for v, *_ in cells), default=1.0) or 1.0
    title = finding = f"{name}: no expert contributes"
    if cells:
        value, row, column = max(cells, key=lambda cell: abs(cell[0]))
        more = "more" if value > 0 else "less"
        title = f"{name}: layer {plan.row_labels[row]}, expert {column + 1} adds {abs(value):.0f} % {more}"
        finding = f"{title} than on average"
    x, y = [str(i + 1) for i in range(plan.columns)], list(plan.row_labels)
    data = [
        {
            "type": "heatmap", "name": "change in percent", "x": x, "y": y, "z": change, "zmin": -limit, "zmax": limit,
            "colorscale": DIVERGING, "xgap": 3, "ygap": 3, "hoverongaps": False,
            "hovertemplate": "layer %{y}, expert %{x}: %{z:+.1f} %<extra></extra>", "colorbar": _percent(limit),
        },
        absent_experts(plan),
    ]  # fmt: skip
    return figure(
        data,
        title,
        f"Heat map, {plan.rows} layers by {plan.columns} experts. {finding}. {FORMULA}.",
        "contribution-against-average",
        height=max(240, 27 * plan.rows + 92),
        xaxis=axis("expert", showgrid=False, type="category", categoryarray=x, range=[-0.5, plan.columns - 0.5]),
        yaxis=axis("layer", autorange="reversed", showgrid=False, type="category", categoryarray=y),
    )


def class_figure(
    values: Sequence[Canvas], mean: Canvas, classes: Sequence[str], plan: MaskPlan, row: int | None, relative: bool
) -> Figure:
    """Contributions with classes down and experts across.

    Args:
        values: One canvas per class.
        mean: Mean contributions.
        classes: Names of the classes.
        plan: The mask.
        row: A layer, from 0, or None for the experts of all layers side by side.
        relative: Show the difference to the mean contribution in percent instead of the contribution.
    """
    experts = [
        (r, c) for r in range(plan.rows) if row in (None, r) for c in range(plan.columns) if plan.keep[r][c]
    ]  # fmt: skip
    x = [f"{plan.row_labels[r]}.{c + 1}" if row is None else str(c + 1) for r, c in experts]
    z = [[_change(v[r][c], mean[r][c]) if relative else v[r][c] for r, c in experts] for v in values]
    cells = [(v, k, e) for k, line in enumerate(z) for e, v in enumerate(line) if v is not None]
    limit = max((abs(v) for v, *_ in cells), default=1.0) or 1.0
    unit = "%{z:+.1f} % relative to its mean" if relative else "%{z:.4f}"
    title = "No expert contributes to any class"
    if cells:
        value, k, e = max(cells, key=lambda cell: abs(cell[0]) if relative else cell[0])
        expert_name = f"layer {plan.row_labels[experts[e][0]]}, expert {experts[e][1] + 1}"
        title = (
            f"Largest contribution: {expert_name}, class {classes[k]}"
            if not relative
            else f"{expert_name} differs most from its mean for class {classes[k]}: {value:+.0f} %"
        )
        title = title[:1].upper() + title[1:]
    starts = [e for e in range(1, len(experts)) if experts[e][0] != experts[e - 1][0]]
    data = [
        {
            "type": "heatmap",
            "name": "change in percent" if relative else "contribution",
            "x": x,
            "y": list(classes),
            "z": z,
            "zmin": -limit if relative else 0,
            "zmax": limit,
            "colorscale": DIVERGING if relative else SEQUENTIAL,
            "xgap": 1,
            "ygap": 2,
            "hoverongaps": False,
            "colorbar": _percent(limit) if relative else {**_BAR, "nticks": 4},
            "hovertemplate": f"%{{y}}, {'layer and expert' if row is None else 'expert'} %{{x}}: {unit}<extra></extra>",
        }
    ]
    ticks: dict = {"showgrid": False, "type": "category"}
    if row is None:  # one label per layer, centred on its experts
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
        xaxis=axis(
            "layer, its experts side by side" if row is None else f"expert of layer {plan.row_labels[row]}", **ticks
        ),
        yaxis=axis("", autorange="reversed", showgrid=False, type="category", automargin=True),
        shapes=[
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": s - 0.5,
                "x1": s - 0.5,
                "y0": 0,
                "y1": 1,
                "line": {"color": "@quiet", "width": 1},
            }
            for s in (starts if row is None else [])
        ],
    )


def _change(value: float | None, mean: float | None) -> float | None:
    return None if value is None or not mean else round(100 * (value / mean - 1), 2)


def _percent(reach: float) -> dict:
    ends = [-reach, 0, reach]
    return {**_BAR, "tickvals": ends, "ticktext": [f"{v:+.0f} %" if v else "mean" for v in ends]}
