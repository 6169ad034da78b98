"""The command `choose`: plan, run to the choice, show, final runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.cli.choose import budget
from mlae_lab.cli.output import UsageError
from mlae_lab.runs import sampling
from mlae_lab.runs.store import RunStore
from tests.lab import few_images, printed_json, small_config

# Two of twelve layers have experts, so that a run takes a second
NEW = ["choose", "--task", "digits", "--mask", small_config().plan.code, "--epochs", "1", "--evaluations", "1"]
NEW += ["--backbone", "lab_vit_12x128.random", "--device", "cpu", "--precision", "float32"]


def test_a_dry_run_says_what_would_start_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(tmp_path / "lab")]
    assert main(["choose", "--task", "digits", "--budget", "12", "--dry-run", "--json", *place]) == 0
    plan = printed_json(capsys)
    assert plan["stages"] == [{"epochs": 4, "arms": 12}, {"epochs": 16, "arms": 3}]
    assert (plan["budget"], plan["unit"], plan["cost"], plan["all_runs"], plan["to_run"]) == (12, "runs", 12, 30, 26)
    assert plan["reference"] == "p = 0.5, λ = 1, learning rate = 0.005, 16 epochs"
    assert not (tmp_path / "lab").exists()


@pytest.mark.usefixtures("trains_here")
def test_a_choice_runs_to_its_report_and_its_final_runs(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(store.folder)]
    assert main([*NEW, "--drop-rate", "0.5,0", "--coefficient-init", "1", "--lr", "0.005", "--seeds", "1",
                 "--budget", "2", "--json", *place]) == 0  # fmt: skip
    result = printed_json(capsys)
    name = result["study"]
    assert (result["done"], result["runs"], result["default"]) == (2, 2, "p = 0.5")
    assert result["chosen"] in ("p = 0.5", "p = 0")
    assert result["images"] == 200, "the runs recorded which images they classify correctly"
    assert sum(entry["share_chosen"] for entry in result["candidates"]) == pytest.approx(1)
    means = {entry["arm"]: entry["mean"] for entry in result["candidates"]}
    assert main(["study", "show", name, "--json", *place]) == 0
    study = printed_json(capsys)
    assert {arm["name"]: arm["mean"] for arm in study["arms"]} == means
    assert study["choice"]["chosen"] == result["chosen"]
    assert main(["study", "export", name, "--out", str(store.folder / "../report.html"), "--json", *place]) == 0
    assert result["sentences"][0] in Path(printed_json(capsys)["file"]).read_text()
    assert main(["choose", name, "--final", "--all", "--seeds", "1", "--dry-run", "--json", *place]) == 0
    assert printed_json(capsys)["runs"] == 2
    assert main(["choose", name, "--final", "--all", "--seeds", "1", "--json", *place]) == 0
    result = printed_json(capsys)
    assert set(result["test"]["accuracies"]) == {"p = 0.5", "p = 0"}
    assert result["test"]["regret"] >= 0
    assert main(["choose", name, *place]) == 0
    assert result["sentences"][0] in capsys.readouterr().out


@pytest.mark.usefixtures("trains_here")
def test_a_cross_validation_runs_to_its_report(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NEW, "--task", "own:few", "--data", str(few_images()), "--drop-rate", "0.5,0", "--lr", "0.005",
                 "--coefficient-init", "1", "--folds", "2", "--budget", "4", "--json",
                 "--store", str(store.folder)]) == 0  # fmt: skip
    result = printed_json(capsys)
    assert (result["done"], result["runs"], result["folds"], result["seeds"]) == (4, 4, 2, [0])
    assert result["images"] == 220, "every image of train and val was evaluated once"
    assert any("(1 division and 220 images, cross-validation with 2 folds)" in text for text in result["sentences"])
    assert {run.config.badge.protocol for run in store.runs()} == {"1/2 of train + val → 1/2, cross-validation"}
    assert {run.config.seed for run in store.runs()} == {0, 1}


def test_a_sampler_needs_optuna_and_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["choose", "--task", "digits", "--sampler", "optuna", "--dry-run", "--json"]
    words += ["--seeds", "1", "--store", str(tmp_path / "lab")]
    monkeypatch.setattr(sampling, "missing", lambda: "the sampler needs Optuna")
    assert main(words) == 2
    assert "the sampler needs Optuna" in capsys.readouterr().err
    monkeypatch.setattr(sampling, "missing", lambda: "")
    assert main(words) == 2
    assert "which is 12 settings: a sampler needs at least 20" in capsys.readouterr().err
    assert main([*words, "--budget", "25"]) == 0
    plan = printed_json(capsys)
    assert (plan["stages"], plan["all_runs"], plan["to_run"]) == ([{"epochs": 16, "arms": 25}], 25, 1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("choose", "no task is named"),
        ("choose --task digits --budget 2", "the budget is 2, and two arms with 2 seeds take 4"),
        ("choose --task digits --budget soon", "--budget is 'soon'"),
        ("choose --task digits --budget 10min", "no similar run was timed on this machine"),
        ("choose --task digits --drop-rate 2", "drop rate is 2.0"),
        ("choose --task digits --seeds 0", "--seeds is 0"),
        ("choose --task digits --final", "--final needs the study that chose"),
        ("choose abc", "there is no store yet"),
        ("choose abc --epochs 3", "--epochs and a study are both given"),
        ("choose abc --lr 0.1", "--lr and a study are both given"),
        ("choose abc --drop-rate 0", "--drop-rate and a study are both given"),
    ],
)
def test_an_invalid_request_is_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, why: str
) -> None:
    assert main([*words.split(), "--store", str(tmp_path / "lab")]) == 2
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", (12.0, "runs")),
        ("600s", (600.0, "seconds")),
        ("1.5h", (5400.0, "seconds")),
        ("30 min", (1800.0, "seconds")),
    ],
)
def test_a_budget_is_runs_or_time(text: str, expected: tuple[float, str]) -> None:
    assert budget(text) == expected


@pytest.mark.parametrize("text", ["", "s", "12 runs", "1e", "-"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="it must be a number of runs"):
        budget(text)


@pytest.mark.usefixtures("no_supervisor")
def test_a_study_that_only_compares_has_nothing_to_show(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(store.folder)]
    assert main(["study", "new", "--task", "digits", "--drop-rate", "0,0.5", "--detach", "--json", *place]) == 0
    name = printed_json(capsys)["study"]
    assert main(["choose", name, *place]) == 2
    assert "only compares its arms" in capsys.readouterr().err
    assert main(["choose", name, "--final", *place]) == 2
    assert "only compares its arms" in capsys.readouterr().err
