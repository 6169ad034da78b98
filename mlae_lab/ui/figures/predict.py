"""Predictions for one image: as trained, with experts off, and without the experts of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.ui.figures.base import Figure, axis, figure

_SHOWN = 5  # classes shown of two predictions


def classes_figure(top: Sequence[Mapping], classes: Sequence[str], truth: int | None = None) -> Figure:
    """Most probable classes as bars, the most probable at the top.

    Args:
        top: Class and probability of each.
        classes: Names of all classes.
        truth: True class, None if unknown.
    """
    names = [classes[entry["class"]] for entry in top]
    shares = [round(100 * entry["probability"], 2) for entry in top]
    verdict = "" if truth is None else " (correct)" if top[0]["class"] == truth else f" (true class: {classes[truth]})"
    title = f"{names[0]}, {shares[0]:.1f} %{verdict}"
    data = [
        {
            "type": "bar",
            "name": "probability in percent",
            "orientation": "h",
            "x": shares,
            "y": names,
            "marker": {"color": ["@accent", *["@middle"] * (len(top) - 1)]},
            "text": [f"{share:.1f} %" for share in shares],
            "textposition": "outside",
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
        }
    ]
    return figure(
        data,
        title,
        f"Bar chart of the {len(top)} most probable classes. {title}.",
        "prediction",
        height=90 + 34 * len(top),
        bargap=0.35,
        xaxis=axis("probability, %", range=[0, 112], tickvals=[0, 25, 50, 75, 100]),
        yaxis=axis("", autorange="reversed", showgrid=False, type="category", automargin=True),
    )


def two_answers_figure(
    before: Sequence[float], now: Sequence[float], classes: Sequence[str], truth: int | None = None
) -> Figure:
    """The predictions for one image as trained and with experts off: the most probable classes of either.

    Args:
        before: Probability of every class, as trained.
        now: Probability of every class, in the current state.
        classes: Names of all classes.
        truth: True class, None if unknown.
    """
    indices = sorted(range(len(classes)), key=lambda k: -max(before[k], now[k]))[:_SHOWN]
    before_class, now_class = (
        max(range(len(classes)), key=probabilities.__getitem__) for probabilities in (before, now)
    )
    if before_class == now_class:
        change = 100 * (now[before_class] - before[before_class])
        title = f"Prediction stays {classes[before_class]}: {100 * now[before_class]:.1f} %" + (
            "" if abs(change) < 0.05 else f", {change:+.1f} points"
        )
    else:
        title = f"Prediction changes from {classes[before_class]} to {classes[now_class]}, {100 * now[now_class]:.1f} %"
    if truth is not None:
        title += " (correct)" if now_class == truth else f" (true class: {classes[truth]})"
    names = [classes[k] for k in indices]
    data = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": names,
            "x": [round(100 * probabilities[k], 2) for k in indices], "marker": {"color": colour},
            "text": [f"{100 * probabilities[k]:.1f} %" for k in indices], "textposition": "outside",
            "textfont": {"size": 12, "color": "@ink"}, "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.2f} % " + name + "<extra></extra>",
        }
        for name, probabilities, colour in (("as trained", before, "@middle"), ("now", now, "@accent"))
    ]  # fmt: skip
    return figure(
        data,
        title,
        f"Bar chart of {len(indices)} classes, as trained and now. {title}.",
        "prediction-what-if",
        height=132 + 52 * len(indices),
        barmode="group",
        bargap=0.3,
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        xaxis=axis("probability, %", range=[0, 112], tickvals=[0, 25, 50, 75, 100]),
        yaxis=axis("", autorange="reversed", showgrid=False, type="category", automargin=True),
    )


def without_figure(
    without: Sequence[Mapping], whole: Mapping, with_all: float, classes: Sequence[str], first: int
) -> Figure:
    """Probability of the predicted class, with the experts of one layer off at a time.

    Args:
        without: Layer, class, probability and whether the prediction flips, for each layer.
        whole: The same with all experts off.
        with_all: Probability with all experts on.
        classes: Names of all classes.
        first: The predicted class.
    """
    rows = [*(({**entry, "name": f"layer {entry['layer']}"}) for entry in without), {**whole, "name": "all layers"}]
    flips = [entry["name"] for entry in rows[:-1] if entry["flips"]]
    name = classes[first]
    title = f"No single layer flips the prediction {name}"
    if flips:
        title = f"Without the experts of {_listed(flips)} the prediction is not {name}"
    elif rows[-1]["flips"]:
        title += "; all layers together do"
    percent = round(100 * with_all, 2)
    data = [
        {
            "type": "bar",
            "name": f"probability of {name} in percent",
            "orientation": "h",
            "y": [entry["name"] for entry in rows],
            "x": [round(100 * entry["probability"], 2) for entry in rows],
            "marker": {"color": ["@active" if entry["flips"] else "@middle" for entry in rows]},
            "text": [f"becomes {classes[entry['class']]}" if entry["flips"] else "" for entry in rows],
            "textposition": "outside",
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "hovertemplate": "without the experts of %{y}: %{x:.2f} %<extra></extra>",
        }
    ]
    line = {"type": "line", "x0": percent, "x1": percent, "yref": "paper", "y0": 0, "y1": 1}
    return figure(
        data,
        title,
        f"Bar chart of the probability of {name} without the experts of each layer. {title}. "
        f"With all experts on: {percent} %.",
        "without-each-layer",
        height=110 + 22 * len(rows),
        bargap=0.3,
        xaxis=axis(f"probability of {name}, %", range=[0, 130], tickvals=[0, 25, 50, 75, 100]),
        yaxis=axis("experts off in", autorange="reversed", showgrid=False, type="category", automargin=True),
        shapes=[{**line, "line": {"color": "@quiet", "width": 1.5, "dash": "dash"}}],
        annotations=[
            {
                "x": percent,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "text": f"all on: {percent:g} %",
                "xanchor": "right" if percent > 20 else "left",
                "showarrow": False,
                "font": {"size": 12, "color": "@quiet"},
            }
        ],
        margin={"l": 52, "r": 16, "t": 62, "b": 44},
    )


def _listed(names: Sequence[str]) -> str:
    """Join names, such as "layer 3 or 4"; more than three are counted."""
    if len(names) > 3:
        return f"any one of {len(names)} layers"
    return " or ".join([names[0], *(name.removeprefix("layer ") for name in names[1:])])
