"""`errors` and `repeats` on the command line, with trained runs and their probes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.patterns import allocation
from mlae_lab.runs.store import RunStore
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]
TINY = ["--task", "digits", "--backbone", "lab_vit_12x128.random", "--epochs", "1", "--device", "cpu"]
MASK = allocation((0,) * 11 + (2,), drop_rate=0.5).code  # the layers below have no experts, so they are evaluated once


def result_of(capsys: Captured, *words: str) -> dict:
    """The JSON object that a command prints."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return printed_json(capsys)


def test_errors_and_repeats_of_two_seeds(trains_here: None, lab_store: RunStore, capsys: Captured) -> None:
    """Two seeds of one run: mean and interval, the errors of one, the paired test of both."""
    store = ["--store", str(lab_store.folder)]
    run = result_of(capsys, "train", *TINY, "--mask", MASK, *store)["run"]
    single = result_of(capsys, "repeats", run, *store)
    assert (single["n"], single["low"]) == (1, None)
    assert "One run does not show the variation between seeds" in single["verdict"]
    assert len(lab_store.runs()) == 1, "without --seeds nothing is started"

    summary = result_of(capsys, "repeats", run, "--seeds", "2", *store)
    assert [entry["status"] for entry in summary["seeds"]] == ["finished", "finished"]
    assert summary["n"] == 2
    accuracies = [entry["accuracy"] for entry in summary["seeds"]]
    assert summary["mean"] == pytest.approx(sum(accuracies) / 2)
    assert summary["low"] <= summary["mean"] <= summary["high"]
    other = next(entry["run"] for entry in summary["seeds"] if entry["run"] != run)
    assert (lab_store.run(other).relation, lab_store.run(other).source) == ("study", summary["study"])
    assert result_of(capsys, "repeats", run, "--seeds", "2", "--detach", *store)["runs"] == [run, other]

    errors = result_of(capsys, "errors", run, *store)
    assert errors["accuracy"] == accuracies[0]
    assert errors["images"] == 200
    assert "thumbnails" not in errors
    comparison = result_of(capsys, "errors", run, other, *store)
    whole = comparison["whole"]
    assert 100 * (whole["only_b"] - whole["only_a"]) / 200 == pytest.approx(accuracies[1] - accuracies[0])
    assert len(comparison["only_a"]) == whole["only_a"]
    assert comparison["verdict"]

    assert main(["errors", run, *store]) == 0
    text = capsys.readouterr().out
    assert f"{errors['correct']} of 200 images correct" in text
    assert "most confident errors" in text
    assert main(["errors", run, other, "--images", "50", *store]) == 0
    assert f"{'all':<24}{'50':>9}" in capsys.readouterr().out

    for words, reason in (
        (["errors", run, "--images", "many"], "--images is 'many': it must be \"all\" or a whole number"),
        (["errors", run, "--images", "0"], "a whole number from 1 to 200"),
        (["repeats", run, "--seeds", "31"], "seeds is 31: it must be a whole number from 1 to 30"),
        (["errors", "aaaaaaaa"], "run aaaaaaaa is not in"),
    ):
        assert main([*words, *store]) == 2
        assert reason in capsys.readouterr().err
    for name in (run, other):  # a probe exits when the folder of its run is gone
        shutil.rmtree(lab_store.paths(name).folder)


def test_without_a_store_there_is_no_run(tmp_path: Path, capsys: Captured) -> None:
    for command in ("errors", "repeats"):
        assert main([command, "aaaaaaaa", "--store", str(tmp_path / "none")]) == 2
        assert "there is no store yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
