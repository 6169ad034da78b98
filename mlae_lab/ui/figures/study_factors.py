"""The factors of a study: accuracy over a number, a heat map of two, parallel coordinates of more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mlae_lab.core.config import RunConfig
from mlae_lab.core.settings import settings_of
from mlae_lab.core.study import PLAN_FACTORS, shown
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui.figures.base import SEQUENTIAL, Figure, axis, band, figure, room
from mlae_lab.ui.figures.study_parts import (
    BOTTOM,
    COLOURS,
    DASHES,
    MAX_BANDS,
    MAX_COLOURED,
    SYMBOLS,
    TOP,
    ends_of,
    legend,
    mean_of,
    more_arms,
    shortened,
    statistics_of,
)


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


def factor_caption(arms: Sequence[ArmResult], name: str) -> str:
    values = [dict(result.arm.values) for result in arms]
    others = [factor for factor in varying(arms) if factor != name]
    lines = len({tuple(of_arm.get(other) for other in others) for of_arm in values if name in of_arm})
    text = f"Mean over seeds over {_title(name)}, one line for each value of the other factors."
    if lines <= 1:
        text = f"Mean over seeds over {_title(name)}."
    if lines <= MAX_BANDS and any(statistics_of(result).interval for result in arms):
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
    ends = [statistics_of(result).mean for result in drawn]
    if banded:
        ends += [end for result in drawn for end in ends_of(statistics_of(result))]
    low, high = room(min(ends), max(ends), least=1.0)
    ranked = sorted(lines, key=lambda key: -max(statistics_of(result).mean for _, result in lines[key]))
    bands: list[dict] = []
    data: list[dict] = []
    for number, key in enumerate(ranked):
        line = sorted(lines[key], key=lambda entry: entry[0])
        coloured = number < MAX_COLOURED
        colour = "@accent" if single else COLOURS[number] if coloured else "@quiet"
        title = ", ".join(shown(*pair) for pair in key) or "arms"
        known = [(x, *ends_of(statistics_of(result))) for x, result in line if ends_of(statistics_of(result))]
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
                "y": [round(statistics_of(result).mean, 3) for _, result in line],
                "customdata": [mean_of(result) for _, result in line],
                "line": {"color": colour, "width": 2.5 if coloured else 1, "dash": DASHES[number % 7]},
                "marker": {"size": 8 if coloured else 4, "color": colour, "symbol": SYMBOLS[number % 7]},
                "hovertemplate": _title(name) + " %{x}: %{customdata}<extra>" + escape(title) + "</extra>",
            }
        )
    for entry in bands:
        entry["showlegend"] = False
    best = max((entry for line in lines.values() for entry in line), key=lambda entry: statistics_of(entry[1]).mean)
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
        shapes=[_level(statistics_of(result).mean) for result in levels],
        annotations=[_level_name(statistics_of(result).mean, result.arm.name) for result in levels],
        margin={"l": 52, "r": 16, "t": TOP, "b": BOTTOM},
        **legend(rows),
    )  # fmt: skip


def is_grid(arms: Sequence[ArmResult], across: str, down: str) -> bool:
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
    means = [statistics_of(result).mean for result in arms]
    names_x, names_y = [_value(across, text) for text in columns], [_value(down, text) for text in rows]
    z = [[round(statistics_of(cells[x, y]).mean, 3) if (x, y) in cells else None for x in columns] for y in rows]
    low, high = min(means), max(means)
    best = max(cells, key=lambda cell: statistics_of(cells[cell]).mean)
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
    title = f"{_title(across).capitalize()} × {_title(down)}: best {statistics_of(cells[best]).mean:.1f} %"
    alt = f"Heat map of accuracy over {_title(across)} and {_title(down)}. " + "; ".join(
        f"{result.arm.name} {statistics_of(result).mean:.1f} %" for result in arms[:20]
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
        title, f"{alt}{more_arms(arms, 20)}.", "study-heat", TOP + 62 + 44 * len(rows),
        xaxis=axis(
            _title(across), tickvals=list(range(len(columns))), ticktext=[escape(shortened(n, 16)) for n in names_x],
            showgrid=False, automargin=True,
        ),
        yaxis=axis(
            _title(down), tickvals=list(range(len(rows))), ticktext=[escape(shortened(n, 16)) for n in names_y],
            showgrid=False, automargin=True, autorange="reversed",
        ),
        annotations=labels,
        shapes=frames,
        margin={"l": 52, "r": 16, "t": TOP, "b": 50},
    )  # fmt: skip


def parallel_figure(results: Results, arms: Sequence[ArmResult], factors: Sequence[str]) -> Figure:
    """Parallel coordinates: one axis for each factor and one for the accuracy, one line for each arm."""
    means = [statistics_of(result).mean for result in arms]
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
        margin={"l": 16, "r": 16, "t": TOP, "b": 40},
    )  # fmt: skip


def _share(index: int, count: int) -> float:
    return index / (count - 1) if count > 1 else 0.5


def _mark(x: float, y: float, text: str) -> dict:
    return {
        "x": x, "y": y, "text": escape(shortened(text, 18)), "xanchor": "left", "yanchor": "middle", "xshift": 7,
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
        "xref": "paper", "x": 1, "y": y, "text": escape(shortened(name, 28)), "xanchor": "right", "yanchor": "bottom",
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
