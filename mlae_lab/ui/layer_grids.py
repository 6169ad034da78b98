"""Grids of a method: the canvases that its run recorded, with what their cells mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlae_lab.core.events import Canvas, Grid, Statistics


@dataclass(frozen=True)
class LayerGrid:
    """A canvas at every evaluation of a run.

    Attributes:
        name: Of the statistic.
        title: As a figure shows it.
        grid: Labels and meaning, of the last evaluation.
        canvases: Step of the evaluation to its canvas.
        low: Lowest value of all, at most 0.
        high: Highest size of a value of all, above 0, so that a colour has one meaning throughout a run.
    """

    name: str
    title: str
    grid: Grid
    canvases: dict[int, Canvas]
    low: float
    high: float


def layer_grids(events: Sequence[Statistics], described: bool = False) -> list[LayerGrid]:
    """The grids of a run, in the order in which its method names them.

    A canvas of a run of 0.8, which says nothing about its cells, has numbered rows and columns.

    Args:
        events: Of the run, in order.
        described: Leave out canvases of which the run does not say what their cells mean.
    """
    latest: dict[str, Statistics] = {}
    for event in events:
        names = event.grids if described else event.values
        latest |= {name: event for name in names if _canvas(event, name)}
    return [_layer_grid(name, event, events) for name, event in latest.items()]


def _layer_grid(name: str, last: Statistics, events: Sequence[Statistics]) -> LayerGrid:
    title = last.labels.get(name, (name.replace("_", " ").capitalize(), ""))[0]
    recorded = {event.step: _canvas(event, name) for event in events}
    shape = _shape(recorded[last.step])
    canvases = {step: canvas for step, canvas in recorded.items() if _shape(canvas) == shape}
    values = [v for canvas in canvases.values() for line in canvas for v in line if v is not None]
    rows, columns = (tuple(str(number) for number in range(1, 1 + count)) for count in shape)
    grid = last.grids.get(name) or Grid(rows, columns, "column", f"{title}. Crossed out: no value.")
    high = max(map(abs, values), default=0.0) or 1.0
    return LayerGrid(name, title, grid, canvases, min([0.0, *values]), high)


def _canvas(event: Statistics, name: str) -> Canvas:
    """The canvas of that name, () for a value that is none."""
    value = event.values.get(name)
    lines = tuple(line for line in value if isinstance(line, tuple)) if isinstance(value, tuple) else ()
    return lines if isinstance(value, tuple) and len(lines) == len(value) else ()


def _shape(canvas: Canvas) -> tuple[int, int]:
    return len(canvas), len(canvas[0]) if canvas else 0
