"""The figures of a study that its factors and results allow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mlae_lab.core.seed_statistics import points
from mlae_lab.runs.study_results import Results, last_stage, of_task
from mlae_lab.ui.figures.base import Figure
from mlae_lab.ui.figures.study_arms import MAX_ROWS, arms_figure, difference_figure
from mlae_lab.ui.figures.study_costs import cost_figure
from mlae_lab.ui.figures.study_curves import curves_figure
from mlae_lab.ui.figures.study_factors import (
    factor_caption,
    factor_figure,
    heat_figure,
    is_grid,
    numbers,
    parallel_figure,
    varying,
)
from mlae_lab.ui.figures.study_parts import MAX_COLOURED, SIGNS_NOTE, Curves

MAX_FACTOR_FIGURES = 4


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
                factor_caption(arms, name),
            )
        )
    if len(factors) == 2 and is_grid(arms, *factors):
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
