"""Figures of a study: arms with intervals, differences to the reference, factors, costs, curves."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import Any

from mlae_lab.core.config import RunConfig
from mlae_lab.core.inference import Comparison
from mlae_lab.core.seed_statistics import SeedStatistics, between, points
from mlae_lab.core.settings import settings_of
from mlae_lab.core.study import PLAN_FACTORS, shown
from mlae_lab.data.listing import counted
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.study_results import ArmResult, Results, last_stage, of_task
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, band, figure, room, thinned
from mlae_lab.ui.figures.methods import label_sides

Curves = Mapping[str, Sequence[Curve]]  # arm to one curve for each seed
MAX_COLOURED = 7  # lines with separate colours
MAX_FACTOR_FIGURES = 4
MAX_ROWS = 24  # arms of a dot plot, without the reference
# Okabe and Ito's colours in an order that keeps neighbours apart; black and yellow are readable in one theme only.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C7AE6")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
MAX_BANDS = 3  # more would cover each other
_ROW = 40  # pixels of an arm
_TOP, _BOTTOM = 44, 44
_COST_SIDES = ("middle left", "top center", "bottom center", "middle right")  # the line leaves a point to the right
_COST_WIDTH = 400  # pixels of the plot of costs in a wide window
_LONG = 44  # characters of an arm's name
# verdict: symbol, colour
_SIGNS = {
    "better": ("triangle-up", "@accent"),
    "worse": ("triangle-down", "@high"),
    "equivalent": ("square", "@ink"),
    "unsettled": ("circle-open", "@ink"),
    "reference": ("diamond-open", "@quiet"),
}
SIGNS_NOTE = (
    "▲ better and ▼ worse than the reference (Holm's procedure, 5 % for all comparisons together), ■ no difference "
    "larger than the margin, ○ not distinguished, ◇ the reference."
)


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study. is_wide: it takes the width of the page."""

    figure: Figure
    caption: str
    is_wide: bool = False


def study_figures(results: Results, curves: Curves, hidden: Collection[str] = (), task: str = "") -> list[StudyFigure]:
    """All figures that the factors and results of a study on one task allow, the most important first.

    Args:
        results: Of the study.
        curves: Of its arms.
        hidden: Names of arms that are left out; the reference stays as a line.
        task: Of a study on several tasks the one that is drawn, "" for the first.
    """
    results = last_stage(of_task(results, task))
    arms = [result for result in results.ranked if result.arm.name not in hidden]
    if not arms:
        return []
    several = len(results.study.seeds) > 1
    interval = "bar: 95 % interval of the mean (Student's t)" if several else "one seed gives no interval"
    cut = f" The {MAX_ROWS} best of {len(arms)} arms; the table has all." if len(arms) > MAX_ROWS + 1 else ""
    drawn = [
        StudyFigure(
            arms_figure(results, arms),
            f"Large: mean over seeds; small: a seed; {interval}; dashed line: the reference. {SIGNS_NOTE}{cut}",
        )
    ]
    if any(result.comparison for result in arms):
        margin = results.study.margin
        shade = "" if margin is None else f" Shaded: differences below the margin of {points(margin)} points."
        drawn.append(
            StudyFigure(
                difference_figure(results, arms),
                "Mean over seeds of the difference to the reference with the same seed, in the order of the arms. Bar: "
                "its interval at the level at which Holm's procedure tests the arm, so that it leaves out 0 exactly "
                f"where a difference is found.{shade} The intervals cover the variation between seeds, not between "
                "evaluation images, which are the same in all runs.",
            )
        )
    factors = varying(arms)
    numeric = [name for name in factors if len(numbers(arms, name)) > 1]
    for name in numeric[:MAX_FACTOR_FIGURES]:
        drawn.append(
            StudyFigure(
                factor_figure(results, arms, name),
                _factor_caption(arms, name),
            )
        )
    if len(factors) == 2 and _is_grid(arms, *factors):
        drawn.append(
            StudyFigure(
                heat_figure(results, arms, *factors),
                "Mean over seeds for each combination; empty: no such arm. Thick frame: the best; dashed: the "
                "reference.",
            )
        )
    elif len(factors) > 2:
        drawn.append(
            StudyFigure(
                parallel_figure(results, arms, factors),
                "A line is an arm: its value of each factor, and its mean accuracy on the last axis. Thick: the best; "
                "dashed: the reference.",
                is_wide=True,
            )
        )
    for quantity in ("parameters", "seconds"):
        known = [result for result in arms if getattr(result, quantity) is not None]
        if len({getattr(result, quantity) for result in known}) > 1:
            drawn.append(
                StudyFigure(
                    cost_figure(results, known, quantity),
                    "Line: the Pareto front, the arms for which none is both cheaper and more accurate. Means differ "
                    "by chance, too: see the intervals."
                    + (
                        " Seconds: median training time of a run, on the machine and under the load of that time."
                        if quantity == "seconds"
                        else " Without the head."
                    ),
                )
            )
    if any(len(curve) > 1 for result in arms for curve in curves.get(result.arm.name, ())):
        drawn.append(
            StudyFigure(
                curves_figure(results, arms, curves),
                "Mean over seeds at the epochs that all seeds of an arm have reached. A click on a name hides or shows "
                "the line; a double click shows it alone."
                + (
                    f" The {MAX_COLOURED} best arms and the reference have names, the others are grey."
                    if len(arms) > MAX_COLOURED + 1
                    else ""
                ),
                is_wide=sum(not entry.is_wide for entry in drawn) % 2 == 0,
            )
        )
    return sorted(drawn, key=lambda entry: entry.is_wide)  # two to a row, then the wide ones


