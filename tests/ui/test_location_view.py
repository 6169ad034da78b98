"""The fields for the images and weights of a run, on the Runs page and as the Experts page shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.data import tasks
from mlae_lab.runs.run_location import read_location
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.ui.location_view import has_files
from tests.data.trees import make_own
from tests.lab import measured

VIT = "vit_base_patch16_224.orig_in21k"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return make_own(tmp_path / "photos", {"wren": 12, "owl": 12})


def test_a_moved_run_gets_its_folder_on_the_runs_page(
    photos: Path, store: RunStore, tab: Callable[..., AppTest]
) -> None:
    config = tasks.located(replace(FIRST_RUN, task="own:birds", data=str(photos)))
    moved = replace(config, data=str(photos.with_name("before")))
    run = measured(store, store.enqueue(moved, "cpu"), 50.0, status=Status.STOPPED)
    at = tab("runs", "ada-" * 5, select=run.id)

    def use(folder: Path) -> AppTest:
        at.text_input(key=f"runs_data_{run.id}").set_value(str(folder))
        next(button for button in at.button if button.label == "Use for this run").click()
        return at.run()

    other = make_own(photos.with_name("other"), {"wren": 3, "owl": 12})
    warnings = [warning.value for warning in use(other).warning]
    assert any("name the folder that holds the run's images" in text for text in warnings), warnings
    assert read_location(store.paths(run.id)).data == ""
    assert not use(photos).warning
    assert not at.exception
    assert read_location(store.paths(run.id)).data == str(photos)


def test_the_experts_page_has_the_fields(photos: Path, store: RunStore, tab: Callable[..., AppTest]) -> None:
    config = tasks.located(replace(FIRST_RUN, task="own:birds", data=str(photos), method="linear"))
    run = measured(store, store.enqueue(config, "cpu"), 50.0)
    store.paths(run.id).adapter.write_bytes(b"adapter")
    at = tab("experts", "ada-" * 5, run=run.id, view="seeds")
    at.text_input(key=f"experts_data_{run.id}").set_value(str(photos))
    next(button for button in at.button if button.label == "Use for this run").click()
    assert not at.run().exception
    assert read_location(store.paths(run.id)).data == str(photos)


def test_only_a_run_with_files_of_its_own_has_fields(store: RunStore, tab: Callable[..., AppTest]) -> None:
    bundled = measured(store, store.enqueue(FIRST_RUN, "cpu"), 50.0)
    assert not has_files(bundled)
    assert has_files(replace(bundled, config=replace(bundled.config, weights="vit.safetensors")))
    assert has_files(replace(bundled, config=RunConfig("digits", FIRST_RUN.plan, backbone=VIT)))
    at = tab("runs", "ada-" * 5, select=bundled.id)
    assert not [button for button in at.button if button.label == "Use for this run"]
