"""Similarity of experts by layer, spectrum of ΔW and overlap of its spaces, for one run or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mlae_lab.core.random_baseline import RandomBaseline
from mlae_lab.ui.figures.base import FRAME, SEQUENTIAL, Figure, apart, axis, band, figure, room

Values = Sequence[float | None]
_HEIGHT = 300


@dataclass(frozen=True)
class Line:
    """One line by layer.

    Attributes:
        name: Label at its end.
        values: One per layer.
        strong: Of the run that is shown.
        dash: Style of the line, by default solid if it is strong and else dashed.
    """

    name: str
    values: Values
    strong: bool = True
    dash: str = ""


def by_layer_figure(
    name: str,
    labels: Sequence[str],
    lines: Sequence[Line],
    title: str,
    quantity: str,
    baseline: Sequence[RandomBaseline | None] = (),
) -> Figure:
    """A quantity over the layers of a network, one line for each run or measure; layers without it are gaps.

    Args:
        name: Of saved files.
        labels: Of the layers.
        lines: The lines.
        title: Of the figure.
        quantity: Label of the axis.
        baseline: Of random experts, by layer; drawn with two standard deviations.
    """
    data: list[dict] = []
    ends: list[tuple[float, float, str, str]] = []
    known_baseline = [(i, c) for i, c in enumerate(baseline) if c is not None]
    if known_baseline:
        positions = [i for i, _ in known_baseline]
        data += band(
            "random experts, two standard deviations",
            positions,
            [c.mean - 2 * c.deviation for _, c in known_baseline],
            [c.mean + 2 * c.deviation for _, c in known_baseline],
            "@quiet",
            opacity=0.25,
        )
        data.append(
            _trace("random experts", positions, [c.mean for _, c in known_baseline], "@quiet", "dot", 1.5, labels)
        )
        ends.append((positions[-1], known_baseline[-1][1].mean, "random", "@quiet"))
    for line in lines:
        known = [(i, value) for i, value in enumerate(line.values) if value is not None]
        if not known:
            continue
        colour = "@accent" if line.strong else "@ink"
        positions, values = [i for i, _ in known], [value for _, value in known]
        data.append(
            _trace(
                line.name,
                positions,
                values,
                colour,
                line.dash or ("solid" if line.strong else "dash"),
                2.5 if line.strong else 1.5,
                labels,
            )
        )
        ends.append((positions[-1], values[-1], line.name, colour))
    values_drawn = [value for trace in data for value in trace["y"]]
    low, high = room(min([0.0, *values_drawn]), max(values_drawn, default=1.0), least=1e-3)
    last = max((x for x, *_ in ends), default=0)
    ends = [(last, y, text, colour) for _, y, text, colour in ends]
    return figure(
        data,
        title,
        f"Line chart by layer. {title}.",
        name,
        height=_HEIGHT,
        xaxis=axis("layer", tickvals=list(range(len(labels))), ticktext=list(labels), range=[-0.3, len(labels) - 0.7]),
        yaxis=axis(quantity, range=[max(low, 0.0) if min([0.0, *values_drawn]) >= 0 else low, high]),
        annotations=apart(ends, (_HEIGHT - FRAME) / (high - low)),
        margin={"l": 56, "r": 14 + 7 * max((len(text) for _, _, text, _ in ends), default=0), "t": 44, "b": 44},
    )


def rank_curve(
    name: str,
    what: str,
    own: Sequence[tuple[int, float]],
    other: Sequence[tuple[int, float]] = (),
    max_rank: float = 0.0,
    other_max_rank: float = 0.0,
) -> Figure:
    """The rank of ΔW over epochs, mean over layers: how many directions the update uses during training.

    Args:
        name: Of saved files.
        what: "effective" or "stable".
        own: (epoch, rank) of the run.
        other: (epoch, rank) of another run.
        max_rank: Largest possible rank of the run, 0 if unknown.
        other_max_rank: Largest possible rank of the other run, 0 if unknown.
    """
    data: list[dict] = []
    ends: list[tuple[float, float, str, str]] = []
    for pairs, label, colour, dash, width in (
        (own, "this run", "@accent", "solid", 2.5),
        (other, "other", "@ink", "dash", 1.5),
    ):
        if not pairs:
            continue
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": label, "x": [epoch for epoch, _ in pairs],
                "y": [round(value, 4) for _, value in pairs], "line": {"color": colour, "width": width, "dash": dash},
                "marker": {"size": 5, "color": colour},
                "hovertemplate": "epoch %{x}: %{y:.3f}<extra>" + label + "</extra>",
            }
        )  # fmt: skip
        ends.append((pairs[-1][0], pairs[-1][1], label, colour))
    title = f"{what.capitalize()} rank: " + (f"{own[-1][1]:.2f}" if own else "ΔW is 0")
    if own and max_rank:
        title += f" (max. {max_rank:.3g})"
    if own and other:
        title += f", other run {other[-1][1]:.2f}" + (
            f" (max. {other_max_rank:.3g})" if other_max_rank and other_max_rank != max_rank else ""
        )
    values = [value for trace in data for value in trace["y"]]
    low, high = room(min(values, default=0.0), max(values, default=1.0), least=0.2)
    low = max(low, 0.0)
    last = max((x for x, *_ in ends), default=1)
    return figure(
        data,
        title,
        f"Line chart over epochs. {title}.",
        name,
        height=240,
        xaxis=axis("epoch", rangemode="tozero"),
        yaxis=axis(f"{what} rank", range=[low, high]),
        annotations=apart([(last, *end[1:]) for end in ends], (240 - FRAME) / (high - low)),
        margin={"l": 56, "r": 14 + 7 * max((len(text) for _, _, text, _ in ends), default=0), "t": 44, "b": 44},
    )


def spectrum_figure(
    values: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]] = (),
    name: str = "this run",
    other_name: str = "",
) -> Figure:
    """The spectrum of ΔW: the share of each singular value in their sum, mean over layers with a band over all layers.

    Args:
        values: Singular values of each layer of the run, in descending order.
        other: The same of another run.
        name: Label of the run.
        other_name: Label of the other run.
    """
    data: list[dict] = []
    ends: list[tuple[float, float, str, str]] = []
    largest_count = max([len(layer) for layer in (*values, *other)], default=0)
    for spectra, label, colour, dash in ((values, name, "@accent", "solid"), (other, other_name, "@ink", "dash")):
        shares = [[value / sum(layer) for value in layer] for layer in spectra if layer and sum(layer) > 0]
        if not shares:
            continue
        count = max(map(len, shares))
        numbers = list(range(1, count + 1))
        columns = [[share[i] for share in shares if i < len(share)] for i in range(count)]
        data += band(
            f"{label}, lowest to highest layer",
            numbers,
            list(map(min, columns)),
            list(map(max, columns)),
            colour,
            opacity=0.13,
        )
        means = list(map(fmean, columns))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label,
                "x": numbers,
                "y": [round(m, 5) for m in means],
                "line": {"color": colour, "width": 2.5 if dash == "solid" else 1.5, "dash": dash},
                "marker": {"size": 6, "color": colour},
                "hovertemplate": "singular value %{x}: %{y:.3f} of the sum<extra>" + label + "</extra>",
            }
        )
        ends.append((numbers[-1], means[-1], label, colour))
    first = [layer[0] / sum(layer) for layer in values if layer and sum(layer) > 0]
    title = (
        f"Spectrum of ΔW: the first of {max(map(len, values))} singular values has {100 * fmean(first):.0f} %"
        if first
        else "ΔW is 0"
    )
    high = max([value for trace in data for value in trace["y"]], default=1.0) * 1.08
    last = max((x for x, *_ in ends), default=1)
    return figure(
        data,
        title,
        f"Line chart of singular values. {title}.",
        "spectrum",
        height=_HEIGHT,
        xaxis=axis(
            "singular value, largest first",
            dtick=1 if largest_count <= 16 else None,
            range=[0.7, max(largest_count, 2) + 0.3],
        ),
        yaxis=axis("share of the sum", range=[0, high], tickformat=".0%"),
        annotations=apart([(last, *end[1:]) for end in ends], (_HEIGHT - FRAME) / high),
        margin={"l": 56, "r": 14 + 7 * max((len(text) for _, _, text, _ in ends), default=0), "t": 44, "b": 44},
    )


def overlap_figure(matrix: Sequence[Values], labels: Sequence[str], what: str, random: float | None) -> Figure:
    """The overlap of the spaces of each pair of layers, from 0 to 1.

    Args:
        matrix: The overlaps, (layers, layers).
        labels: Of the layers.
        what: "row" or "column", the kind of the spaces.
        random: Random baseline for spaces of these dimensions, None if unknown.
    """
    pairs = [value for i, line in enumerate(matrix) for value in line[:i] if value is not None]
    title = f"{what.capitalize()} spaces of ΔW: " + (
        f"mean overlap {fmean(pairs):.2f}" if pairs else "no two layers to compare"
    )
    if pairs and random is not None:
        title += f" (random {random:.2f})"
    data = [
        {
            "type": "heatmap", "name": "overlap", "x": list(labels), "y": list(labels),
            "z": [[None if i == j else value for j, value in enumerate(line)] for i, line in enumerate(matrix)],
            "zmin": 0, "zmax": max([0.1, *pairs]), "colorscale": SEQUENTIAL, "xgap": 2, "ygap": 2, "hoverongaps": False,
            "hovertemplate": "layers %{y} and %{x}: %{z:.3f}<extra></extra>",
            "colorbar": {"thickness": 8, "outlinewidth": 0, "tickfont": {"size": 11, "color": "@quiet"}, "nticks": 4},
        }
    ]  # fmt: skip
    bare = {"showgrid": False, "type": "category", "categoryarray": list(labels)}
    return figure(
        data,
        title,
        f"Heat map, {len(labels)} by {len(labels)} layers. {title}.",
        f"overlap-{what}",
        height=360,
        xaxis=axis("layer", constrain="domain", **bare),
        yaxis=axis("layer", autorange="reversed", scaleanchor="x", constrain="domain", **bare),
    )


def _trace(
    name: str,
    positions: Sequence[int],
    values: Sequence[float],
    colour: str,
    dash: str,
    width: float,
    labels: Sequence[str],
) -> dict:
    return {
        "type": "scatter", "mode": "lines+markers" if dash != "dot" else "lines", "name": name, "x": list(positions),
        "y": [round(value, 5) for value in values], "text": [labels[i] for i in positions],
        "line": {"color": colour, "width": width, "dash": dash}, "marker": {"size": 6, "color": colour},
        "hovertemplate": "layer %{text}: %{y:.4f}<extra>" + name + "</extra>",
    }  # fmt: skip
