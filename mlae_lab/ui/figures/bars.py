"""Bar charts: expected active experts per layer, and images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui.figures.base import Figure, axis, figure


def active_figure(plan: MaskPlan) -> Figure:
    """Experts kept in each layer, and the expected number of active experts per step."""
    layers = [str(i + 1) for i in range(plan.rows)]
    active = [
        round(sum(1 - p for k, p in zip(kept, rates, strict=False) if k), 3)
        for kept, rates in zip(plan.keep, plan.drop_rate, strict=False)
    ]
    data = [
        {
            "type": "bar",
            "name": "kept",
            "x": layers,
            "y": list(plan.kept),
            "marker": {"color": "@track", "line": {"color": "@quiet", "width": 1}},
            "hovertemplate": "layer %{x}: %{y} experts kept<extra></extra>",
        },
        {
            "type": "bar",
            "name": "expected active",
            "x": layers,
            "y": active,
            "marker": {"color": "@accent"},
            "hovertemplate": "layer %{x}: %{y:.1f} active per step on average<extra></extra>",
        },
    ]
    title = f"{sum(active):.1f} of {plan.experts} experts are active in an average step"
    return figure(
        data,
        title,
        f"Bar chart. {title}.",
        "expected-active",
        height=220,
        barmode="overlay",
        bargap=0.25,
        xaxis=axis("layer", type="category", showgrid=False),
        yaxis=axis("experts", rangemode="tozero"),
    )


def balance_figure(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Images per class, stacked by split.

    Args:
        names: Names of the classes.
        counts: Number of images of each class, by name of the split.
    """
    colours = ("@accent", "@middle", "@quiet")
    data = [
        {
            "type": "bar",
            "name": split,
            "x": list(names),
            "y": list(map(int, values)),
            "marker": {"color": colour},
            "hovertemplate": "%{x}: %{y} in " + split + "<extra></extra>",
        }
        for (split, values), colour in zip(counts.items(), colours, strict=False)
    ]
    total = [sum(v) for v in zip(*counts.values(), strict=False)]
    title = f"{min(total)} to {max(total)} images per class"
    return figure(
        data,
        title,
        f"Bar chart. {title}.",
        "class-balance",
        height=240,
        barmode="stack",
        bargap=0.3,
        showlegend=True,
        legend={
            "orientation": "h",
            "y": 1.02,
            "x": 1,
            "xanchor": "right",
            "yanchor": "bottom",
            "font": {"size": 12, "color": "@quiet"},
        },
        xaxis=axis("class", type="category", showgrid=False),
        yaxis=axis("images", rangemode="tozero"),
        margin={"l": 52, "r": 16, "t": 64, "b": 60},
    )
