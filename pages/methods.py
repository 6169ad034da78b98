"""Methods: accuracy of all finished runs of one task against their trained parameters, next to those of the paper, and
the lab's own table of all methods on the bundled tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from html import escape

import streamlit as st

from mlae_lab.core import catalog, paper_methods
from mlae_lab.core import method as registry
from mlae_lab.core.config import Badge
from mlae_lab.data.listing import counted
from mlae_lab.runs.method_points import badges, method_points
from mlae_lab.ui import figures, method_table_view, page, queries
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link
from mlae_lab.ui.tables import table

AXES = {"trained": "All trained", "active": "Active in a step"}

count = len(registry.available()[0])
page.heading(
    "Methods",
    f"What accuracy costs in parameters: {count} fine-tuning methods on the same images, backbone and protocol.",
)


def titles(of: Collection[Badge]) -> dict[Badge, str]:
    """Task, protocol and backbone of each badge, and the rest where two have these in common."""
    short = {badge: f"{catalog.task(badge.task).title}, {badge.protocol}, {badge.weights}" for badge in of}
    common = [text for text, count in Counter(short.values()).items() if count > 1]
    return {
        badge: f"{text}, {badge.data}, {badge.preprocessing}" if text in common else text
        for badge, text in short.items()
    }


def own_runs() -> None:
    """Draw the finished runs of this store."""
    known = badges(queries.runs())
    if not known:
        page.section("No finished run yet")
        page.note("This page compares the finished runs of one task: start one for each method that you want to see.")
        link("train", "Set up a run")
        return

    names = titles(known)
    badge = st.selectbox("Runs on", list(known), format_func=lambda badge: names[badge], key="methods_badge", width=620)
    points = method_points(queries.store(), queries.runs(), badge)
    split = "val" if "val" in badge.protocol.rpartition("→")[2] else "test"
    if not points:
        page.note("These runs were branched, have a time limit or were not evaluated: none can be compared.")
        return
    paper = [(row, row.accuracy[badge.task]) for row in paper_methods.rows() if badge.task in row.accuracy]
    live_plot(figures.ranking_figure(points, split, paper), key="methods_ranking")
    quantity = st.segmented_control(
        "Parameters",
        list(AXES),
        format_func=lambda name: AXES[name],
        default="trained",
        required=True,
        key="methods_axis",
    )
    live_plot(figures.methods_figure(points, split, quantity == "active", paper), key="methods_figure")
    page.note(
        "A point is the mean over seeds of runs with equal settings after their last epoch, a bar its 95 % interval "
        "(Student's t). Methods with other epochs or learning rates are different points: the text under the pointer "
        "says which; a name that would cover another is left out. "
        + (
            "Open circles: the paper's results with ViT-B/16 on test, mostly copied there from other papers with other "
            "recipes. "
            if paper
            else ""
        )
        + "An accuracy on a small backbone says nothing about the same method on a large one."
    )
    with st.expander(f"{counted(len(points), 'point')} as a table"):
        table(
            ("Method", "Parameters", "Accuracy, %", "Seeds", "Settings", "Runs"),
            [
                (
                    escape(p.what), f"{p.parameters:,}", f"{p.accuracy.mean:.1f}", f"{p.accuracy.n}",
                    escape(p.settings), escape(", ".join(p.runs)),
                )
                for p in reversed(points)
            ],
        )  # fmt: skip
    link("train", "Set up a run with another method")


own_runs()
method_table_view.show()