# ---------------------------------------------------------------- arms


def arms_figure(results: Results, arms: Sequence[ArmResult]) -> Figure:
    """One row for each arm, the best on top: mean, 95 % interval and single seeds; a line at the reference's mean."""
    split = arms[0].arm.config.protocol
    arms = _best(arms, results)
    rows = list(range(len(arms) - 1, -1, -1))
    values = [value for result in arms for value in result.values.values()]
    values += [end for result in arms for end in _ends(_statistics(result))]
    reference = results.reference.statistics if len(set(results.study.references.values())) == 1 else None
    low, high = room(min(values), max(values), least=1.0)
    low, high = max(low, -1.0), min(high, 101.0)
    seeds = [
        (value, row, seed) for result, row in zip(arms, rows, strict=True) for seed, value in result.values.items()
    ]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "seeds",
            "meta": "decoration",
            "x": [round(value, 3) for value, _, _ in seeds],
            "y": [row for _, row, _ in seeds],
            "customdata": [seed for _, _, seed in seeds],
            "hovertemplate": "seed %{customdata}: %{x:.1f} %<extra></extra>",
            "marker": {"size": 5, "color": "@quiet", "opacity": 0.55},
        }
    ]
    data += _rows(
        arms, rows, [_statistics(result).mean for result in arms],
        [_ends(_statistics(result)) for result in arms], "%{x:.1f} %", results,
    )  # fmt: skip
    best = arms[0]
    title = f"Highest mean {_statistics(best).mean:.1f} %: {_short(best.arm.name, 28)}"
    alt = f"Dot plot of accuracy on {split} by arm, the best first: " + "; ".join(
        f"{result.arm.name} {mean_of(result)}" for result in arms[:12]
    )
    return figure(
        data, title, f"{alt}{_more(arms)}.", "study-arms", _TOP + _BOTTOM + _ROW * len(arms),
        xaxis=axis(f"top-1 accuracy on {split}, %", range=[low, high]),
        yaxis=_row_axis(len(arms)),
        annotations=_row_names(arms, rows, [mean_of(result) for result in arms]),
        shapes=[_line_at(reference.mean, dash="dash", colour="@quiet")] if reference else [],
        margin={"l": 8, "r": 16, "t": _TOP, "b": _BOTTOM},
    )  # fmt: skip


