"""Bar chart: images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.data.listing import counted
from mlae_lab.ui.figures.base import Figure, axis, figure


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
    title = f"{'' if min(total) == max(total) else f'{min(total):,} to '}{counted(max(total))} per class"
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
