"""Queries about images, on a small real run."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import ExpertStats
from mlae_lab.core.patterns import allocation
from mlae_lab.methods.adapter import Adapter
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
    """A loaded run of one epoch, and the last expert statistics that it recorded."""
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


def quiet(done: int, total: int) -> None:
    """Ignore progress."""


def ask(loaded: LoadedRun, name: str, **arguments: object) -> dict:
    """Run a query; the network must be unchanged at every progress report and at the end."""
    model = loaded.setup.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    reports = []

    def on_progress(done: int, total: int) -> None:
        reports.append((done, total))
        assert 0 <= done <= total
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        assert not torch.is_autocast_enabled("cpu")

    answer = queries()[name](loaded, arguments, on_progress)
    assert reports or name in ("images", "predict_without")
    on_progress(0, 1)
    return answer


def file_of(pixels: np.ndarray, kind: str = "PNG") -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return {"file": base64.b64encode(buffer.getvalue()).decode()}


# ---------------------------------------------------------------- activation


def test_the_layers_agree_with_the_statistics_of_the_run(trained: tuple[LoadedRun, ExpertStats]) -> None:
    loaded, stats = trained
    first = list(range(min(256, len(loaded.setup.evaluation))))  # the images on which a run records it
    answer = ask(loaded, "activation", by="layer", images=first)
    assert answer["images"] == len(first) == 200
    for row, recorded in zip(answer["canvas"], stats.contribution, strict=True):
        for value, measured in zip(row, recorded, strict=True):
            assert (value is None) == (measured is None)
            assert value is None or value == pytest.approx(measured, rel=1e-4, abs=2e-6)
    assert answer["canvas"][0] == [None] * 3


def test_classes_and_layers_are_means_over_images(loaded: LoadedRun) -> None:
    by_image = ask(loaded, "activation", by="image", images=40)
    by_class = ask(loaded, "activation", by="class", images=40)
    values = np.array(by_image["values"], dtype=float)
    labels = np.array(by_image["truth"])
    assert values.shape == (40, 12, 3)
    assert by_image["indices"] == list(range(0, 200, 5))
    assert sum(by_class["counts"]) == 40
    assert np.allclose(np.array(by_image["canvas"], dtype=float), values.mean(0), rtol=1e-4, equal_nan=True)
    for label, count in enumerate(by_class["counts"]):
        expected = values[labels == label].mean(0) if count else np.full((12, 3), np.nan)
        assert np.allclose(np.array(by_class["values"][label], dtype=float), expected, rtol=1e-4, equal_nan=True)
    selected = ask(loaded, "activation", by="image", images=[35, 15])
    assert np.allclose(np.array(selected["values"], dtype=float), values[[7, 3]], rtol=1e-4, equal_nan=True)


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
def test_indices_are_spread_evenly(wanted: int, images: int, indices: list[int]) -> None:
    assert spread_out(wanted, images) == indices


def test_all_queries_of_a_number_of_images_use_the_same_ones(loaded: LoadedRun) -> None:
    indices = spread_out(37, len(loaded.setup.evaluation))
    assert queries()["errors"](loaded, {"images": 37}, quiet)["indices"] == indices
    assert ask(loaded, "activation", by="image", images=37)["indices"] == indices
    labels = loaded.setup.evaluation.labels.cpu()[indices]
    answer = queries()["whatif"](loaded, {"images": 37}, quiet)
    assert answer["class_images"] == labels.bincount(minlength=10).tolist()


# ---------------------------------------------------------------- attention


def test_maps_have_the_grid_of_the_backbone(loaded: LoadedRun) -> None:
    answer = ask(loaded, "attention", images=[0, 5], layer=11)
    assert (answer["layer"], answer["target"], answer["experts"]) == (11, "blocks.10.attn.qkv", [1, 2, 3])
    assert answer["grid"] == [6, 6]
    assert answer["no_attention"] == answer["no_maps"] == answer["no_alone"] == ""
    assert [entry["index"] for entry in answer["images"]] == [0, 5]
    assert "private" not in answer
    for entry in answer["images"]:
        assert np.array(entry["added"]).shape == np.array(entry["signed"]).shape == (3, 6, 6)
        assert np.allclose(np.abs(entry["signed"]), entry["added"], rtol=1e-3, atol=1e-6)
        assert np.array(entry["attention"]["alone"]).shape == (3, 6, 6)
        for name in ("with", "without"):
            assert 0 < np.sum(entry["rollout"][name]) < 1
        assert entry["rollout"]["with"] != entry["rollout"]["without"]
        assert Image.open(io.BytesIO(base64.b64decode(entry["image"]))).size == (48, 48)
    assert ask(loaded, "attention", images=[0])["layer"] == 12  # the last with an expert


def test_an_uploaded_image_of_the_task_gives_the_same_maps_and_is_private(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.evaluation.part.images[5])
    by_index, by_file = ask(loaded, "attention", images=[5]), ask(loaded, "attention", images=[file_of(pixels)])
    assert by_file["private"] is True
    assert by_file["images"][0]["index"] is None
    assert by_file["images"][0]["truth"] is None
    for name in ("added", "attention", "rollout", "image", "predicted", "confidence"):
        assert by_file["images"][0][name] == by_index["images"][0][name]


# ---------------------------------------------------------------- predict


def test_a_prediction_is_that_of_the_network(loaded: LoadedRun) -> None:
    setup = loaded.setup
    answer = ask(loaded, "predict", image=9)
    with torch.no_grad(), autocast(setup):
        logits = setup.behind(setup.evaluation.take(torch.tensor([9])))
    probabilities = logits.float().softmax(1)[0]
    assert [entry["class"] for entry in answer["top"]] == probabilities.topk(5).indices.tolist()
    assert [entry["probability"] for entry in answer["top"]] == pytest.approx(
        probabilities.topk(5).values.tolist(), abs=2e-6
    )
    assert [entry["layer"] for entry in answer["without_layer"]] == list(range(9, 13))
    assert all(entry["flips"] == (entry["class"] != answer["top"][0]["class"]) for entry in answer["without_layer"])
    by_image = ask(loaded, "activation", by="image", images=[9])["values"][0]
    assert np.allclose(np.array(answer["canvas"], float), np.array(by_image, float), rtol=1e-4, equal_nan=True)


def test_the_nearest_training_image_of_a_training_image_is_itself(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.train.part.images[17])
    answer = ask(loaded, "predict", image=file_of(pixels))
    assert answer["nearest"][0]["index"] == 17
    assert answer["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    cosines = [entry["cosine"] for entry in answer["nearest"]]
    assert len(cosines) == 6
    assert cosines == sorted(cosines, reverse=True)
    assert answer["private"] is True


def test_a_prediction_with_experts_off_is_that_of_the_network_without_them(loaded: LoadedRun) -> None:
    setup, layers = loaded.setup, loaded.setup.experts.layers
    target = PLAN.targets[10]
    answer = ask(loaded, "predict_without", image=9, off="L11E2")
    whole, trained = ask(loaded, "predict_without", image=9), ask(loaded, "predict", image=9)
    kept = layers[target].coefficient.clone()
    with torch.no_grad():
        layers[target].coefficient[1] = 0.0
        with autocast(setup):
            expected = setup.behind(setup.evaluation.take(torch.tensor([9]))).float().softmax(1)[0].tolist()
        layers[target].coefficient.copy_(kept)
    assert answer["now"] == pytest.approx(expected, abs=2e-6)
    assert answer["now"] != answer["before"] == whole["now"]
    first = trained["top"][0]
    assert whole["before"][first["class"]] == pytest.approx(first["probability"], abs=2e-6) == max(whole["before"])
    assert (answer["experts"], answer["off"], whole["experts"]) == (7, "L11E2", 8)
    assert "private" not in answer


def test_an_uploaded_image_with_experts_off_is_private(loaded: LoadedRun) -> None:
    pixels = np.array(loaded.setup.evaluation.part.images[9])
    answer = ask(loaded, "predict_without", image=file_of(pixels), off="L12", scale=0.5)
    assert answer["private"] is True
    assert answer["index"] is None
    assert answer["now"] == pytest.approx(
        ask(loaded, "predict_without", image=9, off="L12", scale=0.5)["now"], abs=2e-6
    )


def test_images_to_choose_from(loaded: LoadedRun) -> None:
    labels = loaded.setup.evaluation.labels
    answer = ask(loaded, "images", label=3, first=1, count=4)
    indices = [entry["index"] for entry in answer["images"]]
    assert indices == (labels == 3).nonzero().flatten()[1:5].tolist()
    assert answer["total"] == int((labels == 3).sum())
    assert len(ask(loaded, "images", count=64)["images"]) == 64


# ---------------------------------------------------------------- invalid queries


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("activation", {"by": "head"}, "choose layer, class, image"),
        ("activation", {"images": [200]}, "image 200 does not exist: the evaluation images are 0 to 199"),
        ("activation", {"images": 0}, "choose at least one"),
        ("activation", {"by": "image", "images": [0] * 257}, "choose 1 to 256"),
        ("activation", {"images": "all"}, "it must be a whole number from 0"),
        ("attention", {}, "1 to 12 images"),
        ("attention", {"images": [0] * 13}, "1 to 12 images"),
        ("attention", {"images": [0], "layer": 1}, "layer 1 keeps no expert: choose one of 9, 10"),
        ("attention", {"images": [0], "layer": True}, "it must be a whole number"),
        ("attention", {"images": [-1]}, "it must be a whole number"),
        ("predict", {}, "it must be a whole number"),
        ("predict", {"image": {"file": "§"}}, "is not valid base64"),
        ("predict", {"image": {"file": "AAAA"}}, "the file cannot be read as an image .no known image format."),
        ("predict", {"image": {"file": "A" * (7 * 2**20)}}, "at most 5 MB"),
        ("predict_without", {"image": 0, "off": "L13"}, "layers 1 to 12"),
        ("predict_without", {"image": 0, "rate": 0.5}, "'rate' is not an argument"),
        ("predict_without", {"off": "L12"}, "it must be a whole number"),
        ("predict", {"image": {"path": "/etc/passwd"}}, "at most 5 MB"),
        ("images", {"count": 65}, "choose 1 to 64"),
        ("images", {"labels": 3}, "'labels' is not an argument of this query: it takes label, first, count"),
        ("activation", {"image": 3}, "'image' is not an argument of this query: it takes by, images"),
        ("attention", {"images": [0], "row": 9}, "'row' is not an argument"),
        ("predict", {"image": 0, "off": "L9"}, "'off' is not an argument"),
        ("predict_without", {"image": 0, "to": 1}, "it takes factors, off, scale, mask, image"),
    ],
)
def test_an_invalid_query_is_an_error(name: str, arguments: Mapping, message: str, loaded: LoadedRun) -> None:
    with pytest.raises(QueryError, match=message):
        ask(loaded, name, **arguments)


def test_only_formats_without_code_are_opened(loaded: LoadedRun) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) run\n"
    with pytest.raises(QueryError, match="upload an image in one of the formats JPEG, PNG"):
        ask(loaded, "predict", image={"file": base64.b64encode(script).decode()})


def test_a_run_without_experts_predicts_and_refuses_queries_of_experts(tmp_path: Path, loaded: LoadedRun) -> None:
    bare = LoadedRun(loaded.setup, tmp_path)
    bare.setup = replace(loaded.setup, adapter=Adapter(loaded.setup.model, 0))
    for name, arguments in (("activation", {}), ("attention", {"images": [0]}), ("predict_without", {"image": 0})):
        with pytest.raises(QueryError, match="has no experts"):
            queries()[name](bare, arguments, quiet)
    answer = ask(bare, "predict", image=0)
    assert answer["canvas"] is answer["without_all"] is None
    assert answer["without_layer"] == []
    assert len(answer["nearest"]) == 6
    assert answer["top"] == ask(loaded, "predict", image=0)["top"]
