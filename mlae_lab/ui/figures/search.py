"""Figures of a search over a super-network: accuracy by generation, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence

from mlae_lab.core.events import SearchGeneration
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, end_label, figure, room

_CELL = 19  # pixels of a line
_MOST_LETTERS = 3  # of a form that is written into its cell


def search_figure(generations: Sequence[SearchGeneration]) -> Figure:
    """Best accuracy so far and mean accuracy of each generation on the images of the search. At least one generation.

    Args:
        generations: In order.
    """
    last = generations[-1]
    x = [event.generation for event in generations]
    best, mean = ([round(getattr(event, name), 2) for event in generations] for name in ("best", "mean"))
    low, high = room(min(mean), max(best), 2.0)
    data = [
        _line("mean of the generation", x, mean, "@quiet", "dot"),
        _line("best so far", x, best, "@accent", "solid"),
    ]
    title = f"Search: best {last.best:.1f} % of {last.candidates} candidates, {last.images:,} images"
    return figure(
        data,
        title,
        f"Line chart. {title}. Generation {last.generation} of {last.generations}, whose mean is {last.mean:.1f} %.",
        "search",
        height=260,
        xaxis=axis("generation", range=[0.5, last.generations * 1.06 + 0.5], tickformat="d"),
        yaxis=axis("top-1 accuracy in %", range=[low, high]),
        annotations=[
            end_label(x[-1], best[-1], "best", "@accent", of="best so far"),
            end_label(x[-1], mean[-1], "mean", "@quiet", of="mean of the generation"),
        ]
        if best[-1] - mean[-1] > 0.1 * (high - low)
        else [end_label(x[-1], best[-1], "best", "@accent", of="best so far")],
        margin={"l": 52, "r": 48, "t": 44, "b": 44},
    )


def chosen_figure(last: SearchGeneration) -> Figure:
    """The best candidate so far: a line for each part, a column for each block, stronger for a fuller form."""
    blocks = [str(number) for number in range(1, 1 + max(map(len, last.chosen), default=0))]
    short = all(len(form) <= _MOST_LETTERS for row in last.chosen for form in row)
    data = [
        {
            "type": "heatmap",
            "name": "chosen form",
            "x": blocks,
            "y": list(last.labels),
            "z": [list(row) for row in last.levels],
            "text": [list(row) for row in last.chosen],
            "texttemplate": "%{text}" if short else "",
            "zmin": 0,
            "zmax": 1,
            "colorscale": SEQUENTIAL,
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hovertemplate": "block %{x}, %{y}: %{text}<extra></extra>",
        }
    ]
    forms = {form: level for row, levels in zip(last.chosen, last.levels, strict=True)
             for form, level in zip(row, levels, strict=True) if level is not None}  # fmt: skip
    key = "" if short else f" From faint to strong: {', '.join(sorted(forms, key=lambda form: forms[form]))}."
    title = f"Best candidate: {last.parameters:,} parameters"
    return figure(
        data,
        title,
        f"Heat map, {len(last.labels)} parts by {len(blocks)} blocks. {title}.{key}",
        "search-chosen",
        height=max(180, _CELL * len(last.labels) + 100),
        xaxis=axis("block" + (f" –{key.lower()}" if key else ""), type="category", showgrid=False),
        yaxis=axis("", autorange="reversed", type="category", showgrid=False),
        margin={"l": 96, "r": 12, "t": 44, "b": 44},
    )


def _line(name: str, x: Sequence[int], y: Sequence[float], colour: str, dash: str) -> dict:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"size": 5, "color": colour},
        "hovertemplate": "generation %{x}: %{y:.1f} %, " + name + "<extra></extra>",
    }
