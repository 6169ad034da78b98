"""Figures of a lesson: the curves while it trains, guess and truth in one figure, and the guesses of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import fmean
from typing import Any

from mlae_lab.core.seed_statistics import SeedStatistics, between, points
from mlae_lab.lessons.guess import Arrow, Cells, Curve, Guess, Row, Sliders, Verdict, counts
from mlae_lab.lessons.recording import Points, Results
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, band, figure, room

_COLOURS = ("#0072B2", "#D55E00")  # of Okabe and Ito
_HEIGHT = 400
_MAX_LINES = 60  # guesses of a class that are drawn one by one
_MEASURES = {
    "accuracy": ("accuracy on 200 new images, %", ".0f", " %"),
    "similarity": ("mean |cos| of two experts in a layer", ".3f", ""),
    "loss": ("loss, lower is better", ".2f", ""),
}
_YOURS, _LIVE = "your guess", "this machine"


@dataclass(frozen=True)
class LiveCurve:
    """A run that trains now. arm: of the lesson; epochs: it takes; curve and train: as in a recording."""

    arm: str
    seed: int
    epochs: int
    curve: Points = ()
    train: Points = ()


@dataclass(frozen=True)
class LiveValues:
    """What the runs of this machine gave.

    Attributes:
        by_arm: For each arm (seed, value).
        without: Loss without the chosen experts, None while it is unknown.
    """

    by_arm: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    without: float | None = None


# ---------------------------------------------------------------- while it trains


def lesson_curves_figure(results: Results, arms: Sequence[tuple[str, int]], live: Sequence[LiveCurve]) -> Figure:
    """Accuracy over the training: recorded runs dashed, runs of this machine solid. arms: with their epochs."""
    labels = {arm.name: arm.label for arm in results.lesson.arms_of(results.task)}
    data: list[dict] = []
    values = [0.0]
    for number, (arm, epochs) in enumerate(arms):
        colour = _COLOURS[number % len(_COLOURS)]
        runs = results.runs(arm)
        recorded = runs[0]
        values += [y for run in runs for _, y in run.curve]
        curve = [(x, fmean(dict(run.curve)[x] for run in runs)) for x, _ in recorded.curve]
        data.append(_line(f"{labels[arm]}, recorded", curve, epochs, colour, "dash", 1.8, marker=True))
        for entry in live:
            if entry.arm != arm:
                continue
            name = f"{labels[arm]}, {_LIVE}"
            values += [y for _, y in (*entry.train, *entry.curve)]
            data.append(_line(f"{name}, training images", entry.train, epochs, colour, "dot", 1.2, legend=False))
            data.append(_line(name, entry.curve, epochs, colour, "solid", 3.2, marker=True, legend=entry.seed == 0))
    low, high = room(0.0, max(values), least=20.0)
    is_live = any(entry.curve or entry.train for entry in live)
    title = "The real run and a recorded one" if is_live else "A recorded run"
    alt = "Line chart of accuracy over training. Recorded, after the last epoch: " + "; ".join(
        f"{labels[arm]} {results.mean(arm, measure='accuracy'):.0f} %" for arm, _ in arms
    )
    return figure(
        data, title, f"{alt}.", "lesson-curves", _HEIGHT,
        xaxis=axis("share of the training, %", range=[0, 103]),
        yaxis=axis("accuracy, %", range=[max(low, -2.0), min(high, 102.0)]),
        margin={"l": 52, "r": 16, "t": 44, "b": 44},
        **_legend(),
    )  # fmt: skip


def _line(
    name: str, curve: Sequence[tuple[float, float]], epochs: int, colour: str, dash: str, width: float,
    marker: bool = False, legend: bool = True,
) -> dict:  # fmt: skip
    return {
        "type": "scatter",
        "mode": "lines+markers" if marker else "lines",
        "name": escape(name),
        "showlegend": legend,
        "x": [round(100 * x / epochs, 2) for x, _ in curve],
        "y": [round(y, 2) for _, y in curve],
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {"size": 7, "color": colour},
        "hovertemplate": "%{y:.1f} %<extra>" + escape(name) + "</extra>",
    }


def _legend() -> dict[str, Any]:
    return {
        "showlegend": True,
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top",
            "font": {"size": 12, "color": "@ink"}, "bgcolor": "rgba(0,0,0,0)",
        },
    }  # fmt: skip


# ---------------------------------------------------------------- guess and truth


def answer_figure(results: Results, value: Any, live: LiveValues) -> Figure:
    """Guess and truth in one figure, with the variation between seeds. value: the guess, checked."""
    guess = results.lesson.guess
    if isinstance(guess, Curve):
        return _curve_answer(results, guess, value, live)
    if isinstance(guess, Verdict):
        return _verdict_answer(results, guess, value, live)
    if isinstance(guess, Cells):
        return _cells_answer(results, guess, value, live)
    return _lanes_answer(results, guess, value, live)


def _seeds_note(results: Results) -> str:
    """How many seeds a band stands for."""
    return f"{max(len(results.runs(arm.name)) for arm in results.lesson.arms_of(results.task))} seeds"


def _lanes_answer(results: Results, guess: Sliders | Row | Arrow, value: Any, live: LiveValues) -> Figure:
    """One column for each arm: seeds as small dots, mean with its 95 % interval, the guess and the run of today."""
    arms = results.lesson.arms_of(results.task)
    quantity, digits, unit = _MEASURES[results.lesson.measure]
    statistics = [results.statistics(arm.name) for arm in arms]
    x = list(range(len(arms)))
    limits = [v for s in statistics for v in (s.minimum, s.maximum, s.low, s.high) if v is not None]
    data = [
        _intervals(x, statistics),
        {
            "type": "scatter", "mode": "markers", "name": "one recorded run",
            "x": [i for i, arm in enumerate(arms) for _ in results.values(arm.name)],
            "y": [round(v, 5) for arm in arms for v in results.values(arm.name)],
            "marker": {"size": 6, "color": "@accent", "opacity": 0.55},
            "hovertemplate": f"%{{y:{digits}}}{unit}<extra>one recorded run</extra>",
        },
        *_means(x, statistics, digits, unit),
    ]  # fmt: skip
    annotations, shapes = [], []
    title = ""
    if isinstance(guess, Sliders):
        marks = [(i - 0.24, value[j]) for j, (name, _) in enumerate(guess.handles) for i in x if arms[i].name == name]
        data.append(_guess_marks(marks, digits, unit))
        limits += [y for _, y in marks]
        gaps = [value[j] - results.mean(name) for j, (name, _) in enumerate(guess.handles)]
        title = "Your guess and the result: off by " + " and ".join(f"{abs(gap):.0f}" for gap in gaps) + " points"
    elif isinstance(guess, Row):
        shapes.append(
            {
                "type": "rect", "xref": "x", "yref": "paper", "x0": value - 0.46, "x1": value + 0.46, "y0": 0, "y1": 1,
                "fillcolor": "@active", "opacity": 0.16, "line": {"width": 0}, "layer": "below",
            }
        )  # fmt: skip
        annotations.append(_text(value, 1.0, "your layer", "@active", yref="paper", yanchor="top"))
        order = sorted(arms, key=lambda arm: -results.mean(arm.name))
        place = [arm.name for arm in order].index(guess.arms[value]) + 1
        title = f"Your layer {value + 1} is number {place} of {len(arms)}; best: {order[0].label}"
    else:
        first, second = statistics[0].mean, statistics[1].mean
        span = max(limits) - min(limits)
        end = first + (0.3 * span if value == "up" else -0.3 * span)
        limits += [end]
        annotations.append(
            {
                "x": 0.62, "y": end, "ax": 0.12, "ay": first, "axref": "x", "ayref": "y", "text": "", "showarrow": True,
                "arrowhead": 3, "arrowsize": 1.2, "arrowwidth": 3, "arrowcolor": "@active",
            }
        )  # fmt: skip
        annotations.append(_text(0.64, end, f"your guess: {guess.words(value)}", "@active", xanchor="left"))
        fell = second < first
        title = f"The similarity {'falls' if fell else 'rises'}: your guess was {_yes((value == 'down') == fell)}"
    todays = [(i - 0.14, v) for i, arm in enumerate(arms) for _, v in live.by_arm.get(arm.name, ())]
    if todays:
        data.append(_live_marks(todays, digits, unit))
        limits += [v for _, v in todays]
    low, high = room(min(limits), max(limits), least=0.02 if results.lesson.measure == "similarity" else 10.0)
    names = [str(i + 1) if isinstance(guess, Row) else escape(arm.label) for i, arm in enumerate(arms)]
    alt = f"{title}. {quantity.capitalize()}, mean of {_seeds_note(results)}: " + "; ".join(
        f"{arm.label} {s.mean:{digits}}{unit}" for arm, s in zip(arms, statistics, strict=True)
    )
    return figure(
        data, title, f"{alt}.{_live_alt(todays, digits, unit)}", "lesson-answer", _HEIGHT,
        xaxis=axis(
            "layer with experts (1: input, 12: output)" if len(arms) > 4 else "",
            tickvals=x, ticktext=names, range=[-0.6, len(arms) - 0.4], showgrid=False,
        ),
        yaxis=axis(quantity, range=[max(low, 0.0) if min(limits) >= 0 else low, high]),
        annotations=annotations, shapes=shapes, margin={"l": 58, "r": 16, "t": 44, "b": 44}, **_legend(),
    )  # fmt: skip


def _curve_answer(results: Results, guess: Curve, value: Any, live: LiveValues) -> Figure:
    quantity, digits, unit = _MEASURES[results.lesson.measure]
    statistics = [results.statistics(name) for name in guess.arms]
    x = list(guess.x)
    drawn = [statistics[0].mean, *value]
    off = fmean(abs(v - s.mean) for v, s in zip(value, statistics[1:], strict=True))
    todays = [(position, v) for position, arm in zip(x, guess.arms, strict=True) for _, v in live.by_arm.get(arm, ())]
    limits = [v for s in statistics for v in (s.low, s.high, s.mean) if v is not None] + drawn
    low, high = room(min(limits), max(limits), least=20.0)
    title = f"Your curve is off by {off:.0f} points on average"
    data = [
        *band(
            f"95 % interval of the mean, {_seeds_note(results)}",
            x,
            [s.mean if s.low is None else s.low for s in statistics],
            [s.mean if s.high is None else s.high for s in statistics],
            "@faint",
        ),
        {
            "type": "scatter", "mode": "lines+markers", "name": f"recorded, mean of {_seeds_note(results)}",
            "x": x, "y": [round(s.mean, 2) for s in statistics], "line": {"color": "@accent", "width": 3},
            "marker": {"size": 8, "color": "@accent"},
            "hovertemplate": f"p = %{{x}}: %{{y:{digits}}}{unit}<extra>recorded</extra>",
        },
        {
            "type": "scatter", "mode": "lines+markers", "name": _YOURS, "x": x, "y": [round(v, 2) for v in drawn],
            "line": {"color": "@active", "width": 2.4, "dash": "dot"},
            "marker": {"size": 10, "symbol": "diamond", "color": "@active"},
            "hovertemplate": f"p = %{{x}}: %{{y:{digits}}}{unit}<extra>{_YOURS}</extra>",
        },
    ]  # fmt: skip
    data[0]["showlegend"] = True
    if todays:
        data.append(_live_marks(todays, digits, unit))
    listed = "; ".join(f"p = {p:g}: {s.mean:.0f} %, your guess {v:.0f} %"
                       for p, s, v in zip(x, statistics, drawn, strict=True))  # fmt: skip
    return figure(
        data, title, f"{title}. {quantity.capitalize()}: {listed}.{_live_alt(todays, digits, unit)}", "lesson-answer",
        _HEIGHT,
        xaxis=axis(guess.x_label, tickvals=x, range=[-0.04, max(x) + 0.04]),
        yaxis=axis(quantity, range=[max(low, 0.0), min(high, 102.0)]),
        margin={"l": 52, "r": 16, "t": 44, "b": 44}, **_legend(),
    )  # fmt: skip


def _verdict_answer(results: Results, guess: Verdict, value: Any, live: LiveValues) -> Figure:
    """B − A of each pair of seeds, the mean with its interval, and a line at 0."""
    gap = results.difference(guess.first, guess.second)
    pairs = [
        (run.seed, other.accuracy - run.accuracy)
        for run, other in zip(results.runs(guess.first), results.runs(guess.second), strict=True)
    ]
    first = dict(live.by_arm.get(guess.first, ()))
    second = dict(live.by_arm.get(guess.second, ()))
    todays = [(float(seed), second[seed] - first[seed]) for seed in sorted(first) if seed in second]
    mean_at = float(len(pairs))
    answer = "cannot tell"
    if gap.low is not None and gap.high is not None and not gap.low <= 0 <= gap.high:
        answer = "B" if gap.mean > 0 else "A"
    limits = [0.0, *(v for _, v in pairs), *(v for _, v in todays)]
    limits += [v for v in (gap.low, gap.high) if v is not None]
    low, high = room(min(limits), max(limits), least=4.0)
    interval = f" (95 % interval {between(gap.low, gap.high)})" if gap.low is not None and gap.high is not None else ""
    title = f"B − A: {points(gap.mean, signed=True)} points{interval}"
    data = [
        _intervals([mean_at], [gap]),
        {
            "type": "scatter", "mode": "markers", "name": "one recorded pair of runs",
            "x": [seed for seed, _ in pairs], "y": [round(v, 3) for _, v in pairs],
            "marker": {"size": 10, "color": "@accent"},
            "hovertemplate": "seed %{x}: %{y:+.1f} points<extra>recorded</extra>",
        },
        *_means([mean_at], [gap], "+.1f", ""),
    ]  # fmt: skip
    shapes: list[dict] = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": "@ink", "width": 1.2}}
    ]
    side = {"A": (low, 0.0), "B": (0.0, high)}.get(value[0])
    if side:  # the half in which the differences should be
        shapes.append(
            {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": side[0], "y1": side[1], "fillcolor": "@active",
             "opacity": 0.1, "line": {"width": 0}, "layer": "below"}
        )  # fmt: skip
    if todays:
        data.append(_live_marks(todays, "+.1f", " points"))
    alt = f"{title}. Pairs: " + "; ".join(f"seed {seed} {v:+.1f}" for seed, v in pairs)
    return figure(
        data, title, f"{alt}. Your guess: {guess.words(value)}; these seeds say: {answer}.", "lesson-answer", _HEIGHT,
        xaxis=axis(
            "", tickvals=[*(float(seed) for seed, _ in pairs), mean_at],
            ticktext=[*(f"seed {seed}" for seed, _ in pairs), "mean"], range=[-0.6, mean_at + 0.6], showgrid=False,
        ),
        yaxis=axis("B − A, points of accuracy", range=[low, high], tickformat="+~g"),
        shapes=shapes,
        annotations=[
            _text(0.0, 0.02 if value[0] == "A" else 1.0, f"your guess: {value[0]}", "@active", xref="paper",
                  yref="paper", xanchor="left", yanchor="bottom" if value[0] == "A" else "top"),
        ],
        margin={"l": 58, "r": 16, "t": 44, "b": 44}, **_legend(),
    )  # fmt: skip


def cells_estimate(results: Results, value: Sequence[Sequence[int]]) -> float:
    """The loss without some experts, by adding what each of them costs alone."""
    what = results.whatif
    return what["trained"]["loss"] + sum(what["loss"][row][column] or 0.0 for row, column in value)


def _cells_answer(results: Results, guess: Cells, value: Any, live: LiveValues) -> Figure:
    what = results.whatif
    yours = cells_estimate(results, value) if live.without is None else live.without
    chance = [entry["loss"] for entry in what["random"]]
    top, trained = what["top"]["loss"], what["trained"]["loss"]
    cost, best = yours - trained, top - trained
    title = f"Your five cost {cost:.2f} of loss, the five of the rule {best:.2f}"
    names = [f"your {guess.count}", f"{guess.count} at random, {len(chance)} times", f"the {guess.count} of the rule"]
    low, high = room(min(trained, *chance, yours), max(top, yours, *chance), least=0.2)
    data = [
        {
            "type": "scatter", "mode": "markers", "name": "at random", "x": _jitter(1, len(chance)),
            "y": [round(v, 4) for v in chance], "marker": {"size": 8, "color": "@quiet", "opacity": 0.7},
            "hovertemplate": "loss %{y:.2f}<extra>five at random</extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "by the rule", "x": [2], "y": [round(top, 4)],
            "marker": {"size": 15, "color": "@accent"}, "hovertemplate": "loss %{y:.2f}<extra>by the rule</extra>",
        },
        {
            "type": "scatter", "mode": "markers", "x": [0], "y": [round(yours, 4)],
            "name": "yours, evaluated now" if live.without is not None else "yours, estimated from single experts",
            "marker": {"size": 15, "symbol": "diamond", "color": "@active"},
            "hovertemplate": "loss %{y:.2f}<extra>yours</extra>",
        },
    ]  # fmt: skip
    alt = (
        f"{title}. As trained the loss is {trained:.2f}; without five random experts {fmean(chance):.2f} on average, "
        f"from {min(chance):.2f} to {max(chance):.2f}."
    )
    return figure(
        data, title, alt, "lesson-answer", _HEIGHT,
        xaxis=axis("", tickvals=[0, 1, 2], ticktext=names, range=[-0.5, 2.5], showgrid=False),
        yaxis=axis("loss without them, lower is better", range=[low, high]),
        shapes=[{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": trained, "y1": trained,
                 "line": {"color": "@quiet", "width": 1.5, "dash": "dash"}}],
        annotations=[_text(1.0, trained, "as trained", "@quiet", xref="paper", xanchor="right", yanchor="bottom")],
        margin={"l": 58, "r": 16, "t": 44, "b": 44}, **_legend(),
    )  # fmt: skip


def _jitter(centre: float, count: int) -> list[float]:
    """Positions next to each other, so that equal values stay visible."""
    return [round(centre + 0.24 * ((7 * i % count) / max(1, count - 1) - 0.5), 3) for i in range(count)]


def _yes(is_correct: bool) -> str:
    return "correct" if is_correct else "not correct"


def _intervals(x: Sequence[float], statistics: Sequence[SeedStatistics]) -> dict:
    """The 95 % intervals as wide bars behind the means."""
    known = [(at, s.low, s.high) for at, s in zip(x, statistics, strict=True) if s.low is not None]
    return {
        "type": "bar", "name": "95 % interval of the mean", "x": [at for at, _, _ in known],
        "base": [round(low, 5) for _, low, _ in known],
        "y": [round((high or low) - low, 5) for _, low, high in known],
        "width": 0.5 if len(x) > 4 else 0.28, "hoverinfo": "skip",
        "marker": {"color": "@faint", "line": {"width": 1, "color": "@middle"}},
    }  # fmt: skip


def _means(x: Sequence[float], statistics: Sequence[SeedStatistics], digits: str, unit: str) -> list[dict]:
    """The means as lines, and their values as text above the interval or, where there is room, next to it."""
    is_narrow = len(x) > 4
    tops = [s.maximum if s.high is None else max(s.maximum, s.high) for s in statistics]
    return [
        {
            "type": "scatter", "mode": "markers", "name": "mean over seeds", "x": list(x),
            "y": [round(s.mean, 5) for s in statistics], "cliponaxis": False,
            "marker": {"size": 16 if is_narrow else 22, "symbol": "line-ew-open", "color": "@accent",
                       "line": {"width": 3, "color": "@accent"}},
            "hovertemplate": f"mean %{{y:{digits}}}{unit}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "text", "name": "values", "showlegend": False, "hoverinfo": "skip",
            "x": list(x) if is_narrow else [at + 0.17 for at in x],
            "y": [round(top, 5) for top in tops] if is_narrow else [round(s.mean, 5) for s in statistics],
            "text": [f"{s.mean:{digits}}{'' if is_narrow else unit}" for s in statistics],
            "textposition": "top center" if is_narrow else "middle right",
            "textfont": {"size": 13 if is_narrow else 15, "color": "@ink"}, "cliponaxis": False,
        },
    ]  # fmt: skip


def _guess_marks(marks: Sequence[tuple[float, float]], digits: str, unit: str) -> dict:
    return {
        "type": "scatter", "mode": "markers", "name": _YOURS, "x": [at for at, _ in marks],
        "y": [v for _, v in marks],
        "marker": {"size": 14, "symbol": "diamond", "color": "@active"}, "cliponaxis": False,
        "hovertemplate": f"%{{y:{digits}}}{unit}<extra>{_YOURS}</extra>",
    }  # fmt: skip


def _live_marks(marks: Sequence[tuple[float, float]], digits: str, unit: str) -> dict:
    return {
        "type": "scatter", "mode": "markers", "name": f"run on {_LIVE}", "x": [at for at, _ in marks],
        "y": [round(v, 5) for _, v in marks], "cliponaxis": False,
        "marker": {"size": 14, "symbol": "circle-open", "color": "@ink", "line": {"width": 2.4, "color": "@ink"}},
        "hovertemplate": f"%{{y:{digits}}}{unit}<extra>run on {_LIVE}</extra>",
    }  # fmt: skip


def _live_alt(marks: Sequence[tuple[float, float]], digits: str, unit: str) -> str:
    return f" Runs on {_LIVE}: {', '.join(f'{v:{digits}}{unit}' for _, v in marks)}." if marks else ""


def _text(x: float, y: float, text: str, colour: str, **more: Any) -> dict:
    return {
        "x": x, "y": y, "text": escape(text), "showarrow": False, "xanchor": "center", "yanchor": "middle",
        "font": {"size": 13, "color": colour}, "bgcolor": "@surface", **more,
    }  # fmt: skip


# ---------------------------------------------------------------- the class


def class_guess_figure(guess: Guess, values: Sequence[Any]) -> Figure:
    """What all people of this lab guessed. values: checked, at least one."""
    title = f"{len(values)} {'guess' if len(values) == 1 else 'guesses'} in this lab"
    if isinstance(guess, Curve):
        return _class_curves(guess, values, title)
    if isinstance(guess, Cells):
        return _class_cells(guess, values, title)
    if isinstance(guess, Sliders):
        data = []
        for number, (_, label) in enumerate(guess.handles):
            bins = [0] * 10
            for value in values:
                share = (value[number] - guess.low) / (guess.high - guess.low)
                bins[min(9, int(10 * share))] += 1
            step = (guess.high - guess.low) / 10
            data.append(_bars(label, [f"{guess.low + i * step:g}–{guess.low + (i + 1) * step:g}" for i in range(10)],
                              bins, _COLOURS[number % 2]))  # fmt: skip
        alt = f"{title}. Means: " + ", ".join(
            f"{label} {fmean(value[i] for value in values):.0f} {guess.unit}"
            for i, (_, label) in enumerate(guess.handles)
        )
        return _class_figure(data, title, alt, f"guess, {guess.unit}", legend=True)
    table = counts(guess, values)
    alt = f"{title}: " + ", ".join(f"{name} {count}" for name, count in table.items() if count)
    x_title = "layer" if isinstance(guess, Row) else ""
    return _class_figure([_bars("guesses", list(table), list(table.values()), "@active")], title, alt, x_title)


def _bars(name: str, x: Sequence[str], y: Sequence[int], colour: str) -> dict:
    return {
        "type": "bar", "name": escape(name), "x": list(x), "y": list(y), "marker": {"color": colour},
        "hovertemplate": "%{x}: %{y}<extra>" + escape(name) + "</extra>",
    }  # fmt: skip


def _class_figure(data: list[dict], title: str, alt: str, x_title: str, legend: bool = False) -> Figure:
    most = max((count for trace in data for count in trace["y"]), default=1)
    return figure(
        data, title, f"{alt}.", "lesson-class", 260,
        xaxis=axis(x_title, type="category", showgrid=False),
        yaxis=axis("people", range=[0, most * 1.12], **({"dtick": 1} if most < 6 else {})),
        margin={"l": 44, "r": 16, "t": 44, "b": 44}, **({**_legend()} | {"legend": {**_legend()["legend"], "y": -0.34}}
                                                        if legend else {}),
    )  # fmt: skip


def _class_curves(guess: Curve, values: Sequence[Any], title: str) -> Figure:
    x = list(guess.x[1:])
    means = [fmean(value[i] for value in values) for i in range(len(x))]
    data: list[dict] = [
        {"type": "scatter", "mode": "lines", "name": "one guess", "x": x, "y": list(value), "opacity": 0.35,
         "line": {"color": "@quiet", "width": 1.2}, "hoverinfo": "skip"}
        for value in values[-_MAX_LINES:]
    ]  # fmt: skip
    data.append({"type": "scatter", "mode": "lines+markers", "name": "mean", "x": x,
                 "y": [round(mean, 2) for mean in means], "line": {"color": "@active", "width": 3},
                 "marker": {"size": 8, "color": "@active"}})  # fmt: skip
    alt = f"{title}. Means: " + ", ".join(f"{mean:.0f} % at {p:g}" for p, mean in zip(x, means, strict=True))
    return figure(
        data, title, f"{alt}.", "lesson-class", 260,
        xaxis=axis(guess.x_label, tickvals=x), yaxis=axis("guessed, %", range=[guess.low, guess.high + 2]),
        margin={"l": 44, "r": 16, "t": 44, "b": 44},
    )  # fmt: skip


def _class_cells(guess: Cells, values: Sequence[Any], title: str) -> Figure:
    table = [[0] * guess.columns for _ in range(guess.rows)]
    for value in values:
        for row, column in value:
            table[row][column] += 1
    most = max(max(row) for row in table)
    data = [
        {
            "type": "heatmap", "x": [str(i + 1) for i in range(guess.columns)],
            "y": [str(i + 1) for i in range(guess.rows)], "z": table, "zmin": 0, "zmax": most,
            "colorscale": SEQUENTIAL, "showscale": False, "xgap": 2, "ygap": 2,
            "hovertemplate": "layer %{y}, expert %{x}: picked %{z} times<extra></extra>",
        }
    ]  # fmt: skip
    return figure(
        data, title, f"{title}. Each cell shows how often it was picked, at most {most} times.", "lesson-class", 340,
        xaxis=axis("expert", type="category", showgrid=False),
        yaxis=axis("layer", type="category", autorange="reversed", showgrid=False),
        margin={"l": 44, "r": 16, "t": 44, "b": 44},
    )  # fmt: skip
