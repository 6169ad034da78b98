"""Many images on Predict, and labels corrected on Errors, on a run of an own dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.data import own_dataset
from mlae_lab.data.duplicates import examine
from mlae_lab.data.image_record import read_record, write_record
from mlae_lab.data.own_dataset import Changes, Origin
from mlae_lab.data.own_source import read_source
from mlae_lab.data.tasks import load_protocol, located
from mlae_lab.runs import probe
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import draft
from tests.lab import end_probe, few_images, figures, finished, html, open_page, small_config


@pytest.fixture(scope="module")
def lab(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str, Path]]:
    """A store with a run on the dataset birds, and the dataset's folder, which is below a root of the server."""
    folder = tmp_path_factory.mktemp("use")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLAE_LAB_STORE", str(folder / "store"))
        patch.setenv("MLAE_LAB_DATA", str(folder / "data"))
        patch.setenv("MLAE_LAB_IMAGE_FOLDERS", str(folder / "data" / "own"))
        source = read_source(few_images())
        facts = examine(source.folder, [image.path for image in source.images])
        plan = own_dataset.plan(source, facts, Changes(ratio=None, duplicates="keep"))
        own_dataset.write(plan, "birds", Origin("folder", "few"))
        store = RunStore(folder / "store")
        config = located(replace(small_config(), task="own:birds", learning_rate=2e-3))
        run = finished(store, config)
        record = load_protocol(config).record
        assert record
        write_record(store.paths(run).images, record)
        yield store, run, folder / "data" / "own" / "birds"
        end_probe(store, run)


def test_a_folder_is_classified_on_the_page(lab: tuple[RunStore, str, Path]) -> None:
    store, run, _ = lab
    errors = probe.wait(store, run, "errors", {"images": "all"}).value
    assert errors
    at = open_page("experts", run=run, view="predict")
    at.button_group(key="predict_kind").set_value("Many images").run()
    at.button_group(key="batch_where").set_value("Folder on this machine").run()
    at.selectbox(key="batch_below").set_value("birds/val").run()
    at.button(key="batch_start_folder").click().run()
    assert not at.exception
    assert not at.warning
    assert "<dt>Classified</dt><dd>20</dd>" in html(at)
    assert "class-balance" in figures(at)
    at.selectbox(key="batch_abstain").set_value("For an accuracy on val").run()
    at.number_input(key="batch_accuracy").set_value(1.0).run()
    assert "Of its 20 evaluation images it keeps 20 (100.0 %" in html(at)
    at.selectbox(key="batch_abstain").set_value("Below a probability").run()
    at.number_input(key="batch_below").set_value(1.0).run()
    assert "<dt>Abstained</dt><dd>20</dd>" in html(at)
    at.button(key=f"batch_{run}_other").click().run()
    assert at.button_group(key="batch_where").value


def test_corrected_labels_become_a_version_and_a_run_on_it(lab: tuple[RunStore, str, Path]) -> None:
    store, run, folder = lab
    errors = probe.wait(store, run, "errors", {"images": "all"}).value
    record = read_record(store.paths(run).images)
    assert errors
    assert record
    order = sorted(range(20), key=lambda row: errors["confidence"][row])
    assert probe.wait(store, run, "images_at", {"indices": order, "size": 192}).value
    at = open_page("experts", run=run, view="errors")
    at.toggle(key=f"relabel_open_{run}").set_value(True).run()
    assert at.button(key=f"relabel_create_{run}").disabled
    label = errors["names"][errors["truth"][order[0]]]
    other = next(name for name in errors["names"] if name != label)
    at.selectbox(key=f"relabel_image_{order[0]}_{run}").set_value(other).run()
    at.selectbox(key=f"relabel_image_{order[1]}_{run}").set_value("/").run()
    assert "1 label corrected, 1 image left out" in html(at)
    at.button(key=f"relabel_create_{run}").click().run()
    assert not at.exception
    assert not at.warning
    path = record.evaluation.paths[order[0]]
    version = folder.parent / "birds v2"
    assert not (version / path).exists()
    names = {name: len(list((version / "val" / name).iterdir())) for name in errors["names"]}
    assert sum(names.values()) == 19
    at.button(key=f"relabel_run_{run}").click().run()
    assert not at.exception
    taken = at.session_state[draft._DRAFT]
    config = store.run(run).config
    ignored = {"data": "", "data_label": "", "data_notes": (), "data_fingerprint": ""}
    assert replace(taken, **ignored) == replace(config, task="own:birds v2", **ignored)
