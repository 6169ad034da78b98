"""One figure for any recorded statistic, whatever it is called."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlae_lab.core.events import StatisticValue, mean_of
from mlae_lab.ui.figures.base import Figure, axis, figure, thinned

MAX_NUMBERS = 2_000  # in one figure: many layers are shown at fewer evaluations
_DIGITS = 4


def statistic_figure(
    name: str,
    label: tuple[str, str],
    history: Sequence[tuple[float, StatisticValue]],
    layers: Sequence[str],
    epochs: float,
) -> Figure:
    """A statistic over epochs: one line for a number; for one number per layer a line each and their mean.

    Args:
        name: Of the statistic, and of saved files.
        label: Title and unit, "" for none.
        history: Epoch and value of each evaluation, in order; of a canvas the mean of each layer is shown.
        layers: Labels of the layers.
        epochs: Length of the axis.
    """
    title, unit = (escape(text, quote=False) for text in label)
    by_layer = any(isinstance(value, tuple) for _, value in history)
    moments = thinned(history, max(20, MAX_NUMBERS // (len(layers) + 1)) if by_layer else MAX_NUMBERS)
    x = [epoch for epoch, _ in moments]
    rows = [_rows(value, len(layers)) for _, value in moments]
    means = [mean_of(row) for row in rows] if by_layer else [_number(value) for _, value in moments]
    data = []
    if by_layer:
        for index, layer in enumerate(layers):
            values = [row[index] for row in rows]
            if any(value is not None for value in values):
                data.append(_line(f"layer {layer}", x, values, "@quiet", 1.0, 0.45))
    data.append(_line("mean of the layers" if by_layer else title, x, means, "@accent", 2.5))
    latest = means[-1] if means else None
    text = title if latest is None else f"{title}: {'mean ' if by_layer else ''}{latest:.{_DIGITS}g}"
    known = [(value, index) for index, value in enumerate(rows[-1] if by_layer and rows else ()) if value is not None]
    if len(known) > 1:
        most, index = max(known)
        text += f", largest in layer {layers[index]} ({most:.{_DIGITS}g})"
    return figure(
        data,
        text,
        f"Line chart. {text}.",
        name.replace("_", "-"),
        height=200,
        xaxis=axis("epoch", range=[0, epochs * 1.06]),
        yaxis=axis(unit, rangemode="tozero"),
    )


def _line(
    name: str, x: Sequence[float], y: Sequence[float | None], colour: str, width: float, opacity: float = 1.0
) -> dict:
    return {
        "type": "scatter",
        "mode": "lines" if opacity < 1 else "lines+markers",
        "name": name,
        "x": list(x),
        "y": [None if value is None else float(f"{value:.{_DIGITS}g}") for value in y],
        "opacity": opacity,
        "line": {"color": colour, "width": width},
        "marker": {"size": 5, "color": colour},
        "hovertemplate": f"epoch %{{x}}: %{{y}}, {name}<extra></extra>",
    }


def _rows(value: StatisticValue, layers: int) -> tuple[float | None, ...]:
    """One number per layer, of a canvas the mean of each line."""
    if not isinstance(value, tuple):
        return (None,) * layers
    return tuple(mean_of(line) if isinstance(line, tuple) else line for line in value)


def _number(value: StatisticValue) -> float | None:
    return None if isinstance(value, tuple) else value
