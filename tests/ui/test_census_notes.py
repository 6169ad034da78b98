"""What the census notes about images reaches the command line, its JSON, the launch panel and the page of the run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.cli import main
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.data import tasks
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import live_bench, queries
from mlae_lab.ui.live_bench import BenchText
from tests.data.trees import make_own
from tests.lab import html, printed_json

NOTE = "crow"  # a class with too few images


@pytest.fixture(autouse=True)
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return make_own(tmp_path / "data" / "own" / "birds", {"wren": 12, "owl": 12, "crow": 2})


@pytest.mark.parametrize(
    "command", [["train"], ["race", "--mask", "dense", "--mask", "uniform"], ["diversity", "--seeds", "1"]]
)
def test_on_the_command_line_and_in_its_json(
    command: list[str], store: RunStore, no_supervisor: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, "--task", "own:birds", "--epochs", "1", "--detach", "--store", str(store.folder)]
    assert main(words) == 0
    first = capsys.readouterr()
    notes = tasks.located(replace(FIRST_RUN, task="own:birds")).data_notes
    assert any(NOTE in note for note in notes)
    for note in notes:
        assert f"note: {note}\n" in first.err
    assert main([*words, "--json"]) == 0
    assert printed_json(capsys)["data_notes"] == list(notes)


def test_on_the_launch_panel_and_on_the_page_of_the_run(
    store: RunStore, no_supervisor: None, tab: Callable[..., AppTest]
) -> None:
    config = tasks.located(replace(FIRST_RUN, task="own:birds"))
    at = tab("train", "ada-" * 5, task="own:birds")
    for note in config.data_notes:
        assert note in html(at).replace("&#x27;", "'")
    assert config.data_label in html(at)
    run = store.enqueue(config, "cpu")
    message = live_bench.message(run, queries.tail(run.id, 0.0), BenchText((), "", ""))
    assert json.loads(zlib.decompress(message))["notes"] == list(config.data_notes)


def test_problems_are_shown_before_the_launch(birds: Path, store: RunStore, tab: Callable[..., AppTest]) -> None:
    for file in birds.rglob("*.*"):
        file.unlink()
    at = tab("train", "ada-" * 5, task="own:birds")
    assert at.error
    assert not at.exception
