"""The lab's own table of methods: a figure per task, and how it was measured."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path

import streamlit as st

from mlae_lab.core import catalog, recipes
from mlae_lab.data.listing import counted
from mlae_lab.runs import method_table
from mlae_lab.runs.method_table import RECIPES, SEEDS, TASKS, Table
from mlae_lab.ui import figures, page, tables
from mlae_lab.ui.live_plot import live_plot


def show() -> None:
    """Draw the table, if it has any results."""
    path = method_table.FILE
    if not path.exists():
        return
    table = _read(path, path.stat().st_mtime_ns)
    points = {task: method_table.table_points(table, task) for task in TASKS}
    tasks = [task for task in TASKS if points[task]]
    if not tasks:
        return
    page.section("Measured by the lab: all methods on the bundled tasks")
    task = st.segmented_control(
        "Task", tasks, format_func=lambda name: catalog.task(name).title, default=tasks[0], required=True,
        key="method_table_task",
    )  # fmt: skip
    live_plot(figures.table_figure(points[task], catalog.task(task).title), key="method_table_figure")
    for text in _explanation(table):
        page.note(text)
    with st.expander("As a table, and how it was measured"):
        tables.table(
            ("Method", "Recipe", "Parameters", "Accuracy, %", "95 % interval", "Seeds"),
            [
                (
                    escape(p.title), RECIPES[p.recipe].removesuffix(" recipe"), f"{p.parameters:,}",
                    f"{p.accuracy.mean:.1f}",
                    f"{p.accuracy.low:.1f} to {p.accuracy.high:.1f}" if p.accuracy.interval else "–",
                    f"{p.accuracy.n}",
                )
                for p in points[task]
            ],
        )  # fmt: skip
        page.facts(*_origin(table))
        st.code(table.starts[-1].command, language="bash", wrap_lines=True)


@lru_cache(maxsize=1)
def _read(path: Path, modified: int) -> Table:
    return method_table.read(path)


def _explanation(table: Table) -> list[str]:
    """What the figure shows, and what it does not."""
    start, steps = table.starts[-1], max(result.steps for result in table.results)
    absent, planned = method_table.missing(table)
    texts = [
        f"Bundled backbone ({catalog.backbone(catalog.DEFAULT_BACKBONE).title}), trained on train and val, evaluated "
        f"once on test. Every run has {counted(start.epochs, 'epoch')} in batches of {start.batch_size} "
        f"({steps:,} steps); all else is set by its recipe, which is made for 100 epochs or more. So the figure shows "
        "what a short training achieves, not the best accuracy of a method.",
        f"Common recipe: {recipes.COMMON.source}. Own recipe: that of the method's authors for VTAB-1k, where there is "
        "one that differs. Dashed: linear probe with the common recipe.",
        "Bars: 95 % interval of the mean over seeds (Student's t), none for one seed; it does not cover the choice of "
        "test images. An accuracy on this small backbone says nothing about the same method on one of ImageNet scale.",
    ]
    if absent:
        texts.append(
            f"Not complete: {absent} of {planned} runs ({len(SEEDS)} seeds, {len(TASKS)} tasks) are missing; the "
            "command below trains them."
        )
    if table.outdated:
        texts.append(f"{counted(table.outdated, 'result')} with settings of earlier recipes: left out.")
    return texts


def _origin(table: Table) -> list[tuple[str, str]]:
    """Where the results were measured: each value once."""
    starts = table.starts

    def distinct(values: list[str]) -> str:
        return escape("; ".join(dict.fromkeys(values)))

    hours = sum(result.cpu_seconds for result in table.results) / 3600
    return [
        ("Machine", distinct([start.machine for start in starts])),
        ("Versions", distinct([", ".join(f"{k} {v}" for k, v in start.versions.items()) for start in starts])),
        ("Commit", distinct([start.commit[:12] for start in starts])),
        ("Dates", distinct([start.date[:10] for start in starts])),
        ("Processor time", f"{hours:.1f} h for {counted(len(table.results), 'run')}"),
    ]
