"""The table of methods as one SVG file for README: a panel for each task, readable on light and dark pages."""

from __future__ import annotations

from html import escape

from mlae_lab.core import catalog
from mlae_lab.runs.method_table import (
    METHODS,
    RECIPES,
    TASKS,
    Table,
    TableError,
    TablePoint,
    missing,
    table_points,
    title_of,
)

LEFT, TOP, ROW, PANEL, GAP, BOTTOM, LEAST = 132, 92, 21, 178, 18, 94, 560  # pixels
_HALF = 4  # of a marker
_STYLE = """
text { font: 13px Inter, system-ui, sans-serif; fill: #1B2328 }
.surface { fill: #FAFAF7 } .quiet { fill: #5B6870; font-size: 12px } .head { font-weight: 600 }
.grid { stroke: #DDE2E0 } .reference { stroke: #5B6870; stroke-dasharray: 4 3 }
.bar { stroke-width: 1.3 } .common { fill: #0F766E; stroke: #0F766E }
.own { fill: #FAFAF7; stroke: #C2570C; stroke-width: 1.6 } .bar.own { stroke-width: 1.3 }
@media (prefers-color-scheme: dark) {
  text { fill: #E8EDEE } .surface { fill: #101418 } .quiet { fill: #9AA7AE } .grid { stroke: #2B343B }
  .reference { stroke: #9AA7AE } .common { fill: #2DD4BF; stroke: #2DD4BF } .own { fill: #101418; stroke: #F39A5A }
}
"""


def drawn(table: Table) -> str:
    """The figure. Its background is opaque, so that it is readable where a page and the browser differ in theme.

    Args:
        table: With results on one task at least.

    Raises:
        TableError: It has none.
    """
    panels = {task: points for task in TASKS if (points := table_points(table, task))}
    if not panels:
        raise TableError("the table has no results: train first, without --figure")
    rows = {method: row for row, method in enumerate(_order(panels))}
    width = max(LEFT + len(panels) * (PANEL + GAP), LEAST)
    height = TOP + ROW * len(rows) + BOTTOM
    start = table.starts[-1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>Accuracy of {len(rows)} fine-tuning methods on the bundled backbone</title>'
        f"<style>{_STYLE}</style>",
        f'<rect class="surface" width="{width}" height="{height}" rx="8"/>',
        _text(16, 26, "Accuracy on test by method, bundled backbone (2.5 M parameters)", "head"),
        *_legend(16, 48),
    ]
    for method, row in rows.items():
        parts.append(_text(LEFT - 12, _y(row) + 4, title_of(method), anchor="end"))
    for number, (task, points) in enumerate(panels.items()):
        parts += _panel(LEFT + number * (PANEL + GAP), catalog.task(task).title, points, rows)
    seeds = sorted({point.accuracy.n for points in panels.values() for point in points})
    counts = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    bars = "; bars: 95 % interval over seeds (Student's t)" if seeds[-1] > 1 else ""
    budget = f"Each run: {start.epochs} epochs in batches of {start.batch_size}"
    absent, planned = missing(table)
    lines = (
        f"{budget}; {planned - absent} of {planned} runs so far." if absent else f"{budget}.",
        f"Top-1 accuracy in %; {counts}{bars}.",
        "An accuracy on this small backbone says nothing about the same method on a large one.",
    )
    parts += [_text(16, height - 48 + 18 * i, line, "quiet") for i, line in enumerate(lines)]
    return "\n".join([*parts, "</svg>", ""])


def _order(panels: dict[str, list[TablePoint]]) -> list[str]:
    """Methods by their mean rank over the tasks with the common recipe, the best first."""
    ranks: dict[str, list[int]] = {}
    for points in panels.values():
        for rank, point in enumerate(point for point in points if point.recipe == "common"):
            ranks.setdefault(point.method, []).append(rank)
    known = [method for method in METHODS if method in ranks]
    return sorted(known, key=lambda method: sum(ranks[method]) / len(ranks[method]))


def _legend(x: float, y: float) -> list[str]:
    return [
        _marker(x + 5, y - 4, "common"),
        _text(x + 16, y, "common recipe", "quiet"),
        _marker(x + 125, y - 4, "own"),
        _text(x + 136, y, "own recipe, where it differs", "quiet"),
        f'<line class="reference" x1="{x + 320}" x2="{x + 344}" y1="{y - 4}" y2="{y - 4}"/>',
        _text(x + 350, y, "linear probe, common recipe", "quiet"),
    ]


def _panel(left: float, title: str, points: list[TablePoint], rows: dict[str, int]) -> list[str]:
    ends = [end for point in points for end in _interval(point)]
    low, high = min(ends), max(ends)
    margin = max(high - low, 1.0) * 0.08
    low, high = low - margin, min(high + margin, 100.5)
    bottom = TOP + ROW * len(rows)

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * PANEL, 1)

    parts = [_text(left, TOP - 14, title, "head")]
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "quiet", "middle"))
    for point in points:
        if point.method == "linear" and point.recipe == "common":
            at = x(point.accuracy.mean)
            parts.append(f'<line class="reference" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
    for point in sorted(points, key=lambda point: list(RECIPES).index(point.recipe), reverse=True):
        if point.method not in rows:
            continue
        y = _y(rows[point.method]) + (3 if point.recipe == "own" else -3)
        first, last = _interval(point)
        if last > first:
            parts.append(f'<line class="bar {point.recipe}" x1="{x(first)}" x2="{x(last)}" y1="{y}" y2="{y}"/>')
        label = f"{point.title}, {RECIPES[point.recipe].lower()}: {point.accuracy.mean:.1f} % (n = {point.accuracy.n})"
        parts.append(_marker(x(point.accuracy.mean), y, point.recipe, label))
    return parts


def _interval(point: TablePoint) -> tuple[float, float]:
    """The ends of the 95 % interval, twice the accuracy for one seed."""
    interval = point.accuracy.interval
    return interval[1:] if interval else (point.accuracy.mean, point.accuracy.mean)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values."""
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50) if (high - low) / step <= 5)
    first = -(-low // step) * step
    return [first + i * step for i in range(int((high - first) / step) + 1)]


def _y(row: int) -> float:
    return TOP + ROW * (row + 0.5)


def _marker(x: float, y: float, recipe: str, label: str = "") -> str:
    """A filled circle for the common recipe, an open diamond for an own one."""
    title = f"<title>{escape(label)}</title>" if label else ""
    if recipe == "common":
        return f'<circle class="common" cx="{x}" cy="{y}" r="{_HALF}">{title}</circle>'
    reach = _HALF + 0.7
    path = f"M{x - reach:.1f} {y}L{x} {y - reach:.1f}L{x + reach:.1f} {y}L{x} {y + reach:.1f}Z"
    return f'<path class="own" d="{path}">{title}</path>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
