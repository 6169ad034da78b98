"""`python -m benchmarks drop_rates`: its plan, what it says of results, and one real run on few images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drop_rates
from benchmarks.drop_rates import LEARNED, LONGER, RATES, SEEDS, TASKS, Row, arm_of, cells, report, rule_of_thumb
from mlae_lab.core.events import packed
from mlae_lab.data.splits import LabelledImages
from mlae_lab.data.tasks import Loaded, load_protocol
from mlae_lab.training import setup


def row(arm: str, task: str, protocol: str, seed: int, correct: int) -> Row:
    bits = packed(image < correct for image in range(200))
    return Row(arm, task, protocol, seed, 3, f"{arm}{task}{protocol}{seed}", correct / 2, bits, 200, 1, 1.0, 1.0, "")


def test_runs_are_shared_and_the_longer_ones_cost_what_choose_costs() -> None:
    planned = list(cells())
    assert len(planned) == len({cell.config.hash for cell in planned}) == 3 * 4 * (2 * len(RATES) + 1) + 3 * 4
    assert all(cell.arm == LONGER and cell.config.epochs == 13 for cell in planned[-12:])
    assert {cell.config.seed for cell in planned[:36]} == {0}, "one seed of everything first"
    assert [rule_of_thumb(task) for task in TASKS] == [0.5, 0.7, 0.7, 0.7]


def test_the_table_says_what_each_strategy_reaches() -> None:
    """On val p = 0 is far better; on test p = 0.3 is, which only hindsight knows."""
    rows = []
    for task in TASKS:
        for seed in SEEDS:
            for rate in RATES:
                rows.append(row(arm_of(rate), task, "val", seed, 180 if rate == 0 else 100))
                rows.append(row(arm_of(rate), task, "test", seed, {0.0: 150, 0.3: 160}.get(rate, 120)))
            rows.append(row(LEARNED, task, "test", seed, 130))
    lines = dict(line.split(" | ", 1) for line in report(rows) if line.startswith("| "))
    assert lines["| p = 0.5"].count("60.0 ± 0.0") == 5
    assert lines["| choose"].count("75.0 ± 0.0 (p = 0)") == 4
    assert "+15.0 (+15.0, +15.0, +15.0)" in lines["| choose"]
    assert lines["| best in hindsight"].count("80.0 ± 0.0 (p = 0.3)") == 4
    assert "65.0 ± 0.0" in lines[f"| {LEARNED}"]
    assert lines[f"| {LONGER}"].count("–") == 5, "not trained yet"
    (sentence,) = [line for line in report(rows) if line.startswith("digits: ")]
    assert "`choose` takes p = 0 (100 % of resamples)" in sentence
    assert "on test 15.00; expected optimism" in sentence
    assert sentence.endswith("regret 5.00")


def test_a_run_is_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(part: LabelledImages) -> LabelledImages:
        return LabelledImages(part.images[:32], part.labels[:32])

    def load(*arguments: Any) -> Loaded:
        loaded = load_protocol(*arguments)
        return replace(loaded, train=first(loaded.train), evaluation=first(loaded.evaluation))

    monkeypatch.setattr(setup, "load_protocol", load)
    monkeypatch.setattr(drop_rates, "cells", lambda tasks, seeds: list(cells(tasks, seeds))[:1])
    words = ["--tasks", "digits", "--seeds", "0", "--out", str(tmp_path / "rows.jsonl")]
    assert drop_rates.main(words) == 0
    (known,) = drop_rates.read(tmp_path / "rows.jsonl")
    assert (known.arm, known.protocol, known.images, known.steps) == ("p = 0.5", "val", 32, 6)
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert drop_rates.main(words) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == before
