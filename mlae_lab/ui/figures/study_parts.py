"""What the figures of a study share: colours, signs of verdicts, and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlae_lab.core.seed_statistics import SeedStatistics
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.study_results import ArmResult

Curves = Mapping[str, Sequence[Curve]]  # arm to one curve for each seed
MAX_COLOURED = 7  # lines with separate colours
# Okabe and Ito's colours in an order that keeps neighbours apart; black and yellow are readable in one theme only.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C7AE6")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
MAX_BANDS = 3  # more would cover each other
TOP, BOTTOM = 44, 44
_LONG = 44  # characters of an arm's name
# verdict: symbol, colour
SIGNS = {
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


def sign_of(result: ArmResult, reference: str) -> str:
    """What the comparison of an arm found: a name of `SIGNS`."""
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


def statistics_of(result: ArmResult) -> SeedStatistics:
    assert result.statistics is not None
    return result.statistics


def ends_of(statistics: SeedStatistics) -> tuple[float, ...]:
    return statistics.interval[1:] if statistics.interval else ()


def shortened(name: str, most: int = _LONG) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def more_arms(arms: Sequence[ArmResult], most: int = 12) -> str:
    return f"; and {len(arms) - most} more" if len(arms) > most else ""


def legend(rows: int, reverse: bool = False) -> dict[str, Any]:
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