def difference_figure(results: Results, arms: Sequence[ArmResult]) -> Figure:
    """One row for each arm, in the order of `arms_figure`: its difference to the reference with its interval."""
    margin = results.study.margin
    compared = [result for result in _best(arms, results) if result.comparison or result.verdict == "reference"]
    rows = list(range(len(compared) - 1, -1, -1))
    means = [result.comparison.mean if result.comparison else 0.0 for result in compared]
    ends = [_interval(result.comparison) for result in compared]
    values = [0.0, *means, *(end for pair in ends for end in pair), *((-margin, margin) if margin else ())]
    low, high = room(min(values), max(values), least=1.0)
    texts = ["reference" if result.comparison is None else _difference_text(result.comparison) for result in compared]
    different = sum(bool(result.comparison and result.comparison.is_different) for result in arms)
    others = sum(result.comparison is not None for result in arms)
    title = f"Difference to {_short(results.study.reference_title, 30)}: {different} of {others} distinguished"
    shapes = [_line_at(0.0)]
    if margin:
        shapes.insert(
            0,
            {"type": "rect", "yref": "paper", "x0": -margin, "x1": margin, "y0": 0, "y1": 1, "fillcolor": "@faint",
             "line": {"width": 0}, "layer": "below"},
        )  # fmt: skip
    alt = (
        f"Dot plot of the difference in accuracy to {results.study.reference_title}, in percentage points: "
        + "; ".join(f"{result.arm.name} {text}" for result, text in list(zip(compared, texts, strict=True))[:12])
    )
    return figure(
        _rows(compared, rows, means, ends, "%{x:+.2f} points", results),
        title, f"{alt}{_more(compared)}.", "study-differences", _TOP + _BOTTOM + _ROW * len(compared),
        xaxis=axis("difference, points of top-1 accuracy", range=[low, high], tickformat="+~g"),
        yaxis=_row_axis(len(compared)),
        annotations=_row_names(compared, rows, texts),
        shapes=shapes,
        margin={"l": 8, "r": 16, "t": _TOP, "b": _BOTTOM},
    )  # fmt: skip


def _best(arms: Sequence[ArmResult], results: Results) -> list[ArmResult]:
    """The best arms, as many as a dot plot can show, and the reference."""
    if len(arms) <= MAX_ROWS + 1:
        return list(arms)
    return [*arms[:MAX_ROWS], *(entry for entry in arms[MAX_ROWS:] if entry.arm.name == results.study.reference)]


def sign_of(result: ArmResult, reference: str) -> str:
    """What the comparison of an arm found: a name of `_SIGNS`."""
    comparison = result.comparison
    if result.arm.name == reference or result.verdict == "reference":
        return "reference"
    if comparison is None:
        return "unsettled"
    if comparison.is_different:
        return "better" if comparison.mean > 0 else "worse"
    return "equivalent" if comparison.equivalent else "unsettled"


def mean_of(result: ArmResult) -> str:
    """The mean of an arm with half the width of its interval: "97.2 ± 0.4 %"; "–" without a result."""
    statistics = result.statistics
    if statistics is None:
        return "–"
    if statistics.interval is None:
        return f"{statistics.mean:.1f} %"
    _, low, high = statistics.interval
    return f"{statistics.mean:.1f} ± {max(high - statistics.mean, statistics.mean - low):.1f} %"


def _rows(
    arms: Sequence[ArmResult], rows: Sequence[int], means: Sequence[float], ends: Sequence[tuple[float, ...]],
    hover: str, results: Results,
) -> list[dict[str, Any]]:  # fmt: skip
    """One trace for each kind of verdict: dots with intervals."""
    signs = [sign_of(result, results.study.reference) for result in arms]
    traces = []
    for sign, (symbol, colour) in _SIGNS.items():
        chosen = [i for i, known in enumerate(signs) if known == sign]
        if not chosen:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": sign,
                "x": [round(means[i], 3) for i in chosen],
                "y": [rows[i] for i in chosen],
                "text": [escape(arms[i].arm.name) for i in chosen],
                "customdata": [escape(arms[i].verdict) for i in chosen],
                "hovertemplate": "%{text}: " + hover + "<br>%{customdata}<extra></extra>",
                "cliponaxis": False,
                "marker": {"size": 12, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(ends[i][1] - means[i], 3) if ends[i] else None for i in chosen],
                    "arrayminus": [round(means[i] - ends[i][0], 3) if ends[i] else None for i in chosen],
                    "color": colour,
                    "thickness": 1.8,
                    "width": 4,
                },
            }
        )
    return traces


def _row_names(arms: Sequence[ArmResult], rows: Sequence[int], texts: Sequence[str]) -> list[dict]:
    """The name of each arm above its row: long names need no margin, on a phone either."""
    return [
        {
            "xref": "paper",
            "x": 0,
            "y": row,
            "text": f"<b>{escape(_short(result.arm.name))}</b>  {escape(text)}",
            "xanchor": "left",
            "yanchor": "middle",
            "align": "left",
            "yshift": 17,
            "showarrow": False,
            "bgcolor": "@surface",
            "font": {"size": 12, "color": "@ink"},
        }
        for result, row, text in zip(arms, rows, texts, strict=True)
    ]


