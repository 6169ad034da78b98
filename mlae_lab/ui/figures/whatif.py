"""Figures of a run without some of its experts: classes, importance, greedy curves, random masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.robustness import robustness_of
from mlae_lab.ui.figures.base import DIVERGING, Figure, absent_experts, axis, end_label, figure

MAX_CLASSES = 24
_SERIES = ("@accent", "@high")
_LEGEND = {
    "orientation": "h",
    "y": 1.0,
    "x": 1,
    "xanchor": "right",
    "yanchor": "bottom",
    "font": {"size": 12, "color": "@quiet"},
}
Canvas = Sequence[Sequence[float | None]]


def class_change_figure(classes: Sequence[str], before: Sequence[float | None], now: Sequence[float | None]) -> Figure:
    """Change of the accuracy of each class, in points.

    Args:
        classes: Names of the classes.
        before: Accuracy as trained in percent, None for a class without images.
        now: Accuracy in the current state, likewise.
    """
    changes = [
        (name, a, b) for name, a, b in zip(classes, before, now, strict=False) if a is not None and b is not None
    ]
    moved = [c for c in changes if c[1] != c[2]]
    shown = changes
    if len(changes) > MAX_CLASSES:
        largest = sorted(moved, key=lambda c: -abs(c[2] - c[1]))[:MAX_CLASSES]
        shown = [c for c in changes if c in largest]
    if not moved:
        title = "No class changes"
    else:
        worst = max(moved, key=lambda c: abs(c[2] - c[1]))
        title = f"{worst[0]} changes most: {worst[2] - worst[1]:+.0f} points"
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": "change",
            "y": [_label(name) for name, *_ in shown],
            "x": [round(b - a, 2) for _, a, b in shown],
            "customdata": [[a, b] for _, a, b in shown],
            "marker": {"color": ["@accent" if b >= a else "@high" for _, a, b in shown]},
            "hovertemplate": "%{y}: %{customdata[0]:.1f} % to %{customdata[1]:.1f} %<extra></extra>",
        }
    ]
    limit = max([abs(b - a) for _, a, b in shown], default=0) or 10
    return figure(
        data,
        title,
        f"Bar chart of the change in accuracy of each class. {title}.",
        "whatif-classes",
        height=max(170, 22 * len(shown) + 92),
        bargap=0.35,
        xaxis=axis(
            "change of accuracy in points", range=[-1.1 * limit, 1.1 * limit], zeroline=True, zerolinecolor="@quiet"
        ),
        yaxis=axis("", type="category", autorange="reversed", showgrid=False, automargin=True, dtick=1),
    )


def _label(name: str) -> str:
    return name if len(name) <= 22 else name[:20] + "…"


def cell_figure(
    canvas: Canvas, plan: MaskPlan, title: str, unit: str, name: str, reach: float | None = None, form: str = ".4f"
) -> Figure:
    """A number around 0 for each expert; absent experts are struck.

    Args:
        canvas: The numbers.
        plan: The mask.
        title: Of the figure.
        unit: What is shown, for the tooltip.
        name: Of saved files.
        reach: End of the colour scale, by default the largest magnitude.
        form: Format of a number.
    """
    values = [v for row in canvas for v in row if v is not None]
    reach = reach or max(map(abs, values), default=0) or 1.0
    rows, columns = plan.rows, plan.columns
    x, y = [str(c + 1) for c in range(columns)], list(plan.row_labels)
    data = [
        {
            "type": "heatmap",
            "name": unit,
            "x": x,
            "y": y,
            "z": [list(row) for row in canvas],
            "zmin": -reach,
            "zmax": reach,
            "colorscale": DIVERGING,
            "xgap": 3,
            "ygap": 3,
            "hoverongaps": False,
            "hovertemplate": "layer %{y}, expert %{x}<br>" + unit + " %{z:+" + form + "}<extra></extra>",
            "colorbar": {
                "thickness": 8,
                "outlinewidth": 0,
                "len": 1,
                "y": 0.5,
                "nticks": 5,
                "tickfont": {"size": 11, "color": "@quiet"},
            },
        },
        absent_experts(plan),
    ]
    return figure(
        data,
        title,
        f"Heat map, {rows} layers by {columns} experts: {unit}. {title}.",
        name,
        height=max(240, 27 * rows + 92),
        xaxis=axis(
            "expert", side="bottom", showgrid=False, type="category", categoryarray=x, range=[-0.5, columns - 0.5]
        ),
        yaxis=axis("layer", autorange="reversed", showgrid=False, type="category", categoryarray=y, dtick=1),
    )


def importance_figures(result: Mapping, plan: MaskPlan) -> tuple[Figure, Figure]:
    """Change of the loss without each expert, exact and estimated on one scale, from a result of `importance`."""
    experts = result["experts"]
    cells = [(v, r, c) for r, row in enumerate(experts["loss"]) for c, v in enumerate(row) if v is not None]
    top, r, c = max(cells)
    title = (
        f"Layer {plan.row_labels[r]}, expert {c + 1} is most important (loss {top:+.3f} without it)"
        if top > 0
        else "No single expert reduces the loss"
    )
    values = [v for kind in ("loss", "estimate") for row in experts[kind] for v in row if v is not None]
    limit = max(map(abs, values), default=0) or 1.0
    if experts["pearson"] is None:
        estimate_title = "First-order estimate"
    else:
        estimate_title = (
            f"First-order estimate: Pearson r {experts['pearson']:.2f}, Spearman ρ {experts['spearman']:.2f}"
        )
    return (
        cell_figure(experts["loss"], plan, title, "change of the loss", "importance-exact", limit),
        cell_figure(
            experts["estimate"], plan, estimate_title, "estimated change of the loss", "importance-estimate", limit
        ),
    )


def layers_figure(result: Mapping, plan: MaskPlan) -> Figure:
    """Change of the loss without each layer, exact and estimated."""
    layers = result["layers"]
    rows = [r for r, value in enumerate(layers["loss"]) if value is not None]
    labels = [plan.row_labels[r] for r in rows]
    data = [
        {
            "type": "bar", "name": name, "x": labels, "y": [layers[kind][r] for r in rows], "marker": {"color": colour},
            "customdata": [layers["accuracy"][r] for r in rows],
            "hovertemplate": "layer %{x}: " + name + " %{y:+.4f}"
            + ("<br>accuracy %{customdata:+.1f} points" if kind == "loss" else "") + "<extra></extra>",
        }
        for name, kind, colour in (("exact", "loss", "@accent"), ("first-order estimate", "estimate", "@quiet"))
    ]  # fmt: skip
    top = max(rows, key=lambda r: layers["loss"][r])
    title = f"Layer {plan.row_labels[top]} is most important (loss {layers['loss'][top]:+.3f} without it)"
    return figure(
        data,
        title,
        f"Bar chart. {title}.",
        "importance-layers",
        height=280,
        barmode="group",
        bargap=0.3,
        showlegend=True,
        legend=_LEGEND,
        margin={"l": 60, "r": 16, "t": 64, "b": 44},
        xaxis=axis("layer", type="category", showgrid=False),
        yaxis=axis("change of the loss", zeroline=True, zerolinecolor="@quiet"),
    )


def greedy_figure(curves: Mapping[str, Sequence[Mapping]], plan: MaskPlan) -> Figure:
    """Accuracy against experts kept.

    Args:
        curves: Steps of a result of `greedy`, by direction.
        plan: The mask.
    """
    data, experts = [], plan.experts
    kinds = {
        "removal": ("removing the least useful", _SERIES[0], "solid"),
        "addition": ("adding the most useful", _SERIES[1], "solid"),
        "estimate": ("removing by the first-order estimate", "@ink", "dot"),
    }
    for direction, steps in curves.items():
        ordered = sorted(steps, key=lambda step: step["kept"])
        name, colour, dash = kinds[direction]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [s["kept"] for s in ordered],
                "y": [s["accuracy"] for s in ordered],
                "line": {"color": colour, "width": 2, "dash": dash},
                "marker": {"size": 4},
                "customdata": [
                    [s["loss"], "start" if s["cell"] is None else _cell_name(plan, *s["cell"])] for s in ordered
                ],
                "hovertemplate": "%{x} kept: %{y:.1f} %, loss %{customdata[0]:.4f}<br>%{customdata[1]}<extra></extra>",
            }
        )
    steps = next(iter(curves.values()))
    full = max(steps, key=lambda step: step["kept"])["accuracy"]
    sufficient = min((s["kept"] for c in curves.values() for s in c if s["accuracy"] >= full), default=experts)
    best = max((s["accuracy"], -s["kept"]) for c in curves.values() for s in c)
    title = f"{sufficient} of {experts} experts reach{'es' * (sufficient == 1)} the accuracy of all ({full:.1f} %)"
    if best[0] > full:
        title += f"; {-best[1]} reach{'es' * (best[1] == -1)} {best[0]:.1f} %"
    data.append(
        {
            "type": "scatter", "mode": "lines", "name": "all experts", "x": [0, experts], "y": [full, full],
            "line": {"color": "@quiet", "width": 1.3, "dash": "dash"}, "hoverinfo": "skip",
        }
    )  # fmt: skip
    labels = [end_label(experts, full, "all", "@quiet")]
    return figure(
        data, title, f"Curves of accuracy against experts kept. {title}.", "greedy", height=340, annotations=labels,
        showlegend=True, legend={**_LEGEND, "x": 0, "xanchor": "left"}, margin={"l": 52, "r": 40, "t": 66, "b": 44},
        xaxis=axis("experts kept", range=[-0.02 * experts, 1.02 * experts], showgrid=False),
        yaxis=axis("accuracy in %"),
    )  # fmt: skip


def _cell_name(plan: MaskPlan, row: int, column: int) -> str:
    """Name an expert by its layer's label. row, column: from 1."""
    return f"layer {plan.row_labels[row - 1]}, expert {column}"


