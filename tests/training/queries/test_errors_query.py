"""The query `errors` on trained runs: it agrees with the evaluation of training and with itself."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch
from PIL import Image

from mlae_lab.core.config import RunConfig
from mlae_lab.core.paired_tests import paired_tests
from mlae_lab.core.patterns import allocation
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import LoadedRun, QueryError, load_run
from mlae_lab.training.queries import queries
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

PLAN = allocation((0,) * 10 + (8, 8), drop_rate=0.5)


@pytest.fixture(scope="module")
def loaded_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:
    """Two trained runs on one task: with experts, and a linear probe."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}
    for method in ("mlae", "linear"):
        config = RunConfig("digits", PLAN, method, "lab_vit_12x128.random", epochs=1, learning_rate=5e-3, device="cpu")
        setup = prepare(config)
        list(fit(setup))
        file = folder / f"{method}.safetensors"
        save_adapter(file, setup.experts, setup.head, config.backbone, config.task)
        runs[method] = load_run(config, file, "aaaaaaaa")
    return runs


def ask(loaded: LoadedRun, name: str = "errors", **arguments: object) -> dict:
    """The answer to a query, after JSON."""
    return json.loads(json.dumps(queries()[name](loaded, arguments, lambda done, total: None), allow_nan=False))


@pytest.mark.parametrize("method", ["mlae", "linear"])
def test_it_agrees_with_the_evaluation_of_training(loaded_runs: dict[str, LoadedRun], method: str) -> None:
    loaded = loaded_runs[method]
    answer, measured = ask(loaded), evaluate(loaded.setup, indices=range(200))
    assert answer["accuracy"] == measured.accuracy
    assert answer["loss"] == pytest.approx(measured.loss, rel=1e-5)
    assert answer["predicted"] == list(measured.predicted)
    assert answer["confidence"] == pytest.approx(measured.confidence, abs=1e-4)
    assert answer["indices"] == list(range(200))
    assert answer["names"] == list(loaded.setup.classes)


def test_the_parts_of_an_answer_agree(loaded_runs: dict[str, LoadedRun]) -> None:
    answer = ask(loaded_runs["mlae"])
    matrix = torch.tensor(answer["confusion"])
    assert (
        int(matrix.sum()) == answer["images"] == answer["of"] == sum(entry["images"] for entry in answer["bins"]) == 200
    )
    assert answer["correct"] == int(matrix.diagonal().sum()) == sum(c["correct"] for c in answer["classes"])
    assert [c["images"] for c in answer["classes"]] == matrix.sum(1).tolist()
    assert answer["low"] < answer["accuracy"] < answer["high"]
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in answer["shares"])
    correct = [t == g for t, g in zip(answer["truth"], answer["predicted"], strict=True)]
    assert all(correct[index] for index in answer["extremes"]["correct"])
    assert not any(correct[index] for index in answer["extremes"]["wrong"])
    extremes = {str(index) for row in answer["extremes"].values() for index in row}
    assert set(answer["thumbnails"]) == set(answer["losses"]) == extremes
    image = Image.open(io.BytesIO(base64.b64decode(answer["thumbnails"][min(extremes)])))
    assert image.size == (8, 8)


def test_fewer_images_are_spread_over_the_split(loaded_runs: dict[str, LoadedRun]) -> None:
    whole, part = ask(loaded_runs["mlae"]), ask(loaded_runs["mlae"], images=7)
    assert part["indices"] == [0, 28, 57, 85, 114, 142, 171]
    assert (part["images"], part["of"]) == (7, 200)
    assert part["predicted"] == [whole["predicted"][index] for index in part["indices"]]
    assert ask(loaded_runs["mlae"], images=10_000)["indices"] == whole["indices"]
    assert ask(loaded_runs["mlae"], images=1)["indices"] == [0]


def test_two_runs_are_compared_on_the_same_images(loaded_runs: dict[str, LoadedRun]) -> None:
    a, b = ask(loaded_runs["linear"]), ask(loaded_runs["mlae"])
    tests = paired_tests(a, b)
    correct_a, correct_b = (
        {index for index, (t, g) in enumerate(zip(s["truth"], s["predicted"], strict=True)) if t == g} for s in (a, b)
    )
    assert set(tests.only_a) == correct_a - correct_b
    assert set(tests.only_b) == correct_b - correct_a
    assert tests.only_a or tests.only_b


def test_it_reports_progress_and_can_be_interrupted(loaded_runs: dict[str, LoadedRun]) -> None:
    reports: list[tuple[int, int]] = []
    queries()["errors"](loaded_runs["mlae"], {}, lambda *progress: reports.append(progress))
    assert reports == [(200, 200)]

    def interrupt(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        queries()["errors"](loaded_runs["mlae"], {}, interrupt)


def test_the_network_is_left_as_it_was(loaded_runs: dict[str, LoadedRun]) -> None:
    model = loaded_runs["mlae"].setup.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ask(loaded_runs["mlae"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_images_by_index(loaded_runs: dict[str, LoadedRun]) -> None:
    thumbnails = ask(loaded_runs["mlae"], "images_at", indices=[3, 199])["thumbnails"]
    assert set(thumbnails) == {"3", "199"}
    assert thumbnails["3"] != thumbnails["199"]


@pytest.mark.parametrize(("name", "takes"), [("errors", "images"), ("images_at", "indices")])
def test_an_unknown_argument_is_an_error(loaded_runs: dict[str, LoadedRun], name: str, takes: str) -> None:
    with pytest.raises(QueryError, match=f"'count' is not an argument of this query: it takes {takes}"):
        ask(loaded_runs["mlae"], name, count=3)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "some", None, [1]])
def test_an_invalid_number_of_images_is_an_error(loaded_runs: dict[str, LoadedRun], value: object) -> None:
    with pytest.raises(QueryError, match='it must be "all" or a whole number from 1 to 200'):
        ask(loaded_runs["mlae"], images=value)


@pytest.mark.parametrize(
    ("indices", "rule"),
    [
        ("012", "a list of at most 96"),
        (None, "a list of"),
        ([0] * 97, "a list of"),
        ([200], "from 0 to 199"),
        ([True], "from 0"),
    ],
)
def test_invalid_indices_are_an_error(loaded_runs: dict[str, LoadedRun], indices: object, rule: str) -> None:
    with pytest.raises(QueryError, match=rule):
        ask(loaded_runs["mlae"], "images_at", indices=indices)
