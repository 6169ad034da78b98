"""Heat maps: the grid of experts, and the similarity of the experts of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlae_lab.core.events import Canvas, SimilarityStats
from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui.figures.base import (
    DIVERGING,
    SEQUENTIAL,
    Figure,
    absent_experts,
    axis,
    colour_reach,
    figure,
    struck,
)
from mlae_lab.ui.layer_grids import LayerGrid

NUMBERED = 8  # columns up to which a cell has room for its number, as in value_grid.js
QUANTITIES: dict[str, tuple[str, str]] = {
    "contribution": ("Contribution", "Mean over tokens of ‖λ b aᵀx‖ / ‖Wx + bias‖"),
    "coefficient": ("Coefficient λ", "Trained coefficient of the expert; the colour scale is centred on the initial λ"),
    "active_share": ("Active share", "Steps in which the expert was active / all steps"),
    "gradient": ("Gradient", "Mean norm of the gradient of a and b over the steps in which the expert was active"),
}
PLAIN = {  # the same without formulas
    "contribution": "How much each expert adds to the output of its layer.",
    "coefficient": "How much the training turned each expert up or down.",
    "active_share": "How often each expert took part in a training step.",
    "gradient": "How strongly the training still changes each expert.",
}


def expert_figure(canvas: Canvas, quantity: str, plan: MaskPlan, epoch: int) -> Figure:
    """The grid of experts, coloured by one quantity; absent experts are hollow, struck cells."""
    name, formula = QUANTITIES[quantity]
    present = [(v, row, column) for row, cells in enumerate(canvas) for column, v in enumerate(cells) if v is not None]
    rows, columns = plan.rows, plan.columns
    y = list(plan.row_labels)
    x = [str(i + 1) for i in range(columns)]
    low, high = (0.0, max((v for v, *_ in present), default=1.0) or 1.0)
    scale: list = SEQUENTIAL
    if quantity == "active_share":
        high = 1.0
    if quantity == "coefficient" and present:
        initial = plan.coefficient_init
        limit = max(abs(v - initial) for v, *_ in present) or 0.01
        low, high, scale = initial - limit, initial + limit, DIVERGING
    data: list[dict] = [
        {
            "type": "heatmap",
            "name": name,
            "x": x,
            "y": y,
            "z": [list(row) for row in canvas],
            "zmin": low,
            "zmax": high,
            "colorscale": scale,
            "xgap": 3,
            "ygap": 3,
            "hoverongaps": False,
            "hovertemplate": "layer %{y}, expert %{x}<br>" + name.lower() + " %{z:.4f}<extra></extra>",
            "colorbar": {
                "thickness": 8,
                "outlinewidth": 0,
                "len": 1,
                "y": 0.5,
                "tickfont": {"size": 11, "color": "@quiet"},
                "nticks": 4,
            },
        },
        absent_experts(plan),
    ]
    if present:
        highest = max(present, key=lambda p: abs(p[0] - plan.coefficient_init) if quantity == "coefficient" else p[0])
        finding = {
            "contribution": "Largest contribution",
            "coefficient": "Largest change of λ",
            "active_share": "Most often active",
            "gradient": "Largest gradient",
        }[quantity]
        title = f"{finding}: layer {y[highest[1]]}, expert {highest[2] + 1}"
        if quantity == "active_share" and min(v for v, *_ in present) == 1:
            title = "Every expert was active in every step"
        if quantity == "coefficient" and highest[0] == plan.coefficient_init:
            title = "Every λ has its initial value"
    else:
        title = f"{name}: no experts"
    return figure(
        data,
        title,
        f"Heat map, {rows} layers by {columns} experts. {title}. {formula}, epoch {epoch}.",
        f"experts-{quantity}",
        height=max(240, 27 * rows + 92),
        xaxis=axis(
            "expert",
            side="bottom",
            showgrid=False,
            type="category",
            constrain="domain",
            categoryarray=x,
            range=[-0.5, columns - 0.5],
        ),
        yaxis=axis("layer", autorange="reversed", showgrid=False, type="category", categoryarray=y),
    )


def layer_grid_figure(own: LayerGrid, canvas: Canvas, epoch: int) -> Figure:
    """A grid that a method records, at one evaluation; a cell without a value is hollow and struck.

    Args:
        own: The grid.
        canvas: Of the evaluation.
        epoch: Of the evaluation.
    """
    labels = own.grid.rows, own.grid.columns
    rows, columns = ([escape(text, quote=False) for text in texts] for texts in labels)
    axis_name, note, title = (escape(text, quote=False) for text in (own.grid.axis, own.grid.note, own.title))
    present = [(v, r, c) for r, line in enumerate(canvas) for c, v in enumerate(line) if v is not None]
    is_numbered = len(columns) <= NUMBERED
    heat: dict = {
        "type": "heatmap",
        "name": title,
        "x": columns,
        "y": rows,
        "z": [list(line) for line in canvas],
        "zmin": -own.high if own.low < 0 else 0.0,
        "zmax": own.high,
        "colorscale": DIVERGING if own.low < 0 else SEQUENTIAL,
        "xgap": 3,
        "ygap": 3,
        "hoverongaps": False,
        "hovertemplate": f"layer %{{y}}, {axis_name} %{{x}}: %{{z:.4~g}}<extra></extra>",
        "colorbar": {"thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11, "color": "@quiet"}, "nticks": 4},
    }
    if is_numbered:
        digits = ".2~r" if own.high < 1 else ".3~r" if own.high < 1000 else ".3~s"  # with ~s, 0.5 would be 500m
        heat |= {"texttemplate": f"%{{z:{digits}}}", "textfont": {"size": 11}}
    absent = [(r, c) for r, line in enumerate(canvas) for c, v in enumerate(line) if v is None]
    text = f"{title}: none"
    if present:
        most, row, column = max(present)
        place = f"{axis_name} {columns[column]}" if columns[column].isdecimal() else columns[column]
        text = f"{title}: largest in layer {rows[row]}, {place} ({most:.4g})"
        if all(v == most for v, *_ in present):
            text = f"{title}: {most:.4g} everywhere"
    return figure(
        [heat, struck([(columns[c], rows[r]) for r, c in absent], f"layer %{{y}}, {axis_name} %{{x}}: none")],
        text,
        f"Heat map, {len(rows)} layers by {len(columns)} columns. {text}. {note} Epoch {epoch}.",
        own.name.replace("_", "-"),
        height=max(240, 27 * min(len(rows), 24) + 92),
        xaxis=axis(axis_name, side="bottom", showgrid=False, type="category", categoryarray=columns,
                   range=[-0.5, len(columns) - 0.5]),
        yaxis=axis("layer", autorange="reversed", showgrid=False, type="category", categoryarray=rows),
    )  # fmt: skip


def cosine_reach(*all_stats: SimilarityStats) -> float:
    """End of the colour scale that shows these cosines."""
    return colour_reach(
        value
        for stats in all_stats
        for matrix in stats.matrices
        for i, row in enumerate(matrix)
        for value in row[:i]
        if value is not None
    )


def similarity_tiles(
    stats: SimilarityStats,
    names: Sequence[str],
    across: int = 4,
    of: tuple[str, str] = ("expert", "experts"),
    baseline: float | None = None,
    reach: float | None = None,
) -> Figure:
    """The cosine matrix of every layer, as tiles of one heat map.

    Args:
        stats: The cosines.
        names: Labels of the layers.
        across: Tiles in a row.
        of: What is compared, one and several.
        baseline: Mean |cosine| of random experts, written at the middle of the colour scale; None if unknown.
        reach: End of the colour scale, by default that of these cosines (`cosine_reach`).
    """
    reach = cosine_reach(stats) if reach is None else reach
    singular, plural = of
    sizes = [len(m) for m in stats.matrices]
    tile = max([*sizes, 1])
    tile_rows = -(-len(sizes) // across)
    step = tile + 1
    z: list[list[float | None]] = [[None] * (across * step - 1) for _ in range(tile_rows * step)]
    text: list[list[str]] = [[""] * (across * step - 1) for _ in range(tile_rows * step)]
    labels = []
    for layer, matrix in enumerate(stats.matrices):
        top, left = (layer // across) * step + 1, (layer % across) * step
        size = len(matrix)
        mean = stats.absolute[layer]
        caption = names[layer] if size == 0 or mean is None else f"{names[layer]} · {mean:.2f}"
        labels.append(
            {
                "x": left - 0.5,
                "y": top - 1,
                "xref": "x",
                "yref": "y",
                "text": caption + {0: f" · no {plural}", 1: f" · 1 {singular}"}.get(size, ""),
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "middle",
                "font": {"size": 11, "color": "@quiet"},
            }
        )
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                z[top + i][left + j] = value if i != j else None
                text[top + i][left + j] = f"layer {names[layer]}, {plural} {i + 1} and {j + 1}"
    data = [
        {
            "type": "heatmap",
            "name": "cosine",
            "z": z,
            "text": text,
            "zmin": -reach,
            "zmax": reach,
            "colorscale": DIVERGING,
            "xgap": 1,
            "ygap": 1,
            "hoverongaps": False,
            "hovertemplate": "%{text}: %{z:.3f}<extra></extra>",
            "colorbar": {
                "thickness": 8,
                "outlinewidth": 0,
                "tickvals": [-reach, 0, reach],
                "ticktext": [
                    f"−{reach:g}",
                    "0" if baseline is None else f"random<br>±{baseline:.2g}",
                    f"{reach:g}",
                ],
                "tickfont": {"size": 11, "color": "@quiet"},
            },
        },
    ]
    means = [(m, i) for i, m in enumerate(stats.absolute) if m is not None]
    title = (
        f"Most similar in layer {names[max(means)[1]]} (mean |cosine| {max(means)[0]:.2f})"
        if means
        else f"No layer has two {plural}"
    )
    bare = {"visible": False, "constrain": "domain"}
    return figure(
        data,
        title,
        f"Cosine between {plural}, one tile for each layer. {title}. Epoch {stats.epoch}.",
        "similarity-by-layer",
        height=max(260, 96 * tile_rows + 70),
        xaxis=bare,
        yaxis={**bare, "autorange": "reversed", "scaleanchor": "x"},
        annotations=labels,
        margin={"l": 4, "r": 16, "t": 44, "b": 8},
    )