def _row_axis(count: int) -> dict:
    return axis(
        "", range=[-0.45, count - 0.15], tickvals=list(range(count)), showticklabels=False, fixedrange=True,
    )  # fmt: skip


def _line_at(x: float, dash: str = "solid", colour: str = "@ink") -> dict:
    return {
        "type": "line", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "layer": "below",
        "line": {"color": colour, "width": 1.4, "dash": dash},
    }  # fmt: skip


def _statistics(result: ArmResult) -> SeedStatistics:
    assert result.statistics is not None
    return result.statistics


def _ends(statistics: SeedStatistics) -> tuple[float, ...]:
    return statistics.interval[1:] if statistics.interval else ()


def _interval(comparison: Comparison | None) -> tuple[float, ...]:
    if comparison is None or comparison.low is None or comparison.high is None:
        return ()
    return comparison.low, comparison.high


def _difference_text(comparison: Comparison) -> str:
    mean = points(comparison.mean, signed=True)
    ends = _interval(comparison)
    return f"{mean} ({between(ends[0], ends[1])})" if ends else mean


def _short(name: str, most: int = _LONG) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _more(arms: Sequence[ArmResult], most: int = 12) -> str:
    return f"; and {len(arms) - most} more" if len(arms) > most else ""


# ---------------------------------------------------------------- factors


def varying(arms: Sequence[ArmResult]) -> list[str]:
    """The factors that have two or more values among arms, in their order."""
    values: dict[str, set[str]] = {}
    for result in arms:
        for name, value in result.arm.values:
            values.setdefault(name, set()).add(value)
    return [name for name, known in values.items() if len(known) > 1]


def numbers(arms: Sequence[ArmResult], name: str) -> list[float]:
    """The different values of a factor, sorted; none if one of them is no number."""
    texts = {value for result in arms if (value := dict(result.arm.values).get(name)) is not None}
    try:
        values = sorted(map(float, texts))
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _factor_caption(arms: Sequence[ArmResult], name: str) -> str:
    values = [dict(result.arm.values) for result in arms]
    others = [factor for factor in varying(arms) if factor != name]
    lines = len({tuple(of_arm.get(other) for other in others) for of_arm in values if name in of_arm})
    text = f"Mean over seeds over {_title(name)}, one line for each value of the other factors."
    if lines <= 1:
        text = f"Mean over seeds over {_title(name)}."
    if lines <= MAX_BANDS and any(_statistics(result).interval for result in arms):
        text += " Band: 95 % interval of the mean (Student's t)."
    elif lines > MAX_COLOURED:
        text += f" The {MAX_COLOURED} lines with the highest means have names, the others are grey."
    if any(name not in of_arm for of_arm in values):
        text += " Dashed: an arm for which this factor has no meaning."
    return text


