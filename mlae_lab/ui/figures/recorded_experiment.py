"""The recorded central experiment: similarity of the experts with and without a mask, one line for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.ui.figures.base import Figure, axis, end_label, figure

_ARMS = ("dense", "masked")


def recorded_figure(
    arms: Mapping[str, Sequence[Mapping[str, float]]], random: float, drop_rate: float, finding: str
) -> Figure:
    """Mean |cos| of every recorded run, with the random baseline.

    Args:
        arms: The runs of "dense" and "masked", in the order of their seeds, each with "seed" and "similarity".
        random: Mean |cos| of random experts.
        drop_rate: Of the masked runs.
        finding: The title.
    """
    names = ["no mask", f"p = {drop_rate:g}"]
    data: list[dict] = []
    for pair in zip(*(arms[arm] for arm in _ARMS), strict=True):
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"seed {pair[0]['seed']}",
                "x": names,
                "y": [run["similarity"] for run in pair],
                "line": {"color": "@quiet", "width": 1.5},
                "marker": {"size": 11, "color": ["@quiet", "@accent"]},
                "hovertemplate": "%{x}: %{y:.4f}<extra>seed " + str(pair[0]["seed"]) + "</extra>",
            }
        )
    top = max(run["similarity"] for arm in _ARMS for run in arms[arm])
    baseline = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": random, "y1": random,
        "line": {"color": "@quiet", "width": 1.5, "dash": "dash"},
    }  # fmt: skip
    return figure(
        data,
        finding,
        finding,
        "recorded-experiment",
        320,
        xaxis=axis("", type="category", range=[-0.4, 1.4]),
        yaxis=axis("mean |cos| of the experts of a layer", range=[0, 1.15 * top]),
        shapes=[baseline],
        annotations=[end_label(1.4, random, "random", "@quiet")],
        margin={"l": 62, "r": 64, "t": 44, "b": 36},
    )
