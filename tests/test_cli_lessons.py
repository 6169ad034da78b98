"""`lessons` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.lessons import LESSONS
from tests.lab import printed_json


def test_the_list_has_the_state_of_each_recording(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["lessons", "--json", "--store", str(tmp_path / "none")]) == 0
    rows = printed_json(capsys)["lessons"]
    assert [row["lesson"] for row in rows] == [entry.name for entry in LESSONS]
    assert {row["recording"] for row in rows} == {"recorded"}
    assert all(row["seeds"] == [0, 1, 2] and len(row["runs"]) == len(entry.arms)
               for row, entry in zip(rows, LESSONS, strict=True))  # fmt: skip
    assert not (tmp_path / "none").exists(), "a list creates no store"


def test_a_wrong_request_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["record"], ["record", "nothing"], ["record", "all", "--seeds", "2"]):
        assert main(["lessons", *words, "--store", str(tmp_path / "none")]) == 2
        assert "mlae_lab: " in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