def factor_figure(results: Results, arms: Sequence[ArmResult], name: str) -> Figure:
    """Accuracy over a numeric factor with its interval as a band, one line for each value of the other factors."""
    others = [factor for factor in varying(arms) if factor != name]
    lines: dict[tuple[tuple[str, str], ...], list[tuple[float, ArmResult]]] = {}
    without = []
    for result in arms:
        values = dict(result.arm.values)
        if name not in values:
            without.append(result)
            continue
        key = tuple((other, values[other]) for other in others if other in values)
        lines.setdefault(key, []).append((float(values[name]), result))
    values_of = numbers(arms, name)
    logarithmic = min(values_of) > 0 and max(values_of) / min(values_of) >= 10
    reference = results.reference
    levels = [reference] if reference.statistics and (reference in without or reference not in arms) else without[:1]
    single, banded = len(lines) == 1, len(lines) <= MAX_BANDS
    drawn = [*(result for line in lines.values() for _, result in line), *levels]
    ends = [_statistics(result).mean for result in drawn]
    if banded:
        ends += [end for result in drawn for end in _ends(_statistics(result))]
    low, high = room(min(ends), max(ends), least=1.0)
    ranked = sorted(lines, key=lambda key: -max(_statistics(result).mean for _, result in lines[key]))
    bands: list[dict] = []
    data: list[dict] = []
    for number, key in enumerate(ranked):
        line = sorted(lines[key], key=lambda entry: entry[0])
        coloured = number < MAX_COLOURED
        colour = "@accent" if single else _COLOURS[number] if coloured else "@quiet"
        title = ", ".join(shown(*pair) for pair in key) or "arms"
        known = [(x, *_ends(_statistics(result))) for x, result in line if _ends(_statistics(result))]
        if banded:
            bands += band(
                f"95 % interval, {title}", [x for x, *_ in known], [ends[1] for ends in known],
                [ends[2] for ends in known], colour, opacity=0.16,
            )  # fmt: skip
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(title),
                "showlegend": not single and coloured,
                "x": [x for x, _ in line],
                "y": [round(_statistics(result).mean, 3) for _, result in line],
                "customdata": [mean_of(result) for _, result in line],
                "line": {"color": colour, "width": 2.5 if coloured else 1, "dash": _DASHES[number % 7]},
                "marker": {"size": 8 if coloured else 4, "color": colour, "symbol": _SYMBOLS[number % 7]},
                "hovertemplate": _title(name) + " %{x}: %{customdata}<extra>" + escape(title) + "</extra>",
            }
        )
    for entry in bands:
        entry["showlegend"] = False
    best = max((entry for line in lines.values() for entry in line), key=lambda entry: _statistics(entry[1]).mean)
    title = f"Highest mean at {_title(name)} = {best[0]:g}"
    rows = 0 if single else min(len(lines), MAX_COLOURED)
    alt = f"Line chart of accuracy over {_title(name)}. {title}. " + "; ".join(
        f"{x:g}: {mean_of(result)}" for x, result in sorted(lines[ranked[0]], key=lambda entry: entry[0])
    )
    return figure(
        [*bands, *data], title, f"{alt}.", f"study-{name.replace('_', '-')}", 330 + 19 * rows,
        xaxis=axis(
            _title(name) + (" (log)" if logarithmic else ""), **({"type": "log"} if logarithmic else {}),
            tickvals=values_of, ticktext=[f"{value:g}" for value in values_of],
        ) if len(values_of) <= 8 else axis(_title(name), **({"type": "log"} if logarithmic else {})),
        yaxis=axis("top-1 accuracy, %", range=[low, high]),
        shapes=[_level(_statistics(result).mean) for result in levels],
        annotations=[_level_name(_statistics(result).mean, result.arm.name) for result in levels],
        margin={"l": 52, "r": 16, "t": _TOP, "b": _BOTTOM},
        **_legend(rows),
    )  # fmt: skip


def _is_grid(arms: Sequence[ArmResult], across: str, down: str) -> bool:
    """Whether at least half of the combinations of two factors are arms."""
    return 2 * len(arms) >= len(_values(arms, across)) * len(_values(arms, down))


