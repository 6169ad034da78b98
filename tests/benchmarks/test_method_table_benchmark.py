"""`python -m benchmarks method_table`, run for real in this process with one method, one epoch and few images."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import method_table as command
from mlae_lab.core.method import BUILT_IN
from mlae_lab.data.splits import LabelledImages
from mlae_lab.data.tasks import Loaded, load_protocol
from mlae_lab.runs.method_table import BUDGET, Result, Start, append, planned_hashes, read
from mlae_lab.training import setup

START = Start(
    "python -m benchmarks method_table", "2026-11-28T05:00:00Z", "abc", "a CPU, 2 cores", {"torch": "2"}, 2, 16
)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task has its first 64 images for training and for evaluation."""

    def first(part: LabelledImages) -> LabelledImages:
        return LabelledImages(part.images[:64], part.labels[:64])

    def load(*arguments: Any) -> Loaded:
        loaded = load_protocol(*arguments)
        return replace(loaded, train=first(loaded.train), evaluation=first(loaded.evaluation))

    monkeypatch.setattr(setup, "load_protocol", load)


def run(out: Path, *more: str) -> int:
    return command.main(
        ["--methods", "linear", "--recipe", "common", "--tasks", "digits", "--seeds", "0,1", "--epochs", "1",
         "--workers", "1", *more, "--out", str(out)]
    )  # fmt: skip


@pytest.mark.usefixtures("few_images")
def test_it_skips_what_is_there_and_repeats_a_torn_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.jsonl"
    assert run(out) == 0
    first = read(out)
    assert [result.seed for result in first.results] == [0, 1]
    result = first.results[0]
    assert (result.parameters, result.head_parameters, result.steps, result.images) == (0, 1290, 4, 64)
    assert 0 < result.accuracy <= 100
    assert first.starts[0].budget.epochs == 1
    assert "linear" in result.command

    assert run(out) == 0
    assert read(out) == first  # not even another start
    out.write_bytes(out.read_bytes()[:-9])
    capsys.readouterr()
    assert run(out) == 0
    assert "1 of 2 runs are in" in capsys.readouterr().out
    again = read(out)
    assert len(again.starts) == 2
    assert [r.accuracy for r in again.results] == [r.accuracy for r in first.results]


@pytest.mark.usefixtures("few_images")
def test_ctrl_c_keeps_what_was_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, train, calls = tmp_path / "table.jsonl", command.train, iter((False, True))

    def interrupted(cell: command.Cell) -> Result:
        if next(calls):
            raise KeyboardInterrupt
        return train(cell)

    monkeypatch.setattr(command, "train", interrupted)
    assert run(out) == 130
    assert [result.seed for result in read(out).results] == [0]
    assert "the same command continues" in capsys.readouterr().out


def test_another_budget_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.jsonl"
    append(out, START)
    assert run(out) == 2
    assert "holds runs of 2 epochs in batches of 16" in capsys.readouterr().err


def test_the_figure_has_a_row_for_each_method_and_a_mark_for_each_recipe(tmp_path: Path) -> None:
    out, svg = tmp_path / "table.jsonl", tmp_path / "table.svg"
    append(out, START)

    def add(*key: Any, accuracy: float) -> None:
        append(out, Result(*key, planned_hashes(BUDGET)[key], accuracy, 797, 9, 9, 9, 1.0, 1.0, ""))

    for number, method in enumerate(BUILT_IN):
        for seed in (0, 1):
            add("common", method, "digits", seed, accuracy=50.0 + number + seed)
    add("own", "ssf", "digits", 0, accuracy=95.0)
    assert command.main(["--figure", str(svg), "--out", str(out)]) == 0
    root = ET.fromstring(svg.read_text(encoding="utf-8"))
    marks = [element for element in root.iter() if element.findtext("{*}title") and element is not root]
    texts = [element.findtext("{*}title") or "" for element in marks]
    assert len(texts) == len(BUILT_IN) + 1
    assert "SSF, own recipe: 95.0 % (n = 1)" in texts
    assert "Linear probe, common recipe: 51.5 % (n = 2)" in texts
    assert "1 to 2 seeds; bars: 95 % interval" in svg.read_text(encoding="utf-8")
    assert f"{2 * len(BUILT_IN) + 1} of " in svg.read_text(encoding="utf-8")


def test_a_table_without_results_has_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--figure", str(tmp_path / "table.svg"), "--out", str(tmp_path / "none")]) == 2
    assert "has no results" in capsys.readouterr().err
