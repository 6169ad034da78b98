"""The curve of the learning-rate finder."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from mlae_lab.core.rate_curve import RatePoint
from mlae_lab.ui.figures.base import Figure, axis, figure

_HEIGHT = 300


def rate_figure(points: Sequence[RatePoint], suggestion: float | None, current: float) -> Figure:
    """Loss over the learning rate. suggestion: None for none; current: the rate of the form."""
    title = "The loss does not fall at any rate" if suggestion is None else f"Suggested peak rate: {suggestion:g}"
    rates = [point.rate for point in points]
    data = [
        {
            "type": "scatter", "mode": "markers", "name": "batches", "x": rates,
            "y": [round(point.loss, 4) for point in points], "marker": {"size": 5, "color": "@quiet", "opacity": 0.5},
            "hovertemplate": "rate %{x:.1e}: loss %{y:.3f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "moving average", "x": rates,
            "y": [round(point.smoothed, 4) for point in points], "line": {"color": "@accent", "width": 2.5},
            "hovertemplate": "rate %{x:.1e}: mean loss %{y:.3f}<extra></extra>",
        },
    ]  # fmt: skip
    lines = [(current, "@quiet", "dash", "now")]
    if suggestion is not None:
        lines.append((suggestion, "@accent", "solid", "suggested"))
    shapes = [
        {
            "type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
            "line": {"color": colour, "width": 1.5, "dash": dash},
        }
        for x, colour, dash, _ in lines
    ]  # fmt: skip
    labels = [
        {
            "x": log10(x), "y": 1, "xref": "x", "yref": "paper", "text": f"{text} {x:g}", "showarrow": False,
            "yanchor": "bottom", "font": {"color": colour},
            # away from each other, so that near lines have labels side by side
            "xanchor": "right" if len(lines) > 1 and x == min(line[0] for line in lines) else "left",
        }
        for x, colour, _, text in lines
    ]  # fmt: skip
    highest = 1.15 * max(point.smoothed for point in points)
    alt = f"{title}. Loss while the learning rate rises from {rates[0]:.0e} to {rates[-1]:.0e}."
    return figure(
        data, title, alt, "learning-rate", _HEIGHT, shapes=shapes, annotations=labels, showlegend=False,
        xaxis=axis("learning rate", type="log", dtick=1, exponentformat="power"),
        yaxis=axis("training loss", range=[0, highest]),
    )  # fmt: skip