def heat_figure(results: Results, arms: Sequence[ArmResult], across: str, down: str) -> Figure:
    """Mean accuracy for each combination of two factors."""
    columns, rows = _values(arms, across), _values(arms, down)
    if len(rows) > len(columns):
        across, down, columns, rows = down, across, rows, columns
    cells: dict[tuple[str, str], ArmResult] = {}
    for result in arms:
        values = dict(result.arm.values)
        cells[values.get(across, ""), values.get(down, "")] = result
    columns += [""] * any(x == "" for x, _ in cells)
    rows += [""] * any(y == "" for _, y in cells)
    means = [_statistics(result).mean for result in arms]
    names_x, names_y = [_value(across, text) for text in columns], [_value(down, text) for text in rows]
    z = [[round(_statistics(cells[x, y]).mean, 3) if (x, y) in cells else None for x in columns] for y in rows]
    low, high = min(means), max(means)
    best = max(cells, key=lambda cell: _statistics(cells[cell]).mean)
    reference = next((cell for cell, result in cells.items() if result.arm.name == results.study.reference), None)
    bright = low + 0.66 * (high - low)  # above it the cells need letters in the colour of the surface
    labels = [
        {
            "x": i, "y": j, "text": f"{value:.1f}", "showarrow": False,
            "font": {"size": 13, "color": "@surface" if value > bright else "@ink"},
        }
        for j, row in enumerate(z) for i, value in enumerate(row) if value is not None
    ] if len(columns) <= 14 else []  # fmt: skip
    frames = [_frame(columns.index(best[0]), rows.index(best[1]), "solid", 3)]
    if reference is not None and reference != best:
        frames.append(_frame(columns.index(reference[0]), rows.index(reference[1]), "dash", 2))
    title = f"{_title(across).capitalize()} × {_title(down)}: best {_statistics(cells[best]).mean:.1f} %"
    alt = f"Heat map of accuracy over {_title(across)} and {_title(down)}. " + "; ".join(
        f"{result.arm.name} {_statistics(result).mean:.1f} %" for result in arms[:20]
    )
    return figure(
        [
            {
                "type": "heatmap",
                "name": "accuracy",
                "x": list(range(len(columns))),
                "y": list(range(len(rows))),
                "z": z,
                "zmin": low - (0.5 if high == low else 0),
                "zmax": high + (0.5 if high == low else 0),
                "colorscale": SEQUENTIAL,
                "showscale": False,
                "xgap": 3,
                "ygap": 3,
                "hoverongaps": False,
                "customdata": [
                    [
                        f"{escape(cells[x, y].arm.name)}: {mean_of(cells[x, y])}" if (x, y) in cells else ""
                        for x in columns
                    ]
                    for y in rows
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        ],
        title, f"{alt}{_more(arms, 20)}.", "study-heat", _TOP + 62 + 44 * len(rows),
        xaxis=axis(
            _title(across), tickvals=list(range(len(columns))), ticktext=[escape(_short(n, 16)) for n in names_x],
            showgrid=False, automargin=True,
        ),
        yaxis=axis(
            _title(down), tickvals=list(range(len(rows))), ticktext=[escape(_short(n, 16)) for n in names_y],
            showgrid=False, automargin=True, autorange="reversed",
        ),
        annotations=labels,
        shapes=frames,
        margin={"l": 52, "r": 16, "t": _TOP, "b": 50},
    )  # fmt: skip


def parallel_figure(results: Results, arms: Sequence[ArmResult], factors: Sequence[str]) -> Figure:
    """Parallel coordinates: one axis for each factor and one for the accuracy, one line for each arm."""
    means = [_statistics(result).mean for result in arms]
    low, high = min(means), max(means)
    span = high - low or 1.0
    values = {name: _values(arms, name) for name in factors}
    for name in factors:
        if any(name not in dict(result.arm.values) for result in arms):
            values[name].append("")
    data = []
    order = sorted(range(len(arms)), key=lambda i: (arms[i].arm.name == results.study.reference, means[i]))
    for i in order:
        own = dict(arms[i].arm.values)
        y = [_share(values[name].index(own.get(name, "")), len(values[name])) for name in factors]
        share = (means[i] - low) / span
        colour, width, dash = "@quiet", 1.2, "solid"
        if arms[i] is arms[0]:
            colour, width = "@accent", 4
        elif arms[i].arm.name == results.study.reference:
            colour, width, dash = "@ink", 2.5, "dash"
        text = f"{escape(arms[i].arm.name)}: {mean_of(arms[i])}"
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(arms[i].arm.name),
                "x": list(range(len(factors) + 1)),
                "y": [*(round(v, 4) for v in y), round(share, 4)],
                "line": {"color": colour, "width": width, "dash": dash},
                "marker": {"size": 6, "color": colour},
                "opacity": 1.0 if width > 2 else 0.25 + 0.5 * share,
                "hovertemplate": text + "<extra></extra>",
            }
        )
    marks = [
        _mark(column, _share(j, len(values[name])), _value(name, text))
        for column, name in enumerate(factors)
        for j, text in enumerate(values[name])
    ]
    marks += [_mark(len(factors), share, f"{low + share * span:.1f} %") for share in (0.0, 0.5, 1.0)]
    best = arms[0].arm.name
    title = f"{len(arms)} arms over {len(factors)} factors: best {means[0]:.1f} %"
    alt = f"Parallel coordinates of {', '.join(map(_title, factors))} and accuracy. The best arm is {best}."
    return figure(
        data, title, alt, "study-parallel", 420,
        xaxis=axis(
            "", tickvals=list(range(len(factors) + 1)), ticktext=[*map(_title, factors), "accuracy"],
            range=[-0.15, len(factors) + 0.45], fixedrange=True,
        ),
        yaxis=axis("", range=[-0.06, 1.06], showticklabels=False, showgrid=False, fixedrange=True),
        annotations=marks,
        margin={"l": 16, "r": 16, "t": _TOP, "b": 40},
    )  # fmt: skip


def _share(index: int, count: int) -> float:
    return index / (count - 1) if count > 1 else 0.5


def _mark(x: float, y: float, text: str) -> dict:
    return {
        "x": x, "y": y, "text": escape(_short(text, 18)), "xanchor": "left", "yanchor": "middle", "xshift": 7,
        "showarrow": False, "bgcolor": "@surface", "font": {"size": 11, "color": "@ink"},
    }  # fmt: skip


