"""`race` on the command line: its masks, its output, its exit status."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab import cli
from mlae_lab.cli import main
from mlae_lab.cli.masks import plans_of
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import studies, study_results
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.data.trees import make_own
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]
TINY = [
    "--task", "own:birds", "--backbone", "lab_vit_12x128.random", "--device", "cpu", "--batch-size", "200",
    "--epochs", "1",
]  # fmt: skip
TWO = ["--mask", allocation((1,)).code, "--mask", allocation((2,), drop_rate=0.5).code]


def masks(*words: str) -> list[MaskPlan]:
    args = cli._parser().parse_args(["race", "--task", "digits", *words])
    return plans_of(args, args.backbone)


def test_masks_are_patterns_with_a_kind_codes_and_files(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(uniform(0.1).to_json())
    words = ["dense", "hourglass", "hourglass.mixed", "uniform", dense(12, 2).code, str(tmp_path / "plan.json")]
    plans = masks(*(part for word in words for part in ("--mask", word)), "--drop-rate", "0.25")
    assert plans == [
        dense(), pattern("hourglass"), pattern("hourglass", "mixed", 0.25), uniform(0.25), dense(12, 2), uniform(0.1),
    ]  # fmt: skip
    assert masks("--mask", "dense", "--expert-rank", "2") == [replace(dense(), expert_rank=2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mask", "dense"], "a race has 1 mask: choose 2 to 8"),
        (["--mask", "dense", "--mask", "dense"], "masks 1 and 2 are the same"),
        (["--mask", "dense", "--mask", "uniform", "--seeds", "11"], "seeds is 11: it must be a whole number"),
        (["--mask", "dense", "--mask", "uniform", "--seconds", "5"], "set no time limit"),
        (["--mask", "dense", "--mask", "dense.mixed"], "dense has no mixed mask"),
        (["--mask", "dense", "--mask", "nonsense"], "is neither a pattern"),
        (["--mask", "dense", "--mask", "m1_12x8_zz*12_0*12"], "is not a row of 8 experts"),
        (["--mask", "dense", "--mask", dense(13).code], "blocks.12.attn.qkv"),
        ([], "--mask"),
    ],
)
def test_an_invalid_request_is_one_sentence_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: Captured
) -> None:
    store = tmp_path / "lab"
    assert main(["race", "--task", "digits", *words, "--store", str(store), "--json"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not store.exists()


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, so that a run takes a moment."""
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    make_own(tmp_path / "data" / "own" / "birds", {"wren": 12, "owl": 12})


def test_a_race_is_followed_to_its_end(birds: None, trains_here: None, lab_store: RunStore, capsys: Captured) -> None:
    words = ["race", *TINY, *TWO, "--seeds", "2", "--store", str(lab_store.folder), "--json"]
    assert main(words) == 0
    result = printed_json(capsys)
    assert len(result["race"]) == 4
    (stored,) = lab_store.studies()
    assert (result["study"], result["link"]) == (stored.id, f"/studies?study={stored.id}")
    assert result["epoch"] == 1
    assert result["seeds"] == [0, 1]
    assert min(row["rank"] for row in result["masks"]) == 1
    assert all(re.match("leads|level|.* behind", row["distance"]) for row in result["masks"])
    assert [row["code"] for row in result["masks"]] == TWO[1::2]
    assert {run for row in result["masks"] for run in row["runs"].values()} == set(result["race"])
    assert "at the end" in result["verdict"]
    assert study_results.results(lab_store, studies.state(lab_store, stored.id)).verdict in result["verdict"]
    runs = {run.id: run for run in lab_store.runs()}
    assert {run.status for run in runs.values()} == {Status.FINISHED}
    assert {run.relation for run in runs.values()} == {"study"}
    assert main([*words[:-1]]) == 0
    assert len(lab_store.runs()) == 4
    assert lab_store.studies() == [stored]
    out = capsys.readouterr().out
    assert result["verdict"] in out
    assert result["link"] in out


def test_with_detach_it_prints_its_runs(birds: None, lab_store: RunStore, capsys: Captured) -> None:
    assert main(["race", *TINY, *TWO, "--detach", "--store", str(lab_store.folder), "--json"]) == 0
    result = printed_json(capsys)
    assert [run.id for run in reversed(lab_store.runs())] == result["runs"]
