"""The arms of a study: accuracies with intervals, and differences to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from mlae_lab.core.inference import Comparison
from mlae_lab.core.seed_statistics import between, points
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui.figures.base import Figure, axis, figure, room
from mlae_lab.ui.figures.study_parts import (
    BOTTOM,
    SIGNS,
    TOP,
    ends_of,
    mean_of,
    more_arms,
    shortened,
    sign_of,
    statistics_of,
)

MAX_ROWS = 24  # arms of a dot plot, without the reference
_ROW = 40  # pixels of an arm


def arms_figure(results: Results, arms: Sequence[ArmResult]) -> Figure:
    """One row for each arm, the best on top: mean, 95 % interval and single seeds; a line at the reference's mean."""
    split = arms[0].arm.config.protocol
    arms = _best(arms, results)
    rows = list(range(len(arms) - 1, -1, -1))
    values = [value for result in arms for value in result.values.values()]
    values += [end for result in arms for end in ends_of(statistics_of(result))]
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
        arms, rows, [statistics_of(result).mean for result in arms],
        [ends_of(statistics_of(result)) for result in arms], "%{x:.1f} %", results,
    )  # fmt: skip
    best = arms[0]
    title = f"Highest mean {statistics_of(best).mean:.1f} %: {shortened(best.arm.name, 28)}"
    alt = f"Dot plot of accuracy on {split} by arm, the best first: " + "; ".join(
        f"{result.arm.name} {mean_of(result)}" for result in arms[:12]
    )
    return figure(
        data, title, f"{alt}{more_arms(arms)}.", "study-arms", TOP + BOTTOM + _ROW * len(arms),
        xaxis=axis(f"top-1 accuracy on {split}, %", range=[low, high]),
        yaxis=_row_axis(len(arms)),
        annotations=_row_names(arms, rows, [mean_of(result) for result in arms]),
        shapes=[_line_at(reference.mean, dash="dash", colour="@quiet")] if reference else [],
        margin={"l": 8, "r": 16, "t": TOP, "b": BOTTOM},
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
    title = f"Difference to {shortened(results.study.reference_title, 30)}: {different} of {others} distinguished"
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
        title, f"{alt}{more_arms(compared)}.", "study-differences", TOP + BOTTOM + _ROW * len(compared),
        xaxis=axis("difference, points of top-1 accuracy", range=[low, high], tickformat="+~g"),
        yaxis=_row_axis(len(compared)),
        annotations=_row_names(compared, rows, texts),
        shapes=shapes,
        margin={"l": 8, "r": 16, "t": TOP, "b": BOTTOM},
    )  # fmt: skip


def _best(arms: Sequence[ArmResult], results: Results) -> list[ArmResult]:
    """The best arms, as many as a dot plot can show, and the reference."""
    if len(arms) <= MAX_ROWS + 1:
        return list(arms)
    return [*arms[:MAX_ROWS], *(entry for entry in arms[MAX_ROWS:] if entry.arm.name == results.study.reference)]


def _rows(
    arms: Sequence[ArmResult], rows: Sequence[int], means: Sequence[float], ends: Sequence[tuple[float, ...]],
    hover: str, results: Results,
) -> list[dict[str, Any]]:  # fmt: skip
    """One trace for each kind of verdict: dots with intervals."""
    signs = [sign_of(result, results.study.reference) for result in arms]
    traces = []
    for sign, (symbol, colour) in SIGNS.items():
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
            "text": f"<b>{escape(shortened(result.arm.name))}</b>  {escape(text)}",
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


def _interval(comparison: Comparison | None) -> tuple[float, ...]:
    if comparison is None or comparison.low is None or comparison.high is None:
        return ()
    return comparison.low, comparison.high


def _difference_text(comparison: Comparison) -> str:
    mean = points(comparison.mean, signed=True)
    ends = _interval(comparison)
    return f"{mean} ({between(ends[0], ends[1])})" if ends else mean
