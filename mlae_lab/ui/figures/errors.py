"""Where a run is wrong: its confusion matrix, accuracy by class, reliability; and what one of two runs alone gets right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.core.paired_tests import SURE, PairedTests
from mlae_lab.core.proportions import wilson
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, end_label, figure

MAX_LABELS = 34  # names along an axis; of more classes every second, third ... is named
MAX_NUMBERS = 16  # classes up to which each cell of the matrix carries its count
_LONGEST = 16  # letters of a class name on an axis
_MISTAKES = [[0.0, "@surface"], [1.0, "@high"]]

CONFUSION_NOTE = (
    "Row i, column j: the share of the images of class i that are taken for class j, counts / sum of their row. The "
    "diagonal is what is right; mistakes have a colour scale of their own, which ends at the commonest one."
)
CLASSES_NOTE = (
    "Share of each class that is right, with its 95 % Wilson interval, (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n); "
    "worst first. The paper reports top-1 over all classes alone."
)
RELIABILITY_NOTE = (
    "Confidence is the largest softmax probability. Images are sorted into bins ((m−1)/M, m/M] of it; each point is a bin's "
    "mean confidence and accuracy, with the Wilson interval. ECE = Σ nₘ/n · |accuracyₘ − confidenceₘ|. Brier score = mean of "
    "Σₖ (pₖ − [k = class])², 0 to 2. Calibration is no subject of the paper."
)
PAIRED_TESTS_NOTE = (
    "Of the images on which the two differ, each would fall to A or to B by the toss of a coin if both were equally good: "
    "McNemar's test, mid-p = 2 P(X ≤ m) − P(X = m), X ~ Bin(n, ½). A class is marked where its p is below 0.05 after Holm's "
    "correction over all classes. It knows these images and these two runs; another seed may say otherwise."
)


def confusion_figure(
    names: Sequence[str], counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float | None]]
) -> Figure:
    """A confusion matrix, (classes, classes), rows true classes: shares as colour, counts in the cells of a small one."""
    size = len(names)
    mistakes = [(counts[i][j], -i, -j) for i in range(size) for j in range(size) if i != j and counts[i][j]]
    off = [[v if i != j and v else None for j, v in enumerate(row)] for i, row in enumerate(shares)]
    most = max((v for row in off for v in row if v is not None), default=1.0)
    gap = 1 if size <= 40 else 0

    def cells(name: str, z: list[list[float | None]], most: float, scale: list, **more: object) -> dict:
        numbers = [
            ["" if v is None else n or "" for n, v in zip(*rows, strict=False)] for rows in zip(counts, z, strict=False)
        ]
        shown = {"text": numbers, "texttemplate": "%{text}", "textfont": {"size": 12}} if size <= MAX_NUMBERS else {}
        return {
            "type": "heatmap",
            "name": name,
            "x": list(names),
            "y": list(names),
            "z": z,
            "zmin": 0,
            "zmax": most,
            "colorscale": scale,
            "customdata": [list(row) for row in counts],
            "xgap": gap,
            "ygap": gap,
            "hoverongaps": False,
            "hovertemplate": "%{y}, taken for %{x}: %{customdata} images, %{z:.1%}<extra></extra>",
            **shown,
            **more,
        }

    bar = {
        "thickness": 8,
        "outlinewidth": 0,
        "nticks": 4,
        "tickformat": ".0%",
        "tickfont": {"size": 11, "color": "@quiet"},
    }
    right = [[v if i == j else None for j, v in enumerate(row)] for i, row in enumerate(shares)]
    data = [
        cells("right", right, 1.0, SEQUENTIAL, showscale=False),
        cells("mistakes", off, most, _MISTAKES, colorbar=bar),
    ]
    total = sum(map(sum, counts))
    if mistakes:
        n, i, j = max(mistakes)
        title = f"Most often {_short(names[-i])} is taken for {_short(names[-j])}: {n} of {sum(counts[-i])} images"
    else:
        title = f"All {total} images are right" if total else "No image to show"
    return figure(
        data,
        title,
        f"Confusion matrix of {size} classes, {total} images. {title}.",
        "confusion",
        height=max(320, min(860, (30 if size <= MAX_NUMBERS else 20) * size + 130)),
        xaxis=_classes("taken for", names) | {"constrain": "domain"},
        yaxis=_classes("true class", names) | {"autorange": "reversed", "automargin": True, "tickangle": 0},
        margin={"l": 52, "r": 16, "t": 44, "b": 44},
    )


def class_accuracy_figure(classes: Sequence[Mapping], accuracy: float) -> Figure:
    """Accuracy of each class as a bar with its interval, worst first. classes: as the answer to `errors` has them;
    accuracy: over all images, in percent. Classes without an image are left out."""
    shown = sorted((c for c in classes if c["images"]), key=lambda c: (c["right"] / c["images"], c["name"]))
    names = [c["name"] for c in shown]
    values = [100 * c["right"] / c["images"] for c in shown]
    data = [
        {
            "type": "bar",
            "name": "right, %",
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
                f"{c['right']} of {c['images']}, 95 % {100 * c['low']:.0f} to {100 * c['high']:.0f} %" for c in shown
            ],
            "hovertemplate": "%{x}: %{y:.1f} % right (%{customdata})<extra></extra>",
        }
    ]
    title = "No image to show"
    if shown:
        title = (
            f"Hardest is {_short(names[0])} ({values[0]:.0f} % right), easiest {_short(names[-1])} ({values[-1]:.0f} %)"
        )
        if values[0] == values[-1]:
            title = f"Every class is right in {values[0]:.0f} %"
    return figure(
        data,
        title,
        f"Bar chart of accuracy by class, {len(shown)} classes. {title}.",
        "class-accuracy",
        height=320,
        bargap=0.25,
        xaxis=_classes("class, worst first", names) | {"showgrid": False},
        yaxis=axis("right, % of the class", range=[0, 104]),
        shapes=[_line({"xref": "paper", "x0": 0, "x1": 1, "y0": accuracy, "y1": accuracy})],
        annotations=[end_label(1, accuracy, f"all {accuracy:.1f}", "@quiet") | {"xref": "paper"}],
        margin={"l": 52, "r": 66, "t": 44, "b": 44},
    )


def reliability_figure(bins: Sequence[Mapping], ece: float, confidence: float, accuracy: float) -> Figure:
    """How often images of one confidence are right, over a strip that says how many there are.

    bins: as the answer to `errors` has them; confidence, accuracy: means in [0, 1].
    """
    held = [entry for entry in bins if entry["images"]]
    ends = [wilson(round(entry["accuracy"] * entry["images"]), entry["images"]) for entry in held]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "accuracy",
            "x": [round(entry["confidence"], 4) for entry in held],
            "y": [round(entry["accuracy"], 4) for entry in held],
            "line": {"color": "@accent", "width": 2},
            "marker": {"size": 8, "color": "@accent"},
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [
                    round(max(0.0, high - entry["accuracy"]), 4) for entry, (_, high) in zip(held, ends, strict=False)
                ],
                "arrayminus": [
                    round(max(0.0, entry["accuracy"] - low), 4) for entry, (low, _) in zip(held, ends, strict=False)
                ],
                "color": "@accent",
                "thickness": 1.2,
                "width": 3,
            },
            "customdata": [entry["images"] for entry in held],
            "hovertemplate": "%{x:.1%} sure, %{y:.1%} right, %{customdata} images<extra></extra>",
        },
        {
            "type": "bar",
            "name": "images",
            "x": [(entry["low"] + entry["high"]) / 2 for entry in bins],
            "y": [entry["images"] for entry in bins],
            "width": [0.94 * (entry["high"] - entry["low"]) for entry in bins],
            "yaxis": "y2",
            "marker": {"color": "@track", "line": {"color": "@quiet", "width": 1}},
            "hovertemplate": "%{y} images are about %{x:.0%} sure<extra></extra>",
        },
    ]
    gap = confidence - accuracy
    how = "Too sure" if gap > 0.02 else "Not sure enough" if gap < -0.02 else "As sure as right"
    title = f"{how}: {100 * confidence:.1f} % sure, {100 * accuracy:.1f} % right"
    return figure(
        data,
        title,
        f"Reliability curve in {len(bins)} bins. {title}, ECE {ece:.3f}.",
        "reliability",
        height=380,
        xaxis=axis("confidence of the guess", range=[0, 1.02], tickformat=".0%", anchor="y2"),
        yaxis=axis("share that is right", range=[0, 1.04], tickformat=".0%", domain=[0.3, 1]),
        yaxis2=axis("images", domain=[0, 0.2], rangemode="tozero", nticks=3),
        shapes=[_line({"xref": "x", "yref": "y", "x0": 0, "y0": 0, "x1": 1, "y1": 1})],
        annotations=[
            {
                "x": 0.03, "y": 0.97, "xref": "paper", "yref": "y", "text": "dashed: as sure as right", "showarrow": False,
                "xanchor": "left", "yanchor": "top", "font": {"size": 12, "color": "@quiet"},
            }
        ],
        margin={"l": 60, "r": 16, "t": 44, "b": 44},
    )  # fmt: skip


def paired_tests_figure(found: PairedTests) -> Figure:
    """Images of each class that only one of two runs gets right: B's upwards, A's downwards, the largest gain first."""
    shown = sorted((c for c in found.classes if c.only_a or c.only_b), key=lambda c: (c.only_a - c.only_b, c.name))
    names = [c.name for c in shown]
    words = [
        f"{c.correct_a} of {c.images} right in A, {c.correct_b} in B; p = {c.adjusted:.2g} after Holm's correction"
        for c in shown
    ]
    data = [
        {
            "type": "bar",
            "name": name,
            "x": names,
            "y": values,
            "marker": marker,
            "customdata": words,
            "hovertemplate": "%{x}, " + name + ": %{y}<br>%{customdata}<extra></extra>",
        }
        for name, values, marker in (
            ("right in B only", [c.only_b for c in shown], {"color": "@accent"}),
            (
                "right in A only",
                [-c.only_a for c in shown],
                {"color": "@track", "line": {"color": "@quiet", "width": 1}},
            ),
        )
    ]
    whole = found.whole
    title = (
        f"B alone is right on {whole.only_b} image{'s' * (whole.only_b != 1)}, A alone on {whole.only_a}, of {whole.images:,}"
        if shown
        else f"A and B are right on the same {whole.correct_a:,} of {whole.images:,} images"
    )
    high, low = max([1, *(c.only_b for c in shown)]), max([1, *(c.only_a for c in shown)])
    marks = [
        {
            "x": c.name, "y": c.only_b, "text": "*", "showarrow": False, "yanchor": "bottom",
            "font": {"size": 18, "color": "@ink"},
        }
        for c in shown if c.adjusted < SURE
    ]  # fmt: skip
    corners = [  # where bars are short: gains stand left, losses right
        {
            "x": x, "xref": "paper", "y": y, "yref": "paper", "text": text, "showarrow": False, "xanchor": side,
            "yanchor": anchor, "font": {"size": 12, "color": "@quiet"},
        }
        for text, x, y, side, anchor in (
            ("only B is right", 1, 1, "right", "top"),
            ("only A is right", 0.01, 0, "left", "bottom"),
        )
    ]  # fmt: skip
    starred = sum(c.adjusted < SURE for c in shown)
    return figure(
        data,
        title,
        f"Bar chart by class. {title}. {starred} of {len(found.classes)} classes differ by more than chance.",
        "slices",
        height=320,
        barmode="relative",
        bargap=0.25,
        xaxis=_classes("class, those first that gain most in B", names) | {"showgrid": False},
        yaxis=axis(
            "images that one alone gets right", range=[-1.25 * low, 1.25 * high], zeroline=True, zerolinecolor="@ink"
        ),
        annotations=marks + corners,
        margin={"l": 58, "r": 16, "t": 44, "b": 44},
    )


# ---------------------------------------------------------------- pieces


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _classes(title: str, names: Sequence[str]) -> dict:
    """An axis of classes: every name where there is room, else every second, third, ... of them."""
    every = -(-len(names) // MAX_LABELS) or 1
    shown = list(names[::every])
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


def _line(place: dict) -> dict:
    return {"type": "line", "line": {"color": "@quiet", "dash": "dash", "width": 1.2}, **place}