def _frame(i: int, j: int, dash: str, width: int) -> dict:
    return {
        "type": "rect", "x0": i - 0.46, "x1": i + 0.46, "y0": j - 0.44, "y1": j + 0.44,
        "line": {"color": "@ink", "width": width, "dash": dash},
    }  # fmt: skip


def _level(y: float) -> dict:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "layer": "below",
        "line": {"color": "@quiet", "width": 1.4, "dash": "dash"},
    }  # fmt: skip


def _level_name(y: float, name: str) -> dict:
    return {
        "xref": "paper", "x": 1, "y": y, "text": escape(_short(name, 28)), "xanchor": "right", "yanchor": "bottom",
        "showarrow": False, "font": {"size": 12, "color": "@quiet"},
    }  # fmt: skip


def _values(arms: Sequence[ArmResult], name: str) -> list[str]:
    """The values of a factor: numbers by size, texts in alphabetical order."""
    texts = list(dict.fromkeys(v for r in arms if (v := dict(r.arm.values).get(name)) is not None))
    return sorted(texts, key=float) if numbers(arms, name) else sorted(texts)


def _value(name: str, text: str) -> str:
    """A value on an axis that has the factor's name."""
    return (shown(name, text).rpartition(" = ")[2] if name not in ("mask", "method") else shown(name, text)) or "none"


def _title(name: str) -> str:
    """The name of a factor on an axis."""
    if name in PLAN_FACTORS:
        return {"drop_rate": "drop rate p"}.get(name, PLAN_FACTORS[name])
    entry = next((entry for entry in settings_of(RunConfig) if entry.name == name), None)
    return entry.label.lower() if entry else name.replace("_", " ")


# ---------------------------------------------------------------- costs


def pareto(arms: Sequence[ArmResult], quantity: str) -> list[ArmResult]:
    """The arms for which no other one costs less and is at least as accurate, or as much and is more accurate."""
    front: list[ArmResult] = []
    for result in sorted(arms, key=lambda result: (getattr(result, quantity), -_statistics(result).mean)):
        if not front or _statistics(result).mean > _statistics(front[-1]).mean:
            front.append(result)
    return front


def cost_figure(results: Results, arms: Sequence[ArmResult], quantity: str) -> Figure:
    """Accuracy against trained parameters or seconds, with the Pareto front. quantity: of `ArmResult`."""
    counts = [float(getattr(result, quantity)) for result in arms]
    none = min((count for count in counts if count), default=1.0) / 4  # where a logarithmic axis shows no parameters
    costs = {result.arm.name: count or none for result, count in zip(arms, counts, strict=True)}
    front = pareto(arms, quantity)
    means = [_statistics(result).mean for result in arms]
    ends = [end for result in arms for end in _ends(_statistics(result))]
    low, high = room(min([*means, *ends]), max([*means, *ends]), least=2.0)
    high = min(high, 100.8)
    texts = [_short(result.arm.name, 32) if result in front else "" for result in arms]
    x = [costs[result.arm.name] for result in arms]
    sides = label_sides(x, means, texts, (low, high), _COST_WIDTH, right=20, order=_COST_SIDES, least=0.02)
    signs = [_SIGNS[sign_of(result, results.study.reference)] for result in arms]
    unit = "trained parameters without the head" if quantity == "parameters" else "seconds of a run"
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [costs[result.arm.name] for result in front],
            "y": [round(_statistics(result).mean, 3) for result in front],
            "line": {"color": "@accent", "width": 1.5, "shape": "hv"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "arms",
            "x": x,
            "y": [round(mean, 3) for mean in means],
            "text": [escape(text) if side else "" for text, side in zip(texts, sides, strict=True)],
            "textposition": [side or "middle right" for side in sides],
            "textfont": {"size": 12, "color": "@ink"},
            "cliponaxis": False,
            "customdata": [[escape(result.arm.name), mean_of(result), f"{count:,.0f}"]
                           for result, count in zip(arms, counts, strict=True)],
            "hovertemplate": "%{customdata[0]}: %{customdata[1]}, %{customdata[2]} " + quantity + "<extra></extra>",
            "marker": {
                "size": 10,
                "symbol": [symbol for symbol, _ in signs],
                "color": [colour for _, colour in signs],
                "line": {"width": 1.6, "color": [colour for _, colour in signs]},
            },
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [round((_ends(s) or (0, s.mean))[1] - s.mean, 3) for s in map(_statistics, arms)],
                "arrayminus": [round(s.mean - (_ends(s) or (s.mean,))[0], 3) for s in map(_statistics, arms)],
                "color": "@quiet",
                "thickness": 1,
                "width": 2,
            },
        },
    ]  # fmt: skip
    title = f"Accuracy against {'parameters' if quantity == 'parameters' else 'time'}"
    alt = f"Scatter plot of accuracy against {unit}. On the Pareto front: " + "; ".join(
        f"{result.arm.name} {_statistics(result).mean:.1f} %, {getattr(result, quantity):,.0f} {quantity}"
        for result in front
    )
    return figure(
        data, title, f"{alt}.", f"study-{quantity}", 400,
        xaxis=axis(f"{unit} (log)", type="log", **_ticks(x)),
        yaxis=axis("top-1 accuracy, %", range=[low, high]),
        margin={"l": 52, "r": 24, "t": _TOP, "b": _BOTTOM},
    )  # fmt: skip


