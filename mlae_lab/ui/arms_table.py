"""The arms of a study as a table to sort and filter, which hides arms from the figures and opens runs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from mlae_lab.core.seed_statistics import between, points
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui import page
from mlae_lab.ui.figures.studies import mean_of, sign_of
from mlae_lab.ui.thumbnails import mask_image

COLUMNS = (
    ("name", "Arm"), ("mean", "Accuracy"), ("difference", "Difference"), ("p", "Adjusted p"), ("verdict", "Verdict"),
    ("parameters", "Parameters"), ("seconds", "Time"), ("done", "Done"),
)  # fmt: skip
WORDS = {
    "better": "better", "worse": "worse", "equivalent": "equivalent", "unsettled": "not distinguished",
    "reference": "reference", "none": "–",
}  # fmt: skip
_HERE = Path(__file__).parent
_COMPONENT = component(
    "mlae_lab_arms_table",
    html='<div class="arms"></div>',
    css=(_HERE / "arms_table.css").read_text(),
    js=(_HERE / "arms_table.js").read_text(),
)


def hidden_arms(key: str, results: Results, before: frozenset[str]) -> frozenset[str]:
    """The arms that the table with this key hides; those of before if it was not drawn yet."""
    state = st.session_state.get(key)
    names = {entry.arm.name for entry in results.arms}
    return named(state.get("hidden") if state is not None else None, names, before)


def arms_table(results: Results, hidden: Collection[str], key: str) -> str:
    """Draw the table; returns the id of the run whose link was just clicked, "" for none.

    Args:
        results: Of the study.
        hidden: Names of the arms that are hidden when it is drawn first.
        key: Unique on the page.
    """
    arms = ordered(results)
    result = _COMPONENT(
        key=key,
        data={
            "rows": [_row(entry, results) for entry in arms],
            "columns": [list(column) for column in COLUMNS],
            "hidden": sorted(hidden),
        },
        default={"hidden": None},
        on_hidden_change=lambda: None,
        on_opened_change=lambda: None,
        height="content",
    )
    runs = {cell.run.id for entry in arms for cell in entry.cells if cell.run is not None}
    return result.opened if result.opened in runs else ""


def ordered(results: Results) -> list[ArmResult]:
    """The arms as the table shows them first: the best on top, then those without a result."""
    ranked = results.ranked
    return [*ranked, *(result for result in results.arms if result.statistics is None)]


def named(sent: object, names: Collection[str], before: frozenset[str]) -> frozenset[str]:
    """The arms that a browser hides; those of before if what it sends is malformed."""
    if not isinstance(sent, list) or not all(isinstance(name, str) for name in sent):
        return before
    return frozenset(sent) & frozenset(names)


def _row(result: ArmResult, results: Results) -> dict:
    comparison, statistics = result.comparison, result.statistics
    difference, p = "–", None
    if comparison is not None:
        difference, p = points(comparison.mean, signed=True), comparison.adjusted
        if comparison.low is not None and comparison.high is not None:
            difference += f" ({between(comparison.low, comparison.high)})"
    config = result.arm.config
    sign = sign_of(result, results.study.reference) if result.verdict else "none"
    return {
        "name": result.arm.name,
        "image": mask_image(config.plan) if config.has_mask else "",
        "sign": sign,
        "title": result.verdict,
        "runs": [
            {"id": cell.run.id, "seed": cell.seed, "word": cell.run.status.value}
            for cell in result.cells
            if cell.run is not None
        ],
        "cells": {
            "name": [result.arm.name, result.arm.name],
            "mean": [mean_of(result), statistics.mean if statistics else None],
            "difference": [difference, comparison.mean if comparison else None],
            "p": ["–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001", p],
            "verdict": [WORDS[sign], WORDS[sign]],
            "parameters": ["–" if result.parameters is None else f"{result.parameters:,}", result.parameters],
            "seconds": [page.seconds_text(result.seconds), result.seconds],
            "done": [f"{len(result.values)} of {len(result.cells)}", len(result.values)],
        },
    }
