"""What a run says of one image, and what it would say without the experts of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlae_lab.ui.figures.base import Figure, axis, figure

_SHOWN = 5  # classes of two answers beside each other


def classes_figure(top: Sequence[Mapping], classes: Sequence[str], truth: int | None = None) -> Figure:
    """The first classes as bars, the most probable at the top. top: class and probability of each."""
    names = [classes[one["class"]] for one in top]
    shares = [round(100 * one["probability"], 2) for one in top]
    verdict = "" if truth is None else ", which is right" if top[0]["class"] == truth else f"; it is {classes[truth]}"
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
    """One image's answer as the run was trained and as it is now: the most probable classes of either, beside each other.

    before, now: probability of every class, of which the first five are shown.
    """
    indices = sorted(range(len(classes)), key=lambda k: -max(before[k], now[k]))[:_SHOWN]
    was, is_now = (max(range(len(classes)), key=one.__getitem__) for one in (before, now))
    if was == is_now:
        moved = 100 * (now[was] - before[was])
        title = f"It stays {classes[was]}: {100 * now[was]:.1f} %" + (
            "" if abs(moved) < 0.05 else f", {moved:+.1f} points"
        )
    else:
        title = f"It becomes {classes[is_now]}, {100 * now[is_now]:.1f} %; it was {classes[was]}"
    if truth is not None:
        title += ", which is right" if is_now == truth else f"; right is {classes[truth]}"
    names = [classes[k] for k in indices]
    data = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": names,
            "x": [round(100 * one[k], 2) for k in indices], "marker": {"color": colour},
            "text": [f"{100 * one[k]:.1f} %" for k in indices], "textposition": "outside",
            "textfont": {"size": 12, "color": "@ink"}, "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.2f} % " + name + "<extra></extra>",
        }
        for name, one, colour in (("as trained", before, "@middle"), ("now", now, "@accent"))
    ]  # fmt: skip
    return figure(
        data,
        title,
        f"Bar chart of {len(indices)} classes, as trained and now. {title}.",
        "prediction-what-if",
        height=110 + 52 * len(indices),
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
    """Probability of the class that the run chose, with the experts of one layer off at a time.

    without: layer, class, probability and whether the answer flips, for each layer; whole: the same with all experts off;
    with_all: the probability as it is. first: the class that the run chose.
    """
    rows = [*(({**one, "name": f"layer {one['layer']}"}) for one in without), {**whole, "name": "all layers"}]
    flips = [one["name"] for one in rows[:-1] if one["flips"]]
    name = classes[first]
    title = f"No layer alone decides that it is {name}"
    if flips:
        title = f"Without the experts of {_listed(flips)} it would not be {name}"
    elif rows[-1]["flips"]:
        title += ", all together do"
    share = round(100 * with_all, 2)
    data = [
        {
            "type": "bar",
            "name": f"probability of {name} in percent",
            "orientation": "h",
            "y": [one["name"] for one in rows],
            "x": [round(100 * one["probability"], 2) for one in rows],
            "marker": {"color": ["@active" if one["flips"] else "@middle" for one in rows]},
            "text": [f"becomes {classes[one['class']]}" if one["flips"] else "" for one in rows],
            "textposition": "outside",
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "hovertemplate": "without the experts of %{y}: %{x:.2f} %<extra></extra>",
        }
    ]
    mark = {"type": "line", "x0": share, "x1": share, "yref": "paper", "y0": 0, "y1": 1}
    return figure(
        data,
        title,
        f"Bar chart of the probability of {name} without the experts of each layer. {title}. With all experts on: {share} %.",
        "without-each-layer",
        height=110 + 22 * len(rows),
        bargap=0.3,
        xaxis=axis(f"probability of {name}, %", range=[0, 130], tickvals=[0, 25, 50, 75, 100]),
        yaxis=axis("experts off in", autorange="reversed", showgrid=False, type="category", automargin=True),
        shapes=[{**mark, "line": {"color": "@quiet", "width": 1.5, "dash": "dash"}}],
        annotations=[
            {
                "x": share, "y": 1, "yref": "paper", "yanchor": "bottom", "text": f"all on: {share:g} %",
                "xanchor": "right" if share > 20 else "left", "showarrow": False, "font": {"size": 12, "color": "@quiet"},
            }
        ],
        margin={"l": 52, "r": 16, "t": 62, "b": 44},
    )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    """layer 3 or 4; of more, how many"""
    if len(names) > 3:
        return f"any one of {len(names)} layers"
    return " or ".join([names[0], *(name.removeprefix("layer ") for name in names[1:])])
