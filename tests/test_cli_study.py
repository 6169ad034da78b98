"""The command `study`: plan, run, read, change, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.study_file import read_study
from mlae_lab.runs.store import RunStore
from tests.lab import printed_json, small_config

# Two of twelve layers have experts, so that a run takes a second
MASK = small_config().plan.code
NEW = ["study", "new", "--task", "digits", "--method", "linear,mlae", "--mask", MASK, "--epochs", "1"]
NEW += ["--backbone", "lab_vit_12x128.random", "--device", "cpu", "--evaluations", "1"]


def test_a_dry_run_says_what_would_start_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "lab"
    words = ["study", "new", "--task", "digits", "--method", "mlae,lora", "--drop-rate", "0,0.3,0.5", "--seeds", "3"]
    assert main([*words, "--dry-run", "--json", "--store", str(store)]) == 0
    plan = printed_json(capsys)
    assert [arm["name"] for arm in plan["arms"]][-1] == "LoRA"
    assert (len(plan["arms"]), plan["runs"], plan["to_run"], plan["reused"]) == (4, 12, 12, 0)
    assert plan["seconds"] is None
    assert plan["arms"][-1]["parameters"] == 49152
    assert plan["notes"] == [
        "2 combinations are equal to others because a factor has no meaning there: counted once."
    ]  # fmt: skip
    assert not store.exists()


@pytest.mark.usefixtures("trains_here")
def test_a_study_runs_to_its_verdict_and_is_extended_exported_and_deleted(
    store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", str(store.folder)]
    assert main([*NEW, "--reference", "method=linear", "--json", *place]) == 0
    result = printed_json(capsys)
    name = result["study"]
    assert (result["done"], result["runs"], result["reference"]) == (2, 2, "Linear probe")
    assert "One seed cannot distinguish" in result["verdict"]
    assert main(["study", "show", name, *place]) == 0
    assert result["verdict"] in capsys.readouterr().out
    assert main(["study", "extend", name, "--seeds", "1", "--json", *place]) == 0
    result = printed_json(capsys)
    linear, mlae = result["arms"]
    differences = [mlae["accuracies"][seed] - linear["accuracies"][seed] for seed in ("0", "1")]
    assert result["done"] == 4
    assert mlae["difference"]["mean"] == pytest.approx(sum(differences) / 2)
    assert main(["study", "resume", name, "--detach", "--json", *place]) == 0
    assert printed_json(capsys)["started"] == []
    for ending in ("csv", "json", "yaml", "html"):
        assert main(["study", "export", name, "--out", str(tmp_path / f"s.{ending}"), *place]) == 0
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "arm,method,seed,run,status,accuracy,parameters"
    assert len(rows) == 5
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>")
    assert main(["study", "export", name, "--out", str(tmp_path / "s.csv"), *place]) == 2
    assert "exists: name another file, or add --force" in capsys.readouterr().err
    assert main(["study", "export", name, "--out", str(tmp_path / "s.csv"), "--force", *place]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["done"] == 4
    assert read_study((tmp_path / "s.yaml").read_text())[0].hash == store.study(name).study.hash
    assert main(["study", "list", "--json", *place]) == 0
    capsys.readouterr()
    assert main(["study", "delete", name, "--runs", "--json", *place]) == 0
    assert printed_json(capsys)["deleted_runs"] == 4
    assert store.runs() == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("study new", "no task is named"),
        ("study new --task digits --set rank", "--set takes NAME=VALUE: 'rank' has no ="),
        ("study new --task digits --set colour=1", "'colour' is no factor"),
        ("study new --task digits --drop-rate 0 --set drop_rate=1", "--set drop_rate is given twice"),
        ("study new --task digits --set title=x", "--set title is given twice or is not a setting of a method"),
        ("study new --task digits --seeds x", "--seeds is 'x'"),
        ("study new --task digits --mask nonsense", "neither a pattern"),
        ("study new --task digits --drop-rate 2", "drop rate is 2.0"),
        ("study new --task digits --reference lora", "the reference is 'lora', which is no arm"),
        ("study new missing.yaml", "the file missing.yaml cannot be read"),
        ("study show abc", "there is no store yet"),
        ("study", "the following arguments are required: COMMAND"),
    ],
)
def test_an_invalid_request_is_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, why: str
) -> None:
    place = ["--store", str(tmp_path / "lab")] if words != "study" else []
    assert main([*words.split(), *place]) == 2
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "lab").exists()


@pytest.mark.usefixtures("no_supervisor")
def test_a_file_describes_a_study_and_a_stranger_may_not_stop_it(
    store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("task: digits\nepochs: 1\nfactors: {drop_rate: [0, 0.5]}\nseeds: 2\n")
    place = ["--store", str(store.folder)]
    assert main(["study", "new", str(file), "--detach", "--json", *place]) == 0
    assert printed_json(capsys)["runs"] == 4
    assert main(["study", "new", str(file), "--epochs", "3", *place]) == 2
    assert "--epochs and a file both set the study" in capsys.readouterr().err
    options = ["--title", "Again", "--seeds", "3", "--seed", "5", "--margin", "2", "--dry-run", "--json"]
    assert main(["study", "new", str(file), *options, *place]) == 0
    plan = printed_json(capsys)
    assert (plan["title"], plan["seeds"]) == ("Again", [5, 6, 7])
    other = store.add_study(store.studies()[0].study, "cli:somebody-else")
    assert main(["study", "stop", other.id, *place]) == 2
    assert "belongs to somebody-else: add --yes" in capsys.readouterr().err
    assert main(["study", "stop", other.id, "--yes", "--json", *place]) == 0
    assert printed_json(capsys) == {"study": other.id, "stopped": 0, "kept": 0}
