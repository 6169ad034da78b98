"""Accuracy over epochs of the arms of a study."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

from mlae_lab.data.listing import counted
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui.figures.base import Figure, axis, figure, room, thinned
from mlae_lab.ui.figures.study_parts import (
    BOTTOM,
    COLOURS,
    DASHES,
    MAX_COLOURED,
    TOP,
    Curves,
    legend,
    more_arms,
    shortened,
    statistics_of,
)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds at the epochs that all of them have reached; seeds without an evaluation are left out."""
    known = [dict(curve) for curve in curves if curve]
    common = set.intersection(*map(set, known)) if known else set()
    return tuple((epoch, fmean(curve[epoch] for curve in known)) for epoch in sorted(common))


def curves_figure(results: Results, arms: Sequence[ArmResult], curves: Curves) -> Figure:
    """Accuracy over epochs, the mean over seeds of each arm; the best arms and the reference have colours."""
    named = [result for result in arms if result.arm.name != results.study.reference][:MAX_COLOURED]
    data = []
    values = []
    for result in reversed(arms):
        name = result.arm.name
        line = thinned(mean_curve(curves.get(name, ())))
        if not line:
            continue
        values += [value for _, value in line]
        colour, width, dash, shown_in_legend = "@quiet", 1.0, "solid", False
        if name == results.study.reference:
            colour, width, dash, shown_in_legend = "@ink", 2.5, "dash", True
        elif result in named:
            number = named.index(result)
            colour, width, dash, shown_in_legend = COLOURS[number], 2.4, DASHES[number], True
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(line) < 12 and shown_in_legend else "lines",
                "name": escape(shortened(name)),
                "showlegend": shown_in_legend,
                "x": [epoch for epoch, _ in line],
                "y": [round(value, 3) for _, value in line],
                "line": {"color": colour, "width": width, "dash": dash},
                "marker": {"size": 5, "color": colour},
                "opacity": 1.0 if shown_in_legend else 0.45,
                "hovertemplate": "epoch %{x}: %{y:.1f} %<extra>" + escape(shortened(name)) + "</extra>",
            }
        )
    low, high = room(min(values), max(values), least=2.0)
    rows = sum(trace["showlegend"] for trace in data)
    alt = "Line chart of accuracy over epochs by arm, mean over seeds. After the last epoch: " + "; ".join(
        f"{result.arm.name} {statistics_of(result).mean:.1f} %" for result in arms[:12]
    )
    title = f"Accuracy over epochs, {counted(len(data), 'arm')}"
    return figure(
        data, title, f"{alt}{more_arms(arms)}.", "study-curves", 380 + 12 * rows,
        xaxis=axis("epoch"),
        yaxis=axis("top-1 accuracy, %", range=[max(low, -1.0), min(high, 101.0)]),
        margin={"l": 52, "r": 16, "t": TOP, "b": BOTTOM},
        **legend(rows, reverse=True),
    )  # fmt: skip
