"""Two masks side by side: the difference in accuracy over seeds, both curves, and the cells in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

from mlae_lab.core.difference import Change, plan_difference
from mlae_lab.core.plan import MaskPlan, row_labels
from mlae_lab.core.seed_statistics import between, points
from mlae_lab.runs.paired_curves import Difference
from mlae_lab.ui.figures.base import FRAME, Figure, apart, axis, band, end_label, figure, room, thinned

Curve = Sequence[tuple[int, float]]  # (epoch, accuracy in percent)
MAX_NAMED = 8  # seeds with a name at the end of their line: more would cover each other


# ---------------------------------------------------------------- the difference


def difference_figure(difference: Difference, epochs: int) -> Figure:
    """B - A over epochs: a thin line for each seed, the mean over seeds strong, its 95 % interval as a band.

    A pair without an evaluation of the last epoch is dotted. epochs: end of the axis.
    """
    height, spreads, pairs = 340, difference.over_epochs, difference.pairs
    banded = [(s.epoch, *s.interval[1:]) for s in spreads if s.interval is not None]
    values = [v for pair in pairs for _, v in pair.difference] + [v for _, *ends in banded for v in ends]
    low, high = room(min([0.0, *values]), max([0.0, *values]), least=2.0)
    banded = thinned(banded)
    data = band(
        "95 % interval of the mean",
        [epoch for epoch, _, _ in banded],
        [low for _, low, _ in banded],
        [high for _, _, high in banded],
        "@faint",
    )
    ends: list[tuple[float, float, str, str]] = []
    for pair in pairs:
        line = thinned(pair.difference)
        name = f"seed {pair.seed}" + ("" if pair.is_complete else ", unfinished")
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(line) == 1 or len(pairs) == 1 else "lines",
                "name": name,
                "x": [epoch for epoch, _ in line],
                "y": [round(value, 3) for _, value in line],
                "line": {"color": "@quiet", "width": 1.3, "dash": "solid" if pair.is_complete else "dot"},
                "marker": {"size": 5, "color": "@quiet"},
                "opacity": 0.9 if pair.is_complete else 0.55,
                "hovertemplate": "epoch %{x}: %{y:+.2f} points<extra>" + name + "</extra>",
            }
        )
        if len(pairs) <= MAX_NAMED:
            ends.append((*line[-1], name, "@quiet"))
    if len(pairs) > 1:
        mean = thinned(spreads)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "mean over seeds",
                "x": [s.epoch for s in mean],
                "y": [round(s.mean, 3) for s in mean],
                "text": [f"{s.n} pairs" if s.n > 1 else "one pair" for s in mean],
                "line": {"color": "@accent", "width": 3},
                "marker": {"size": 6, "color": "@accent"},
                "hovertemplate": "epoch %{x}: %{y:+.2f} points, mean of %{text}<extra></extra>",
            }
        )
        ends.append((mean[-1].epoch, mean[-1].mean, "mean", "@accent"))
    title = _difference_title(difference)
    return figure(
        data,
        title,
        f"Line chart of the difference in accuracy, B minus A, over epochs. {title}. {difference_caption(difference)}",
        "difference",
        height=height,
        xaxis=axis("epoch", range=[0, epochs * 1.02]),
        yaxis=axis("B − A, points of top-1 accuracy", range=[low, high], tickformat="+~g"),
        shapes=[
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": "@ink", "width": 1}}
        ],
        annotations=[
            *apart(ends, (height - FRAME) / (high - low)),
            *(
                _corner(text, y)
                for text, y, far in (("B is better", 1, high), ("A is better", 0, -low))
                if far > 0.12 * (high - low)
            ),
        ],
        margin={"l": 58, "r": 128 if any(not pair.is_complete for pair in pairs) else 70, "t": 44, "b": 44},
    )


def _difference_title(difference: Difference) -> str:
    if not difference.pairs:
        return "B − A: no common evaluation yet"
    last = difference.over_epochs[-1]
    start = f"B − A: {points(last.mean, signed=True)} points"  # epoch and n are in the caption
    if last.interval is None:
        return f"{start}, one pair"
    _, low, high = last.interval
    return f"{start} (95 %: {between(low, high)})"


def difference_caption(difference: Difference) -> str:
    """Describe the lines, the number of seeds, and what the band covers."""
    if not difference.pairs:
        return "Each pair of runs with the same seed will be a line here."
    count, unfinished = len(difference.pairs), sum(not pair.is_complete for pair in difference.pairs)
    seeds = ", ".join(str(pair.seed) for pair in difference.pairs)
    last = difference.over_epochs[-1]
    parts = [f"{count} {'pair' if count == 1 else 'pairs'} of runs, {'seed' if count == 1 else 'seeds'} {seeds}."]
    if unfinished:
        parts.append(f"{unfinished} not at the last epoch: dotted, included in the mean up to their latest evaluation.")
    if last.interval is not None:
        parts.append(
            f"After epoch {last.epoch}: n = {last.n}, standard deviation {points(last.interval[0])}, "
            f"lowest {points(last.minimum, signed=True)}, highest {points(last.maximum, signed=True)} points. The band "
            "is the 95 % interval of the mean (Student's t). It covers the variation between seeds, not between "
            "evaluation images, which are the same in all runs."
        )
    return " ".join(parts)


# ---------------------------------------------------------------- two curves


def two_curves_figure(curves_a: Sequence[Curve], curves_b: Sequence[Curve], split: str, epochs: int) -> Figure:
    """Accuracy of A and of B over epochs; with several seeds the mean, and a band from lowest to highest.

    The title compares the two after the last epoch that both have.

    Args:
        curves_a: One curve for each seed of A.
        curves_b: One curve for each seed of B.
        split: "val" or "test".
        epochs: End of the axis.
    """
    height = 340
    data, ends = [], []
    values = [value for curve in (*curves_a, *curves_b) for _, value in curve]
    low, high = room(min(values, default=0.0), max(values, default=100.0), least=4.0)
    low, high = max(-2.0, low), min(102.0, high)
    styles = (("A", curves_a, "@quiet", "dash", True), ("B", curves_b, "@accent", "solid", False))
    averages: list[dict[int, float]] = []
    counts: list[dict[int, int]] = []
    for name, curves, _, _, hatched in styles:  # bands first, so that lines are drawn over them
        by_epoch: dict[int, list[float]] = {}
        for epoch, value in (point for curve in curves for point in curve):
            by_epoch.setdefault(epoch, []).append(value)
        epochs_shown = thinned(sorted(by_epoch))
        averages.append({epoch: fmean(accuracies) for epoch, accuracies in by_epoch.items()})
        counts.append({epoch: len(accuracies) for epoch, accuracies in by_epoch.items()})
        several = [epoch for epoch in epochs_shown if len(by_epoch[epoch]) > 1]
        data += band(
            f"{name}, lowest to highest",
            several,
            [min(by_epoch[e]) for e in several],
            [max(by_epoch[e]) for e in several],
            "@faint",
            hatched,
        )
    for (name, _, colour, dash, _), by_epoch_mean in zip(styles, averages, strict=True):
        if not by_epoch_mean:
            continue
        average = thinned(sorted(by_epoch_mean.items()))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [epoch for epoch, _ in average],
                "y": [round(value, 2) for _, value in average],
                "line": {"color": colour, "width": 2.5, "dash": dash},
                "marker": {"size": 6, "color": colour, "symbol": "circle-open" if name == "A" else "circle"},
                "hovertemplate": "epoch %{x}: %{y:.1f} %<extra>" + name + "</extra>",
            }
        )
        ends.append((*average[-1], name, colour))
    title = _curves_title(split, averages, counts)
    return figure(
        data,
        title,
        f"Line chart of accuracy over epochs. {title}.",
        "two-curves",
        height=height,
        xaxis=axis("epoch", range=[0, epochs * 1.02]),
        yaxis=axis("top-1 accuracy in %", range=[low, high]),
        annotations=apart(ends, (height - FRAME) / (high - low)),
        margin={"l": 52, "r": 36, "t": 44, "b": 44},
    )


def _curves_title(split: str, averages: Sequence[dict[int, float]], counts: Sequence[dict[int, int]]) -> str:
    """The accuracies of A and B after the last epoch that both have.

    Args:
        split: "val" or "test".
        averages: Of A and of B: mean accuracy by epoch.
        counts: Of A and of B: number of seeds by epoch.
    """
    a, b = averages
    if not a and not b:
        return f"Accuracy on {split}: not evaluated yet"
    if not a or not b:
        name, evaluated = ("A", a) if a else ("B", b)
        epoch = max(evaluated)
        return f"Accuracy on {split}: only {name} has been evaluated, {evaluated[epoch]:.1f} % after epoch {epoch}"
    shared = a.keys() & b.keys()
    if not shared:
        return f"Accuracy on {split}: A and B have not been evaluated after the same epoch"
    epoch = max(shared)
    when = "" if epoch == max(a) == max(b) else f" after epoch {epoch}"
    seeds = f", mean of {counts[0][epoch]} seeds" if counts[0][epoch] == counts[1][epoch] > 1 else ""
    return f"Accuracy on {split}{when}{seeds}: A {a[epoch]:.1f} %, B {b[epoch]:.1f} %"


# ---------------------------------------------------------------- the masks


@lru_cache(maxsize=32)  # made once for each two masks, for all viewers
def mask_difference_figure(plan_a: MaskPlan, plan_b: MaskPlan) -> Figure:
    """The cells of two masks on one canvas: only in A, only in B, in both, in both with different drop rates.

    Rows are layers, those of A first; a layer that a mask does not have counts as empty. Each difference is also marked
    by a letter or an arrow, so that it does not depend on colour alone.
    """
    difference = plan_difference(plan_a, plan_b)
    targets, columns = difference.targets, difference.columns
    names = list(row_labels(targets))
    z: list[list[float | None]] = [[None] * columns for _ in targets]
    signs = [[""] * columns for _ in targets]
    hover_texts = [[""] * columns for _ in targets]
    absent = []
    for cell in difference.cells:
        row, column, p, q = cell.row, cell.column, cell.a, cell.b
        if cell.change is Change.NEITHER:
            absent.append((str(column + 1), names[row]))
        elif cell.change is Change.ONLY_A:
            z[row][column], signs[row][column], hover_texts[row][column] = 1, "A", f"only in A, p = {p:g}"
        elif cell.change is Change.ONLY_B:
            z[row][column], signs[row][column], hover_texts[row][column] = 3, "B", f"only in B, p = {q:g}"
        elif cell.change is Change.RATE:
            z[row][column], signs[row][column] = 2, "↑" if (q or 0.0) > (p or 0.0) else "↓"
            hover_texts[row][column] = f"in both, p = {p:g} in A and {q:g} in B"
        else:
            z[row][column], hover_texts[row][column] = 0, f"the same in both, p = {p:g}"
    x = [str(column + 1) for column in range(columns)]
    data = [
        {
            "type": "heatmap",
            "name": "cells",
            "x": x,
            "y": names,
            "z": z,
            "zmin": -0.5,
            "zmax": 3.5,
            "colorscale": [
                [0, "@faint"], [0.25, "@faint"], [0.25, "@quiet"], [0.5, "@quiet"],
                [0.5, "@middle"], [0.75, "@middle"], [0.75, "@accent"], [1, "@accent"],
            ],
            "showscale": False,
            "text": signs,
            "texttemplate": "%{text}",
            "textfont": {"size": 13},
            "customdata": hover_texts,
            "xgap": 3,
            "ygap": 3,
            "hoverongaps": False,
            "hovertemplate": "layer %{y}, expert %{x}: %{customdata}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "in neither",
            "meta": "decoration",
            "x": [column for column, _ in absent],
            "y": [row for _, row in absent],
            "hovertemplate": "layer %{y}, expert %{x}: in neither<extra></extra>",
            "marker": {"symbol": "line-ne-open", "size": 9, "color": "@quiet", "line": {"color": "@quiet", "width": 1}},
        },
    ]  # fmt: skip
    title = difference.summary()
    rates = (
        {}
        if plan_a.targets != plan_b.targets
        else dict(enumerate(zip(plan_a.row_rates(), plan_b.row_rates(), strict=False)))
    )
    rate_labels = [
        end_label(columns - 0.5, row, f"p {p:g} → {q:g}", "@quiet")
        for row, (p, q) in rates.items()
        if p is not None and q is not None and p != q and plan_a.kept[row] and plan_b.kept[row]
    ]
    return figure(
        data,
        title,
        f"Grid of {len(targets)} layers by {columns} experts. {title}. {MASK_KEY}",
        "mask-difference",
        height=max(240, 27 * len(targets) + 92),
        xaxis=axis("expert", showgrid=False, type="category", categoryarray=x, range=[-0.5, columns - 0.5]),
        yaxis=axis(
            "layer", autorange="reversed", showgrid=False, type="category", categoryarray=names, automargin=True
        ),
        annotations=rate_labels,
        margin={"l": 52, "r": 92 if rate_labels else 16, "t": 44, "b": 44},
    )


MASK_KEY = (
    "A, B: only in that mask. ↑ ↓: in both, with a higher or lower drop rate in B. No letter: the same in both. "
    "Crossed out: in neither."
)


# ---------------------------------------------------------------- pieces


def _corner(text: str, y: int) -> dict:
    return {
        "x": 0.004,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "top" if y else "bottom",
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": "@quiet"},
    }
