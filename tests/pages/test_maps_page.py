"""The views of contributions, maps and predictions, opened through app.py on a real run."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from mlae_lab.data.bundled import load_bundled
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit
from mlae_lab.ui.figures.maps import SCALES
from tests.lab import end_probe, figures, finished_run, html, open_page, small_config


@pytest.fixture(scope="module")
def trained(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    store, run = finished_run(tmp_path_factory.mktemp("maps"))
    yield store, run
    end_probe(store, run)


@pytest.fixture
def view(trained: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Opens a view of the run and waits until so many figures are drawn."""
    store, run = trained
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))

    def opened(name: str, count: int, **query: str) -> AppTest:
        return settled(open_page("experts", run=run, view=name, **query), count)

    return opened


def settled(at: AppTest, count: int) -> AppTest:
    """Rerun, as the browser does while an answer is awaited, until so many figures are drawn."""
    return until(at, lambda: len(figures(at)) >= count)


def until(at: AppTest, condition: Callable[[], bool]) -> AppTest:
    """Rerun until something is so; gives up only when it hangs for good."""
    deadline = time.monotonic() + 180
    while True:
        at.run()
        assert not at.exception
        if condition():
            return at
        assert time.monotonic() < deadline, (figures(at), [w.value for w in at.warning], html(at)[-300:])
        time.sleep(0.2)


def test_activation_shows_layers_classes_and_one_image(view: Callable) -> None:
    at = view("activation", 3)
    assert set(figures(at)) == {"experts-contribution", "contribution-by-class", "contribution-against-average"}
    assert "10 classes by 5 experts" in figures(at)["contribution-by-class"]
    assert "‖λᵢ bᵢ aᵢᵀx‖ / ‖Wx + bias‖" in html(at)
    assert "equations 3 to 5" in html(at)
    at.selectbox(key="activation_row").select(11)
    assert "10 classes by 2 experts" in figures(settled(at, 3))["contribution-by-class"]
    at.segmented_control(key="activation_what").set_value("An image")
    assert "image 0: layer" in figures(settled(at, 3))["contribution-against-average"]


def test_attention_is_a_link_with_images_and_layer(view: Callable) -> None:
    at = view("attention", 2, images="4,9", layer="11")
    assert set(figures(at)) == {"experts-layer-11-added", "rollout"}
    assert "2 images down, 3 maps across" in figures(at)["experts-layer-11-added"]
    assert (at.query_params["images"], at.query_params["layer"]) == ("4,9", "11")
    assert "Abnar and Zuidema 2020" in html(at)
    assert "states neither the quantity nor the block" in html(at)
    assert html(at).count("Dark: 0, bright: the largest value of the map.") == 2
    assert "Change is with minus without; orange: more attention, blue: less, dark: 0." in html(at)
    legends = {"signed": "Orange: along bᵢ, blue: against it", "change": "Orange: the patch gains attention, blue: it"}
    for show, legend in legends.items():
        at.segmented_control(key="attention_show").set_value(show)
        assert f"experts-layer-11-{show}" in figures(settled(at, 2))
        assert legend in html(at)
    at.segmented_control(key="attention_scale").set_value(SCALES[2])
    assert "bright: the largest value of all maps." in html(settled(at, 2))


def test_a_broken_address_is_a_sentence_or_the_beginning(view: Callable) -> None:
    at = view("attention", 2, images="x,,", layer="3")
    assert "experts-layer-12-added" in figures(at)
    assert "3 images down" in figures(at)["experts-layer-12-added"]
    at = view("attention", 0, images="5000")
    until(at, lambda: bool(at.warning))
    assert at.warning[0].value == "Image 5000 does not exist: the evaluation images are 0 to 199."


def test_predict_answers_for_the_tasks_images_and_for_ones_own(view: Callable, trained: tuple[RunStore, str]) -> None:
    at = view("predict", 4, images="5")
    own = figures(at)
    assert {"prediction", "without-each-layer", "experts-contribution"} < set(own)
    assert "image 5" in html(at)
    assert "The nearest training images" in html(at)
    held = io.BytesIO()
    Image.fromarray(load_bundled("digits").val.images[5]).save(held, "PNG")
    at.get("file_uploader")[0].upload("five.png", held.getvalue(), "image/png")
    mine = figures(settled(at, 4))
    assert "five.png" in html(at)
    assert mine["without-each-layer"] == own["without-each-layer"]
    folder = Path(trained[0].folder)
    assert not [path for path in folder.rglob("*") if "five" in path.name]


def test_contribution_of_a_stopped_run_names_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    setup = prepare(config)
    events = list(fit(setup))
    store = RunStore(tmp_path)
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    run = store.enqueue(replace(config, epochs=3), "cpu")
    store.append(run.id, events)
    store.move(run.id, Status.STOPPED)
    files = store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    save_adapter(files.adapter, setup.experts, setup.head, config.backbone, config.task)
    try:
        at = settled(open_page("experts", run=run.id, view="predict"), 3)
        assert figures(at)["experts-contribution"].endswith("epoch 1.")
    finally:
        end_probe(store, run.id)


def test_a_file_that_is_no_image_is_one_sentence(view: Callable) -> None:
    at = view("predict", 4)
    at.get("file_uploader")[0].upload("<b>.png", b"not an image", "image/png")
    until(at, lambda: bool(at.warning))
    assert "The file cannot be read as an image (no known image format)" in at.warning[0].value
