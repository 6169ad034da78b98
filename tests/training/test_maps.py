"""Questions about images, asked of a small real run."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import ExpertStats
from mlae_lab.core.patterns import allocation
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.evaluation import autocast
from mlae_lab.training.loaded_run import LoadedRun, QueryError, load_run
from mlae_lab.training.queries import queries
from mlae_lab.training.queries.images import indices_of, spread_out
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

PLAN = allocation((0,) * 8 + (2, 2, 3, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedRun, ExpertStats]:
    """A run of one epoch that can be asked, and the last grid that it measured of itself."""
    config = RunConfig(
        "digits",
        PLAN,
        backbone="lab_vit_12x128.random",
        epochs=1,
        device="cpu",
        precision="float32",
        learning_rate=5e-3,
    )
    setup = prepare(config)
    stats = [event for event in fit(setup) if isinstance(event, ExpertStats)][-1]
    file = tmp_path_factory.mktemp("maps") / "adapter.safetensors"
    save_adapter(file, setup.experts, setup.head, config.backbone, config.task)
    return load_run(config, file, "r1", "cpu"), stats


@pytest.fixture
def loaded(trained: tuple[LoadedRun, ExpertStats]) -> LoadedRun:
    return trained[0]


def ask(loaded: LoadedRun, name: str, **arguments: object) -> dict:
    """Asks, and sees to it that the network is as it was found whenever tell is called, and at the end."""
    model = loaded.setup.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    told = []

    def on_progress(done: int, total: int) -> None:
        told.append((done, total))
        assert 0 <= done <= total
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        assert not torch.is_autocast_enabled("cpu")

    answer = queries()[name](loaded, arguments, on_progress)
    assert told or name in ("images", "predict_without")
    on_progress(0, 1)
    return answer


def file_of(pixels: np.ndarray, kind: str = "PNG") -> dict:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind)
    return {"file": base64.b64encode(held.getvalue()).decode()}


# ---------------------------------------------------------------- activation


def test_the_layers_agree_with_the_grid_that_the_run_measured(trained: tuple[LoadedRun, ExpertStats]) -> None:
    loaded, stats = trained
    first = list(range(min(256, len(loaded.setup.evaluation))))  # what a run measures itself on
    found = ask(loaded, "activation", by="layer", images=first)
    assert found["images"] == len(first) == 200
    for row, live in zip(found["canvas"], stats.contribution, strict=True):
        for value, measured in zip(row, live, strict=True):
            assert (value is None) == (measured is None)
            assert value is None or value == pytest.approx(measured, rel=1e-4, abs=2e-6)
    assert found["canvas"][0] == [None] * 3


def test_classes_and_images_are_means_of_the_same_numbers(loaded: LoadedRun) -> None:
    one = ask(loaded, "activation", by="image", images=40)
    classes = ask(loaded, "activation", by="class", images=40)
    values = np.array(one["values"], dtype=float)
    truth = np.array(one["truth"])
    assert values.shape == (40, 12, 3)
    assert one["indices"] == list(range(0, 200, 5))
    assert sum(classes["counts"]) == 40
    assert np.allclose(np.array(one["canvas"], dtype=float), values.mean(0), rtol=1e-4, equal_nan=True)
    for label, count in enumerate(classes["counts"]):
        expected = values[truth == label].mean(0) if count else np.full((12, 3), np.nan)
        assert np.allclose(np.array(classes["values"][label], dtype=float), expected, rtol=1e-4, equal_nan=True)
    chosen = ask(loaded, "activation", by="image", images=[35, 15])
    assert np.allclose(np.array(chosen["values"], dtype=float), values[[7, 3]], rtol=1e-4, equal_nan=True)


def test_a_number_of_images_reaches_every_class_of_a_sorted_list(loaded: LoadedRun) -> None:
    inputs = loaded.setup.evaluation
    order = inputs.labels.cpu().sort(stable=True).indices
    labels = inputs.labels.cpu()[order]
    indices = indices_of(20, inputs, None)
    assert len(set(labels[indices].tolist())) == 10 > len(set(labels[:20].tolist()))


@pytest.mark.parametrize(
    ("wanted", "images", "indices"),
    [(1, 5, [0]), (2, 5, [0, 2]), (3, 10, [0, 3, 6]), (5, 5, [0, 1, 2, 3, 4]), (0, 5, [])],
)
def test_places_are_spread_evenly(wanted: int, images: int, indices: list[int]) -> None:
    assert spread_out(wanted, images) == indices


def test_all_questions_about_a_number_of_images_ask_about_the_same_ones(loaded: LoadedRun) -> None:
    on_progress = lambda done, total: None  # noqa: E731
    indices = spread_out(37, len(loaded.setup.evaluation))
    assert queries()["errors"](loaded, {"images": 37}, on_progress)["indices"] == indices
    assert ask(loaded, "activation", by="image", images=37)["indices"] == indices
    labels = loaded.setup.evaluation.labels.cpu()[indices]
    said = queries()["whatif"](loaded, {"images": 37}, on_progress)
    assert said["class_images"] == labels.bincount(minlength=10).tolist()


# ---------------------------------------------------------------- attention


def test_maps_stand_on_the_grid_of_the_backbone(loaded: LoadedRun) -> None:
    found = ask(loaded, "attention", images=[0, 5], layer=11)
    assert (found["layer"], found["target"], found["experts"]) == (11, "blocks.10.attn.qkv", [1, 2, 3])
    assert found["grid"] == [6, 6]
    assert found["no_attention"] == found["no_maps"] == found["no_alone"] == ""
    assert [one["index"] for one in found["images"]] == [0, 5]
    assert "private" not in found
    for one in found["images"]:
        assert np.array(one["added"]).shape == np.array(one["signed"]).shape == (3, 6, 6)
        assert np.allclose(np.abs(one["signed"]), one["added"], rtol=1e-3, atol=1e-6)
        assert np.array(one["attention"]["alone"]).shape == (3, 6, 6)
        for name in ("with", "without"):
            assert 0 < np.sum(one["rollout"][name]) < 1
        assert one["rollout"]["with"] != one["rollout"]["without"]
        assert Image.open(io.BytesIO(base64.b64decode(one["image"]))).size == (48, 48)
    assert ask(loaded, "attention", images=[0])["layer"] == 12  # the last that keeps an expert


def test_a_file_of_the_tasks_own_image_gives_the_same_maps_and_is_not_to_be_kept(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.evaluation.part.images[5])
    own, file = ask(loaded, "attention", images=[5]), ask(loaded, "attention", images=[file_of(pixels)])
    assert file["private"] is True
    assert file["images"][0]["index"] is None
    assert file["images"][0]["truth"] is None
    for name in ("added", "attention", "rollout", "image", "predicted", "confidence"):
        assert file["images"][0][name] == own["images"][0][name]


# ---------------------------------------------------------------- predict


def test_a_prediction_is_that_of_the_network(loaded: LoadedRun) -> None:
    setup = loaded.setup
    found = ask(loaded, "predict", image=9)
    with torch.no_grad(), autocast(setup):
        logits = setup.behind(setup.evaluation.take(torch.tensor([9])))
    truth = logits.float().softmax(1)[0]
    assert [one["class"] for one in found["top"]] == truth.topk(5).indices.tolist()
    assert [one["probability"] for one in found["top"]] == pytest.approx(truth.topk(5).values.tolist(), abs=2e-6)
    assert [one["layer"] for one in found["without_layer"]] == list(range(9, 13))
    assert all(one["flips"] == (one["class"] != found["top"][0]["class"]) for one in found["without_layer"])
    by_image = ask(loaded, "activation", by="image", images=[9])["values"][0]
    assert np.allclose(np.array(found["canvas"], float), np.array(by_image, float), rtol=1e-4, equal_nan=True)


def test_the_nearest_training_image_of_a_training_image_is_itself(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.train.part.images[17])
    found = ask(loaded, "predict", image=file_of(pixels))
    assert found["nearest"][0]["index"] == 17
    assert found["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    cosines = [one["cosine"] for one in found["nearest"]]
    assert len(cosines) == 6
    assert cosines == sorted(cosines, reverse=True)
    assert found["private"] is True


def test_an_image_with_experts_off_is_answered_as_the_network_without_them(loaded: LoadedRun) -> None:
    setup, layers = loaded.setup, loaded.setup.experts.layers
    target = PLAN.targets[10]
    found = ask(loaded, "predict_without", image=9, off="L11E2")
    whole, trained = ask(loaded, "predict_without", image=9), ask(loaded, "predict", image=9)
    kept = layers[target].coefficient.clone()
    with torch.no_grad():
        layers[target].coefficient[1] = 0.0
        with autocast(setup):
            slow = setup.behind(setup.evaluation.take(torch.tensor([9]))).float().softmax(1)[0].tolist()
        layers[target].coefficient.copy_(kept)
    assert found["now"] == pytest.approx(slow, abs=2e-6)
    assert found["now"] != found["before"] == whole["now"]
    first = trained["top"][0]
    assert whole["before"][first["class"]] == pytest.approx(first["probability"], abs=2e-6) == max(whole["before"])
    assert (found["experts"], found["off"], whole["experts"]) == (7, "L11E2", 8)
    assert "private" not in found


def test_a_file_of_ones_own_can_be_asked_without_experts_and_stays_private(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.evaluation.part.images[9])
    own = ask(loaded, "predict_without", image=file_of(pixels), off="L12", scale=0.5)
    assert own["private"] is True
    assert own["index"] is None
    assert own["now"] == pytest.approx(ask(loaded, "predict_without", image=9, off="L12", scale=0.5)["now"], abs=2e-6)


def test_images_to_choose_from(loaded: LoadedRun) -> None:
    labels = loaded.setup.evaluation.labels
    found = ask(loaded, "images", label=3, first=1, count=4)
    indices = [one["index"] for one in found["images"]]
    assert indices == (labels == 3).nonzero().flatten()[1:5].tolist()
    assert found["total"] == int((labels == 3).sum())
    assert len(ask(loaded, "images", count=64)["images"]) == 64


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("activation", {"by": "head"}, "choose layer, class, image"),
        ("activation", {"images": [200]}, "image 200 does not exist: the evaluation images are 0 to 199"),
        ("activation", {"images": 0}, "choose at least one"),
        ("activation", {"by": "image", "images": [0] * 257}, "choose 1 to 256"),
        ("activation", {"images": "all"}, "give a whole number from 0"),
        ("attention", {}, "1 to 12 images"),
        ("attention", {"images": [0] * 13}, "1 to 12 images"),
        ("attention", {"images": [0], "layer": 1}, "layer 1 keeps no expert: choose one of 9, 10"),
        ("attention", {"images": [0], "layer": True}, "give a whole number"),
        ("attention", {"images": [-1]}, "give a whole number"),
        ("predict", {}, "give a whole number"),
        ("predict", {"image": {"file": "§"}}, "this is none"),
        ("predict", {"image": {"file": "AAAA"}}, "the file cannot be read as an image .no known image format."),
        ("predict", {"image": {"file": "A" * (7 * 2**20)}}, "at most 5 MB"),
        ("predict_without", {"image": 0, "off": "L13"}, "layers 1 to 12"),
        ("predict_without", {"image": 0, "rate": 0.5}, "'rate' is no argument"),
        ("predict_without", {"off": "L12"}, "give a whole number"),
        ("predict", {"image": {"path": "/etc/passwd"}}, "at most 5 MB"),
        ("images", {"count": 65}, "choose 1 to 64"),
    ],
)
def test_a_wrong_question_is_one_sentence(name: str, arguments: Mapping, why: str, loaded: LoadedRun) -> None:
    with pytest.raises(QueryError, match=why):
        ask(loaded, name, **arguments)


def test_only_formats_that_run_nothing_are_opened(loaded: LoadedRun) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n"
    with pytest.raises(QueryError, match="upload an image in one of the formats JPEG, PNG"):
        ask(loaded, "predict", image={"file": base64.b64encode(script).decode()})


def test_a_run_without_experts_predicts_and_says_what_it_has_not(tmp_path: Path, loaded: LoadedRun) -> None:
    bare = LoadedRun(loaded.setup, tmp_path)
    bare.setup = type(loaded.setup)(**{**vars(loaded.setup), "experts": None})
    for name, arguments in (("activation", {}), ("attention", {"images": [0]}), ("predict_without", {"image": 0})):
        with pytest.raises(QueryError, match="has no experts"):
            queries()[name](bare, arguments, lambda done, total: None)
    found = ask(bare, "predict", image=0)
    assert found["canvas"] is found["without_all"] is None
    assert found["without_layer"] == []
    assert len(found["nearest"]) == 6
    assert found["top"] == ask(loaded, "predict", image=0)["top"]
