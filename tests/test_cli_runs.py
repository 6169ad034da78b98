"""`runs --where`, `--fields`, `--csv` and `annotate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.runs.store import RunStore
from tests.lab import measured

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(store: RunStore) -> list[str]:
    rates = (0.2, 0.4, 0.6)
    return [measured(store, store.enqueue(RunConfig("digits", uniform(p)), "cpu"), 100 * p).id for p in rates]


def printed(capsys: Captured, store: RunStore, *words: str) -> dict:
    assert main([*words, "--store", str(store.folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys: Captured, store: RunStore, *words: str) -> str:
    assert main([*words, "--store", str(store.folder)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def test_a_condition_chooses_runs(store: RunStore, runs: list[str], capsys: Captured) -> None:
    result = printed(capsys, store, "runs", "--where", "task=digits and drop_rate>0.3")
    assert [row["run"] for row in result["runs"]] == runs[:0:-1]
    assert (result["runs"][0]["accuracy"], result["runs"][0]["parameters"]) == (60.0, 1)
    assert printed(capsys, store, "runs", "--where", "accuracy>99") == {"runs": []}
    assert main(["runs", "--where", "accuracy>99", "--store", str(store.folder)]) == 0
    assert capsys.readouterr().out == "no run meets 'accuracy>99'\n"
    error = refused(capsys, store, "runs", "--where", "drop_rat>0.3")
    assert error == "mlae_lab: there is no field 'drop_rat': the nearest are drop_rate, drop_path and dropout\n"


def test_options_of_runs_that_exclude_each_other(store: RunStore, runs: list[str], capsys: Captured) -> None:
    for words in (["--archived", "--fields"], [runs[0], "--where", "epochs>1"], ["--fields", "--csv", "x.csv"]):
        assert "takes only one of" in refused(capsys, store, "runs", *words)


def test_fields_are_listed_with_kind_and_meaning(store: RunStore, capsys: Captured) -> None:
    fields = {row["name"]: row for row in printed(capsys, store, "runs", "--fields")["fields"]}
    assert fields["drop_rate"]["kind"] == "number"
    assert all(row["help"] for row in fields.values())


def test_runs_are_written_as_csv(store: RunStore, runs: list[str], capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    result = printed(capsys, store, "runs", "--where", "drop_rate<0.5", "--csv", str(file))
    assert result == {"file": str(file), "runs": runs[1::-1]}
    assert [line["run"] for line in csv.DictReader(file.read_text().splitlines())] == runs[1::-1]
    assert "--force" in refused(capsys, store, "runs", "--csv", str(file))
    assert len(printed(capsys, store, "runs", "--csv", str(file), "--force")["runs"]) == 3


def test_a_run_is_annotated(store: RunStore, runs: list[str], capsys: Captured) -> None:
    words = ["annotate", runs[0], "--name", "Weak", "--notes", "see Monday", "--tag", "b", "--tag", "a"]
    assert printed(capsys, store, *words) == {
        "run": runs[0], "name": "Weak", "tags": ["a", "b"], "notes": "see Monday",
    }  # fmt: skip
    assert printed(capsys, store, "annotate", runs[0], "--untag", "A")["tags"] == ["b"]
    (row,) = printed(capsys, store, "runs", "--where", "tags=b")["runs"]
    assert (row["name"], row["notes"], row["tags"]) == ("Weak", "see Monday", ["b"])
    assert "nothing is to be changed" in refused(capsys, store, "annotate", runs[0])
    assert "no comma" in refused(capsys, store, "annotate", runs[0], "--tag", "a,b")


def test_the_run_of_somebody_else_is_annotated_only_if_that_is_wanted(store: RunStore, capsys: Captured) -> None:
    run = measured(store, store.enqueue(RunConfig("digits"), "cpu", owner="cli:ada"), 50.0).id
    assert "--yes" in refused(capsys, store, "annotate", run, "--name", "Mine")
    assert printed(capsys, store, "annotate", run, "--name", "Mine", "--yes")["name"] == "Mine"