def robustness_figure(results: Sequence[tuple[str, Mapping]]) -> Figure:
    """Distribution of accuracy under random masks. results: (name of a run, its result of `robustness`)."""
    accuracies = [a for _, answer in results for a in answer["accuracies"]]
    low, high = min(accuracies), max([*accuracies, *(answer["trained"]["accuracy"] for _, answer in results)])
    width = max(100 / results[0][1]["images"], (high - low) / 40, 0.25)
    start, highest = low - width / 2, 0
    data, shapes, notes = [], [], []
    for number, (name, answer) in enumerate(results):
        highest = max(highest, *Counter(int((a - start) / width) for a in answer["accuracies"]).values())
        colour, trained = _SERIES[number % 2], answer["trained"]["accuracy"]
        data.append(
            {
                "type": "histogram",
                "name": name,
                "x": answer["accuracies"],
                "opacity": 0.72,
                "marker": {"color": colour},
                "xbins": {"start": start, "end": high + width, "size": width},
                "hovertemplate": "%{x} %: %{y} masks<extra>" + name + "</extra>",
            }
        )
        shapes.append({"type": "line", "x0": trained, "x1": trained, "yref": "paper", "y0": 0, "y1": 1,
                       "line": {"color": colour, "width": 1.5, "dash": "dash"}})  # fmt: skip
        notes.append(
            {
                "x": trained,
                "y": 1 - 0.09 * number,
                "yref": "paper",
                "text": f"{name}, all on",
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "top",
                "xshift": -4,
                "bgcolor": "@surface",  # bars may lie behind it
                "font": {"size": 12, "color": colour},
            }
        )
    first = results[0][1]
    changes = [f"{name} {robustness_of(answer).change}" for name, answer in results]
    title = f"At p = {first['rate']:g}, {' and '.join(changes)} on average"
    return figure(
        data,
        title,
        f"Histogram of the accuracy under {first['samples']} random masks. {title}.",
        "robustness",
        height=320,
        barmode="overlay",
        bargap=0.06,
        shapes=shapes,
        annotations=notes,
        showlegend=len(results) > 1,
        legend=_LEGEND,
        margin={"l": 52, "r": 16, "t": 66, "b": 44},
        xaxis=axis("accuracy in %", showgrid=False),
        yaxis=axis("random masks", range=[0, 1.3 * highest]),  # the labels are above the bars
    )