def _ticks(x: Sequence[float]) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, or at these only where there are many."""
    if max(x) < 4 * min(x):
        return {}
    low, high = math.floor(math.log10(min(x))), math.ceil(math.log10(max(x)))
    digits = (1, 2, 5) if high - low <= 2 else (1,)
    values = [digit * 10.0**power for power in range(low, high + 1) for digit in digits]
    return {"tickvals": values, "ticktext": [_engineering(value) for value in values]}


def _engineering(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


# ---------------------------------------------------------------- curves


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds at the epochs that all of them have reached; seeds without an evaluation are left out."""
    known = [dict(curve) for curve in curves if curve]
    common = set.intersection(*map(set, known)) if known else set()
    return tuple((epoch, fmean(curve[epoch] for curve in known)) for epoch in sorted(common))


def curves_figure(results: Results, arms: Sequence[ArmResult], curves: Curves) -> Figure:
    """Accuracy over epochs, the mean over seeds of each arm; the best arms and the reference have colours."""
    named = [result for result in arms if result.arm.name != results.study.reference][:MAX_COLOURED]
    data = []
    values = []
    for result in reversed(arms):
        name = result.arm.name
        line = thinned(mean_curve(curves.get(name, ())))
        if not line:
            continue
        values += [value for _, value in line]
        colour, width, dash, shown_in_legend = "@quiet", 1.0, "solid", False
        if name == results.study.reference:
            colour, width, dash, shown_in_legend = "@ink", 2.5, "dash", True
        elif result in named:
            number = named.index(result)
            colour, width, dash, shown_in_legend = _COLOURS[number], 2.4, _DASHES[number], True
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(line) < 12 and shown_in_legend else "lines",
                "name": escape(_short(name)),
                "showlegend": shown_in_legend,
                "x": [epoch for epoch, _ in line],
                "y": [round(value, 3) for _, value in line],
                "line": {"color": colour, "width": width, "dash": dash},
                "marker": {"size": 5, "color": colour},
                "opacity": 1.0 if shown_in_legend else 0.45,
                "hovertemplate": "epoch %{x}: %{y:.1f} %<extra>" + escape(_short(name)) + "</extra>",
            }
        )
    low, high = room(min(values), max(values), least=2.0)
    rows = sum(trace["showlegend"] for trace in data)
    alt = "Line chart of accuracy over epochs by arm, mean over seeds. After the last epoch: " + "; ".join(
        f"{result.arm.name} {_statistics(result).mean:.1f} %" for result in arms[:12]
    )
    title = f"Accuracy over epochs, {counted(len(data), 'arm')}"
    return figure(
        data, title, f"{alt}{_more(arms)}.", "study-curves", 380 + 12 * rows,
        xaxis=axis("epoch"),
        yaxis=axis("top-1 accuracy, %", range=[max(low, -1.0), min(high, 101.0)]),
        margin={"l": 52, "r": 16, "t": _TOP, "b": _BOTTOM},
        **_legend(rows, reverse=True),
    )  # fmt: skip


def _legend(rows: int, reverse: bool = False) -> dict[str, Any]:
    """A legend below the plot, whose names hide and show lines."""
    if not rows:
        return {}
    order = {"traceorder": "reversed"} if reverse else {}
    return {
        "showlegend": True,
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top",
            "font": {"size": 12, "color": "@ink"}, "bgcolor": "rgba(0,0,0,0)", **order,
        },
    }  # fmt: skip
