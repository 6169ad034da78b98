"""The live bench in its simplest form: five `st.plotly_chart` in a fragment that runs every second.

Streamlit runs this file for `benchmarks.ui`, with its default settings. The figures are the lab's; only the way
in which they reach the browser differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.ui import figures, queries

_LIGHT = {
    "accent": "#0F766E", "quiet": "#5B6870", "hairline": "#DDE2E0", "ink": "#1B2328", "surface": "#FAFAF7",
    "raised": "#FFFFFF", "faint": "#E3F0ED", "middle": "#6FB3A8", "low": "#2B6CB0", "high": "#C2570C",
}  # fmt: skip


def chart(figure: figures.Figure, name: str) -> None:
    spec = figure.spec
    for role, colour in _LIGHT.items():
        spec = spec.replace(f'"@{role}"', f'"{colour}"')
    st.plotly_chart(json.loads(spec), key=name)


@st.fragment(run_every=1.0)
def panel() -> None:
    run = queries.run(st.query_params["run"])
    tail, config = queries.tail(run.id), run.config
    running = figures.Running(tail.steps)
    metrics = (("Status", run.status.value), ("Step", len(tail.steps)), ("Epoch", tail.steps[-1].epoch))
    for column, (name, value) in zip(st.columns(3), metrics, strict=True):
        column.metric(name, value)
    left, right = st.columns(2)
    with left:
        chart(figures.accuracy_figure(running, tail.outcome(config)), "accuracy")
        chart(figures.loss_figure(running, tail.outcome(config)), "loss")
    with right:
        chart(
            figures.expert_figure(tail.experts[-1].contribution, "contribution", config.plan, tail.experts[-1].epoch),
            "experts",
        )
        chart(figures.similarity_tiles(tail.similarity[-1], run.config.plan.row_labels), "tiles")
        chart(figures.similarity_curve(tail.similarity), "alike")


panel()
