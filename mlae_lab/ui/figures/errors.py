"""Errors of a run: confusion matrix, accuracy by class, reliability, and paired comparison of two runs by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.core.paired_tests import SIGNIFICANCE_LEVEL, PairedTests
from mlae_lab.core.proportions import wilson
from mlae_lab.data.listing import counted
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, end_label, figure

MAX_LABELS = 34  # labels along an axis; with more classes only every second, third ... has a label
MAX_NUMBERS = 16  # up to this many classes, each cell shows its count
_MAX_NAME = 16  # characters of a class name on an axis
_ERRORS = [[0.0, "@surface"], [1.0, "@high"]]

CONFUSION_NOTE = (
    "Row i, column j: the share of images of class i that are classified as class j, counts / sum of the row. The "
    "diagonal shows correct predictions; errors have a separate colour scale, which ends at the largest share."
)
CLASSES_NOTE = (
    "Accuracy of each class with its 95 % Wilson interval, (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n); lowest "
    "first. The paper reports only top-1 accuracy over all classes."
)
RELIABILITY_NOTE = (
    "Confidence is the largest softmax probability. Images are grouped into bins ((m−1)/M, m/M]; each point is the "
    "mean confidence and accuracy of a bin, with the Wilson interval. ECE = Σ nₘ/n · |accuracyₘ − confidenceₘ|. Brier "
    "score = mean of Σₖ (pₖ − [k = class])², 0 to 2. The paper does not evaluate calibration."
)
PAIRED_TESTS_NOTE = (
    "McNemar's test: if both runs were equally good, each image on which they differ would favour A or B with "
    "probability ½; mid-p = 2 P(X ≤ m) − P(X = m), X ~ Bin(n, ½). A class is marked if its p is below 0.05 after "
    "Holm's correction over all classes. The test applies to these images and these two runs; other seeds may differ."
)


def confusion_figure(
    names: Sequence[str], counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float | None]]
) -> Figure:
    """Confusion matrix, (classes, classes), rows true classes: shares as colour, counts in the cells if it is small."""
    size = len(names)
    errors = [(counts[i][j], -i, -j) for i in range(size) for j in range(size) if i != j and counts[i][j]]
    off_diagonal = [[v if i != j and v else None for j, v in enumerate(row)] for i, row in enumerate(shares)]
    largest = max((v for row in off_diagonal for v in row if v is not None), default=1.0)
    gap = 1 if size <= 40 else 0

    def cells(name: str, z: list[list[float | None]], largest: float, scale: list, **more: object) -> dict:
        numbers = [
            ["" if v is None else n or "" for n, v in zip(*rows, strict=False)] for rows in zip(counts, z, strict=False)
        ]
        texts = {"text": numbers, "texttemplate": "%{text}", "textfont": {"size": 12}} if size <= MAX_NUMBERS else {}
        return {
            "type": "heatmap",
            "name": name,
            "x": list(names),
            "y": list(names),
            "z": z,
            "zmin": 0,
            "zmax": largest,
            "colorscale": scale,
            "customdata": [list(row) for row in counts],
            "xgap": gap,
            "ygap": gap,
            "hoverongaps": False,
            "hovertemplate": "%{y} classified as %{x}: %{customdata} images, %{z:.1%}<extra></extra>",
            **texts,
            **more,
        }

    bar = {
        "thickness": 8,
        "outlinewidth": 0,
        "nticks": 4,
        "tickformat": ".0%",
        "tickfont": {"size": 11, "color": "@quiet"},
    }
    diagonal = [[v if i == j else None for j, v in enumerate(row)] for i, row in enumerate(shares)]
    data = [
        cells("correct", diagonal, 1.0, SEQUENTIAL, showscale=False),
        cells("errors", off_diagonal, largest, _ERRORS, colorbar=bar),
    ]
    total = sum(map(sum, counts))
    if errors:
        n, i, j = max(errors)
        title = (
            f"Most often {_short(names[-i])} is misclassified as {_short(names[-j])}: {n} of {counted(sum(counts[-i]))}"
        )
    else:
        title = f"All {total} images are classified correctly" if total else "No images"
    return figure(
        data,
        title,
        f"Confusion matrix of {size} classes, {total} images. {title}.",
        "confusion",
        height=max(320, min(860, (30 if size <= MAX_NUMBERS else 20) * size + 130)),
        xaxis=_classes("predicted class", names) | {"constrain": "domain"},
        yaxis=_classes("true class", names) | {"autorange": "reversed", "automargin": True, "tickangle": 0},
        margin={"l": 52, "r": 16, "t": 44, "b": 44},
    )


def class_accuracy_figure(classes: Sequence[Mapping], accuracy: float) -> Figure:
    """Accuracy of each class as a bar with its interval, lowest first. Classes without an image are left out.

    Args:
        classes: As in the result of the query `errors`.
        accuracy: Over all images, in percent.
    """
    shown = sorted((c for c in classes if c["images"]), key=lambda c: (c["correct"] / c["images"], c["name"]))
    names = [c["name"] for c in shown]
    values = [100 * c["correct"] / c["images"] for c in shown]
    data = [
        {
            "type": "bar",
            "name": "accuracy in %",
            "x": names,
            "y": [round(v, 2) for v in values],
            "marker": {"color": "@middle"},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [round(max(0.0, 100 * c["high"] - v), 2) for c, v in zip(shown, values, strict=False)],
                "arrayminus": [round(max(0.0, v - 100 * c["low"]), 2) for c, v in zip(shown, values, strict=False)],
                "color": "@ink",
                "thickness": 1.2,
                "width": 3 if len(shown) <= MAX_LABELS else 0,
            },
            "customdata": [
                f"{c['correct']} of {c['images']}, 95 % {100 * c['low']:.0f} to {100 * c['high']:.0f} %" for c in shown
            ],
            "hovertemplate": "%{x}: %{y:.1f} % (%{customdata})<extra></extra>",
        }
    ]
    title = "No images"
    if shown:
        lowest, highest = (f"{_short(names[i])} ({values[i]:.0f} %)" for i in (0, -1))
        title = f"Lowest accuracy: {lowest}, highest: {highest}"
        if values[0] == values[-1]:
            title = f"Every class has an accuracy of {values[0]:.0f} %"
    return figure(
        data,
        title,
        f"Bar chart of accuracy by class, {len(shown)} classes. {title}.",
        "class-accuracy",
        height=320,
        bargap=0.25,
        xaxis=_classes("class, lowest accuracy first", names) | {"showgrid": False},
        yaxis=axis("accuracy in %", range=[0, 104]),
        shapes=[_dashed_line({"xref": "paper", "x0": 0, "x1": 1, "y0": accuracy, "y1": accuracy})],
        annotations=[end_label(1, accuracy, f"all {accuracy:.1f}", "@quiet") | {"xref": "paper"}],
        margin={"l": 52, "r": 66, "t": 44, "b": 44},
    )


def reliability_figure(bins: Sequence[Mapping], ece: float, confidence: float, accuracy: float) -> Figure:
    """Accuracy over confidence, above a histogram of confidence.

    Args:
        bins: As in the result of the query `errors`.
        ece: Expected calibration error.
        confidence: Mean confidence in [0, 1].
        accuracy: Mean accuracy in [0, 1].
    """
    filled = [entry for entry in bins if entry["images"]]
    ends = [wilson(round(entry["accuracy"] * entry["images"]), entry["images"]) for entry in filled]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "accuracy",
            "x": [round(entry["confidence"], 4) for entry in filled],
            "y": [round(entry["accuracy"], 4) for entry in filled],
            "line": {"color": "@accent", "width": 2},
            "marker": {"size": 8, "color": "@accent"},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [
                    round(max(0.0, high - entry["accuracy"]), 4) for entry, (_, high) in zip(filled, ends, strict=False)
                ],
                "arrayminus": [
                    round(max(0.0, entry["accuracy"] - low), 4) for entry, (low, _) in zip(filled, ends, strict=False)
                ],
                "color": "@accent",
                "thickness": 1.2,
                "width": 3,
            },
            "customdata": [entry["images"] for entry in filled],
            "hovertemplate": "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata} images<extra></extra>",
        },
        {
            "type": "bar",
            "name": "images",
            "x": [(entry["low"] + entry["high"]) / 2 for entry in bins],
            "y": [entry["images"] for entry in bins],
            "width": [0.94 * (entry["high"] - entry["low"]) for entry in bins],
            "yaxis": "y2",
            "marker": {"color": "@track", "line": {"color": "@quiet", "width": 1}},
            "hovertemplate": "%{y} images with a confidence of about %{x:.0%}<extra></extra>",
        },
    ]
    gap = confidence - accuracy
    verdict = "Overconfident" if gap > 0.02 else "Underconfident" if gap < -0.02 else "Calibration"
    title = f"{verdict}: confidence {100 * confidence:.1f} %, accuracy {100 * accuracy:.1f} %"
    return figure(
        data,
        title,
        f"Reliability curve in {len(bins)} bins. {title}, ECE {ece:.3f}.",
        "reliability",
        height=380,
        xaxis=axis("confidence", range=[0, 1.02], tickformat=".0%", anchor="y2"),
        yaxis=axis("accuracy", range=[0, 1.04], tickformat=".0%", domain=[0.3, 1]),
        yaxis2=axis("images", domain=[0, 0.2], rangemode="tozero", nticks=3),
        shapes=[_dashed_line({"xref": "x", "yref": "y", "x0": 0, "y0": 0, "x1": 1, "y1": 1})],
        annotations=[
            {
                "x": 0.98,
                "y": 0.03,
                "xref": "paper",
                "yref": "y",
                "text": "dashed: perfect calibration",
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "bottom",
                "font": {"size": 12, "color": "@quiet"},
            }
        ],
        margin={"l": 60, "r": 16, "t": 44, "b": 44},
    )


def paired_tests_figure(comparison: PairedTests) -> Figure:
    """Images of each class that only one run classifies correctly: B upwards, A downwards, largest gain first."""
    shown = sorted((c for c in comparison.classes if c.only_a or c.only_b), key=lambda c: (c.only_a - c.only_b, c.name))
    names = [c.name for c in shown]
    hover_texts = [
        f"{c.correct_a} of {c.images} correct in A, {c.correct_b} in B; p = {c.adjusted:.2g} after Holm's correction"
        for c in shown
    ]
    data = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": values,
            "marker": marker,
            "customdata": hover_texts,
            "hovertemplate": "%{x}, " + name + ": %{y}<br>%{customdata}<extra></extra>",
        }
        for name, values, marker in (
            ("correct only in B", [c.only_b for c in shown], {"color": "@accent"}),
            (
                "correct only in A",
                [-c.only_a for c in shown],
                {"color": "@track", "line": {"color": "@quiet", "width": 1}},
            ),
        )
    ]
    whole = comparison.whole
    title = (
        f"Only B is correct on {counted(whole.only_b)}, only A on {whole.only_a}, of {whole.images:,}"
        if shown
        else f"A and B are correct on the same {whole.correct_a:,} of {whole.images:,} images"
    )
    high, low = max([1, *(c.only_b for c in shown)]), max([1, *(c.only_a for c in shown)])
    marks = [
        {
            "x": c.name,
            "y": c.only_b,
            "text": "*",
            "showarrow": False,
            "yanchor": "bottom",
            "font": {"size": 18, "color": "@ink"},
        }
        for c in shown
        if c.adjusted < SIGNIFICANCE_LEVEL
    ]
    corner_labels = [  # where bars are short: gains are left, losses right
        {
            "x": x, "xref": "paper", "y": y, "yref": "paper", "text": text, "showarrow": False, "xanchor": anchor_x,
            "yanchor": anchor_y, "font": {"size": 12, "color": "@quiet"},
        }
        for text, x, y, anchor_x, anchor_y in (
            ("only B is correct", 1, 1, "right", "top"),
            ("only A is correct", 0.01, 0, "left", "bottom"),
        )
    ]  # fmt: skip
    starred = sum(c.adjusted < SIGNIFICANCE_LEVEL for c in shown)
    return figure(
        data,
        title,
        f"Bar chart by class. {title}. {starred} of {len(comparison.classes)} classes differ significantly.",
        "paired-tests",
        height=320,
        barmode="relative",
        bargap=0.25,
        xaxis=_classes("class, sorted by gain in B", names) | {"showgrid": False},
        yaxis=axis(
            "images correct in only one run", range=[-1.25 * low, 1.25 * high], zeroline=True, zerolinecolor="@ink"
        ),
        annotations=marks + corner_labels,
        margin={"l": 58, "r": 16, "t": 44, "b": 44},
    )


# ---------------------------------------------------------------- pieces


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _classes(title: str, names: Sequence[str]) -> dict:
    """An axis of classes with every name where they fit, else every second, third, ... of them."""
    stride = -(-len(names) // MAX_LABELS) or 1
    shown = list(names[::stride])
    return axis(
        title,
        type="category",
        categoryarray=list(names),
        categoryorder="array",
        tickvals=shown,
        ticktext=[_short(name) for name in shown],
        tickangle=0 if max(map(len, shown), default=0) <= 2 else -45,
        automargin=True,
        showgrid=False,
    )


def _dashed_line(position: dict) -> dict:
    return {"type": "line", "line": {"color": "@quiet", "dash": "dash", "width": 1.2}, **position}
