"""The command `paper`: list, plan, start, and results next to the printed numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.runs.store import RunStore
from tests.lab import printed_json

SMALL = ["--tasks", "digits", "--epochs", "1", "--seeds", "1", "--backbone", "lab_vit_12x128.random"]


@pytest.fixture(autouse=True)
def no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))


def test_the_list_names_every_table_and_counts_shared_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", str(tmp_path / "lab")]
    assert main(["paper", "--json", *place]) == 0
    listed = printed_json(capsys)
    assert len(listed["tables"]) == 17
    assert listed["runs"] == sum(table.get("new_runs", 0) for table in listed["tables"]) == 708
    assert sum(table.get("runs", 0) for table in listed["tables"]) == 990
    tables = {table["table"]: table for table in listed["tables"]}
    assert tables["table9"]["means_of"] == "table15"
    assert "RTX 3090" in tables["table3"]["refused"]
    assert (tables["table11"]["stand_in"], tables["table11"]["missing"][0]) == (True, "cub")
    assert main(["paper", *place]) == 0
    out = capsys.readouterr().out
    assert "708 runs with 3 seeds" in out
    assert max(map(len, out.splitlines())) <= 120
    assert not (tmp_path / "lab").exists()


def test_a_dry_run_starts_nothing_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "lab"
    place = ["--store", str(store)]
    assert main(["paper", "table4", "--dry-run", "--json", *place]) == 0
    plan = printed_json(capsys)
    assert (plan["runs"], plan["reused"], plan["to_run"], len(plan["arms"])) == (180, 0, 180, 60)
    assert (plan["title"], len(plan["missing"])) == ("Bundled stand-in of Table 4: Masking strategies", 19)
    assert plan["shared"]["table15"] == 3
    assert main(["paper", "table6", "--rows", "rank 1; Rank 2", "--seeds", "4,5", *place]) == 0
    out = capsys.readouterr().out
    assert "Bundled stand-in of Table 12" in out
    assert "of 16 runs 0 are there: 16 to run" in out
    assert main(["paper", "table3", "--json", *place]) == 0
    assert printed_json(capsys)["rows"][-1] == {"row": "MLAE (Ours)", "added": 0, "paper": None}
    assert not store.exists()


@pytest.mark.usefixtures("trains_here")
def test_a_table_is_trained_and_shown_and_another_one_reuses_its_runs(
    store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", str(store.folder)]
    assert main(["paper", "table1", "--rows", "Linear", "--start", *SMALL, *place]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 runs" in out
    assert "No claim about the paper's numbers: another task, other weights (lab_vit_12x128.random)." in out
    assert main(["paper", "table1", "--show", "--json", *place]) == 0
    shown = printed_json(capsys)
    (row,) = shown["rows"]
    cell = row["cells"]["mean"]
    assert 0 < cell["ours"] < 100
    assert (cell["paper"], cell["source"], cell["seeds"], cell["claim"]) == (57.6, "Table 1", 1, "")
    assert cell["difference"] == pytest.approx(cell["ours"] - 57.6)
    assert main(["paper", "table11", "--rows", "linear; Bias", "--json", *SMALL, *place]) == 0
    plan = printed_json(capsys)
    assert (plan["runs"], plan["reused"], plan["to_run"]) == (2, 1, 1)
    again = ["paper", "table1", "--rows", "Linear", "--start", "--detach", "--json"]
    assert main([*again, *SMALL, *place]) == 0
    assert printed_json(capsys) == {"study": shown["study"], "runs": 1}
    assert len(store.runs()) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("table3 --start", "Table 3 cannot be trained: it reports inference"),
        ("table99", "'table99' is no table of the paper with numbers: choose from table1"),
        ("table4 --show", "Table 4 was not started here"),
        ("table4 --rows dense", "'dense' is no row of Table 4"),
        ("table4 --tasks cifar", "CIFAR-100 (cifar) has no data here"),
        ("table2 --tasks svhn", "svhn is no task of Table 2"),
        ("table4 --seeds x", "--seeds is 'x'"),
        ("table4 --epochs 0", "epochs is 0"),
        ("--start", "no table is named"),
        ("table4 --start --show", "not allowed with argument"),
    ],
)
def test_invalid_requests_are_one_sentence(
    words: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", *words.split(), "--store", str(tmp_path / "lab")]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "lab").exists()
