"""One mask of a study: its accuracy over epochs and the leader's, on axes shared by all masks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.standings import Race
from mlae_lab.ui.figures.base import Figure, axis, end_label, figure, thinned

_HEIGHT = 190


def lane_figure(race: Race, number: int) -> Figure:
    """Small multiple of one lane: a thin line for each seed, their mean strong, the leader's mean dashed.

    The number is that of the standing: the mean over the compared seeds after the compared epoch, which a lane that is
    ahead of the others has passed.

    Args:
        race: The race.
        number: Index of the lane. Its mean covers the epochs at which all compared seeds have been evaluated.
    """
    lane = race.lanes[number]
    standing = next((entry for entry in race.standings if entry.lane == number), None)
    leader = race.standings[0].lane if race.standings else number
    low, high = _range(race)
    data, labels = [], []
    if leader != number:
        leader_curve = thinned(_mean(race, leader))
        data.append(_line(f"the leader, {race.lanes[leader].name}", leader_curve, "@quiet", 1.5, "dash"))
    several = len(lane.curves) > 1
    for seed, curve in sorted(lane.curves.items()):
        style = ("@quiet", 1.0) if several else ("@accent", 2.5)
        data.append(_line(f"seed {seed}", thinned(curve), *style, marked=not several))
    mean = _mean(race, number)
    if several:
        data.append(_line(f"mean of {len(_seeds(race, number))} seeds", thinned(mean), "@accent", 2.5, marked=True))
    epoch, accuracy = (race.epoch, standing.accuracy) if standing else mean[-1] if mean else (None, 0.0)
    if epoch is not None:
        label = end_label(epoch, accuracy, f"{accuracy:.1f}", "@accent")
        if mean and mean[-1][0] != epoch:  # below the line, which continues to the right
            label |= {"xanchor": "center", "yanchor": "top", "xshift": 0, "yshift": -4}
        labels.append(label)
    status = f"{accuracy:.1f} % after epoch {epoch}" if epoch is not None else "not evaluated yet"
    return figure(
        data,
        "",
        f"Line chart of the accuracy of {lane.name} over epochs: {status}."
        + (f" Dashed: {race.lanes[leader].name}, the leader." if leader != number else ""),
        f"race-{number + 1}",
        height=_HEIGHT,
        xaxis=axis("epoch", range=[0, race.epochs * 1.02], nticks=5),
        yaxis=axis("accuracy in %", range=[low, high], nticks=4),
        annotations=labels,
        margin={"l": 46, "r": 40, "t": 8, "b": 38},
    )


def _line(
    name: str, points: Sequence[tuple[int, float]], colour: str, width: float, dash: str = "solid", marked: bool = False
) -> dict:
    return {
        "type": "scatter",
        "mode": "lines+markers" if marked or len(points) == 1 else "lines",
        "name": name,
        "x": [epoch for epoch, _ in points],
        "y": [round(value, 2) for _, value in points],
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {"size": 5, "color": colour},
        "hovertemplate": "epoch %{x}: %{y:.1f} %<extra>" + name + "</extra>",
    }


def _seeds(race: Race, number: int) -> list[int]:
    """The seeds of a lane that the race compares; all of its evaluated seeds if it compares none."""
    evaluated = sorted(race.lanes[number].curves)
    return [seed for seed in evaluated if seed in race.seeds] or evaluated


def _mean(race: Race, number: int) -> Curve:
    """Mean of a lane over the compared seeds, at the epochs that all of them have."""
    curves = [dict(race.lanes[number].curves[seed]) for seed in _seeds(race, number)]
    shared = set.intersection(*map(set, curves)) if curves else set()
    return tuple((epoch, fmean(curve[epoch] for curve in curves)) for epoch in sorted(shared))


def _range(race: Race) -> tuple[float, float]:
    """One axis range for all masks, with a margin."""
    values = [value for lane in race.lanes for curve in lane.curves.values() for _, value in curve]
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = max(2.0, 0.1 * (high - low))
    return max(-2.0, low - margin), min(102.0, high + margin)
