"""`python -m benchmarks own_images`: real runs on few images, continued by the same command."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.own_images import BUDGET, cells, main
from mlae_lab.runs.method_table import read
from tests.lab import few_images


def test_the_planned_runs_differ_in_method_and_seed_only() -> None:
    planned = list(cells(few_images(), "lab_vit_12x128", "", 32, ("mlae", "lora", "linear"), (0, 1), BUDGET))
    assert [(cell.config.method, cell.config.seed) for cell in planned[:4]] == [
        ("mlae", 0), ("lora", 0), ("linear", 0), ("mlae", 1),
    ]  # fmt: skip
    assert len({cell.config.hash for cell in planned}) == 6
    assert len({cell.config.badge for cell in planned}) == 1
    assert {(cell.config.image_size, cell.config.evaluations, cell.config.epochs) for cell in planned} == {(32, 1, 10)}


def test_runs_are_kept_and_the_same_command_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.jsonl"
    words = [
        "--data",
        str(few_images()),
        "--out",
        str(out),
        "--image-size",
        "32",
        "--methods",
        "linear",
        "--epochs",
        "1",
    ]
    assert main([*words, "--seeds", "0"]) == 0
    assert "linear probe, seed 0: estimated" in capsys.readouterr().out.replace("Linear", "linear")
    assert main([*words, "--seeds", "0,1"]) == 0
    text = capsys.readouterr().out
    assert "1 of 2 runs are in" in text
    assert "2 seeds, 258 trained parameters" in text
    results = read(out).results
    assert [(result.method, result.seed, result.images) for result in results] == [("linear", 0, 20), ("linear", 1, 20)]
    assert "--image-size 32" in results[0].command
    assert main([*words, "--image-size", "33"]) == 2
    assert "choose 32 or 40" in capsys.readouterr().err
