"""The arms of a study as a table to sort and filter, which hides arms from the figures and opens runs."""

from __future__ import annotations

from collections.abc import Collection

from mlae_lab.core.seed_statistics import between, points
from mlae_lab.runs.study_results import ArmResult, Results
from mlae_lab.ui import page
from mlae_lab.ui.figures.study_parts import mean_of, sign_of
from mlae_lab.ui.rows_table import marked_rows, rows_table
from mlae_lab.ui.thumbnails import mask_image

COLUMNS = (
    ("name", "Arm"), ("mean", "Accuracy"), ("difference", "Difference"), ("p", "Adjusted p"), ("verdict", "Verdict"),
    ("parameters", "Parameters"), ("seconds", "Time"), ("done", "Done"),
)  # fmt: skip
WORDS = {
    "better": "better", "worse": "worse", "equivalent": "equivalent", "unsettled": "not distinguished",
    "reference": "reference", "none": "–",
}  # fmt: skip
_WORDS_OF_TABLE = {
    "check": "Shown", "box": "Show {} in the figures", "region": "Arms of the study", "one": "arm", "many": "arms",
    "filter": "Filter arms", "filterLabel": "Filter arms by name or verdict",
}  # fmt: skip


def hidden_arms(key: str, results: Results, before: frozenset[str]) -> frozenset[str]:
    """The arms that the table with this key hides; those of before if it was not drawn yet."""
    names = {entry.arm.name for entry in results.arms}
    return marked_rows(key, names, before)


def arms_table(results: Results, hidden: Collection[str], key: str) -> str:
    """Draw the table; returns the id of the run whose link was just clicked, "" for none.

    Args:
        results: Of the study.
        hidden: Names of the arms that are hidden when it is drawn first.
        key: Unique on the page.
    """
    arms = ordered(results)
    images: dict[str, int] = {}
    result = rows_table(
        {
            "kind": "arms",
            "rows": [_row(entry, results, images) for entry in arms],
            "columns": [*([name, label, True] for name, label in COLUMNS), ["runs", "Runs", False]],
            "images": list(images),
            "marked": sorted(hidden),
            "all": [entry.arm.name for entry in arms],
            "hides": True,
            "words": _WORDS_OF_TABLE,
            "searched": ["name", "verdict"],
        },
        key,
    )
    runs = {cell.run.id for entry in arms for cell in entry.cells if cell.run is not None}
    return result.opened if result.opened in runs else ""


def ordered(results: Results) -> list[ArmResult]:
    """The arms as the table shows them first: the best on top, then those without a result."""
    ranked = results.ranked
    return [*ranked, *(result for result in results.arms if result.statistics is None)]


def _row(result: ArmResult, results: Results, images: dict[str, int]) -> dict:
    """One row. images: each thumbnail so far and its number, to which that of the row is added."""
    comparison, statistics = result.comparison, result.statistics
    difference, p = "–", None
    if comparison is not None:
        difference, p = points(comparison.mean, signed=True), comparison.adjusted
        if comparison.low is not None and comparison.high is not None:
            difference += f" ({between(comparison.low, comparison.high)})"
    config = result.arm.config
    sign = sign_of(result, results.study.reference) if result.verdict else "none"
    mask = mask_image(config.plan) if config.has_mask else ""
    return {
        "id": result.arm.name,
        **({"image": images.setdefault(mask, len(images))} if mask else {}),
        "styles": {"verdict": sign},
        "titles": {"verdict": result.verdict},
        "links": {
            "runs": [
                {
                    "id": cell.run.id,
                    "text": str(cell.seed),
                    "title": f"Run {cell.run.id}, seed {cell.seed}, {cell.run.status.value}",
                    "label": f"Run of {result.arm.name} with seed {cell.seed}",
                }
                for cell in result.cells
                if cell.run is not None
            ]
        },
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
