"""The page of the paper's tables, opened through app.py, on stores whose runs were written by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from mlae_lab.files import append_line
from mlae_lab.runs import paper_studies, studies
from mlae_lab.runs.paths import throughput_file
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.throughput import Rate, Throughput
from tests.lab import html, measured, open_page

opened = partial(open_page, "paper")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


@pytest.fixture(autouse=True)
def no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))


def test_the_list_says_what_is_ready_and_shared(store: RunStore) -> None:
    shown = html(opened())
    assert "15 rows · 0 of 19 tasks ready, stand-in on 4 bundled tasks · 60 arms" in shown
    assert "24 arms, 8 of them also in a table above · its means are Table 9" in shown
    assert "Not trained: images per second are measured, parameters at inference are counted" in shown


def test_a_table_starts_and_its_results_are_compared_with_the_paper(store: RunStore) -> None:
    at = opened(table="table13")
    assert "trained" not in html(at)
    at.multiselect[0].set_value(["dsprites_loc_rendered"])
    at.number_input(key="paper_seeds").set_value(1)
    at.number_input(key="paper_epochs").set_value(2).run()
    assert "No images here of CIFAR-100" in html(at)
    assert "paper table13 --tasks dsprites_loc_rendered --seeds 1 --epochs 2 --start" in at.code[0].value
    next(button for button in at.button if button.label == "Start").click().run()
    (stored,) = store.studies()
    assert stored.study.title == "Bundled stand-in of Table 13: Number of experts"
    for cell, accuracy in zip(studies.state(store, stored.id).cells, (70.0, 75.0), strict=False):
        assert cell.run is not None
        measured(store, cell.run, accuracy)
    assert [cell.accuracy for cell in studies.state(store, stored.id).cells] == [70.0, 75.0, None]
    at = opened(table="table13")
    shown = html(at)
    assert "2 of 3 runs are done." in shown
    assert "<td" in shown
    assert "75.0" in shown
    assert "No claim about the paper's numbers: another task, other weights (lab_vit_12x128)." in shown
    at.selectbox[0].set_value("dsprites_loc_rendered").run()
    shown = html(at)
    assert "−12.5" in shown  # 70.0 for 82.5
    assert "−11.9" in shown  # 75.0 for 86.9
    assert "trained: 2 of 3 runs" in html(opened())


def test_the_choices_of_table_10(store: RunStore) -> None:
    planned = paper_studies.table_study("table10", ["dsprites_ori_rendered"], seeds=[0], epochs=2)
    stored = paper_studies.start(store, planned)
    for cell in studies.state(store, stored.id).cells:
        assert cell.run is not None
        measured(store, cell.run, 60.0 if cell.arm in ("p = 0.3", "λ = 2") else 50.0)
    shown = html(opened(table="table10"))
    assert "p, paper" in shown
    assert all(f">{value}</td>" in shown for value in ("0.3", "0.7", "2", "4"))


def test_table_3_is_counted_and_an_unknown_one_is_refused(store: RunStore) -> None:
    at = opened(table="table3")
    assert "it reports inference on an RTX 3090" in html(at)
    assert any("paper table3 --measure" in entry.value for entry in at.code)
    rates = tuple(Rate("mlae", merged, batch, 100.0 + batch) for merged in (False, True) for batch in (1, 4, 16))
    where = ("2026-11-28T10:00:00Z", "A chip", "cuda", "bfloat16", 1, "2.14")
    entry = Throughput(*where, "vit_base_patch16_224.random", rates)
    append_line(throughput_file(store.folder), json.dumps(asdict(entry)))
    shown = html(opened(table="table3"))
    assert "A chip, bfloat16, torch 2.14, 2026-11-28" in shown
    assert all(f">{value}</td>" in shown for value in ("101.0", "91.5", "116.0", "538.5"))
    (warning,) = opened(table="table77").warning
    assert "is no table of the paper" in warning.value
