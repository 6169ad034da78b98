"""The question `errors` to a real trained run: it agrees with training's own evaluation and with itself."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch
from PIL import Image

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern
from mlae_lab.core.paired_tests import slices
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.queries import questions
from mlae_lab.training.setup import prepare
from mlae_lab.training.loaded_run import QuestionError, Subject, load_subject
from mlae_lab.training.trainer import fit

PLAN = pattern("uniform", "stochastic", 0.5)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """Two trained runs on one task: with experts, and a linear probe."""
    folder, found = tmp_path_factory.mktemp("asked"), {}
    for method in ("mlae", "linear"):
        config = RunConfig("digits", PLAN, method, "lab_vit_12x128.random", epochs=1, learning_rate=5e-3, device="cpu")
        setup = prepare(config)
        list(fit(setup))
        file = folder / f"{method}.safetensors"
        save_adapter(file, setup.experts, setup.head, config.backbone, config.task)
        found[method] = load_subject(config, file, "aaaaaaaa")
    return found


def ask(subject: Subject, name: str = "errors", **arguments: object) -> dict:
    """An answer, as it comes through JSON."""
    return json.loads(json.dumps(questions()[name](subject, arguments, lambda done, total: None), allow_nan=False))


@pytest.mark.parametrize("method", ["mlae", "linear"])
def test_it_agrees_with_the_evaluation_of_training(subjects: dict[str, Subject], method: str) -> None:
    subject = subjects[method]
    found, measured = ask(subject), evaluate(subject.setup, places=range(200))
    assert found["accuracy"] == measured.accuracy and found["loss"] == pytest.approx(measured.loss, rel=1e-5)
    assert found["guess"] == list(measured.guess)
    assert found["confidence"] == pytest.approx(measured.confidence, abs=1e-4)
    assert found["places"] == list(range(200)) and found["names"] == list(subject.setup.classes)


def test_its_parts_agree_with_each_other(subjects: dict[str, Subject]) -> None:
    found = ask(subjects["mlae"])
    matrix = torch.tensor(found["confusion"])
    assert (
        int(matrix.sum())
        == found["images"]
        == found["of"]
        == sum(entry["images"] for entry in found["bins"])
        == 200
    )
    assert found["right"] == int(matrix.diagonal().sum()) == sum(c["right"] for c in found["classes"])
    assert [c["images"] for c in found["classes"]] == matrix.sum(1).tolist()
    assert found["low"] < found["accuracy"] < found["high"]
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in found["shares"])
    right = [t == g for t, g in zip(found["truth"], found["guess"])]
    assert all(right[at] for at in found["extremes"]["right"]) and not any(
        right[at] for at in found["extremes"]["wrong"]
    )
    named = {str(at) for row in found["extremes"].values() for at in row}
    assert set(found["thumbnails"]) == set(found["losses"]) == named
    image = Image.open(io.BytesIO(base64.b64decode(found["thumbnails"][min(named)])))
    assert image.size == (8, 8)


def test_part_of_the_images_is_spread_over_all(subjects: dict[str, Subject]) -> None:
    whole, part = ask(subjects["mlae"]), ask(subjects["mlae"], images=7)
    assert part["places"] == [0, 28, 57, 85, 114, 142, 171] and (part["images"], part["of"]) == (7, 200)
    assert part["guess"] == [whole["guess"][at] for at in part["places"]]
    assert ask(subjects["mlae"], images=10_000)["places"] == whole["places"]
    assert ask(subjects["mlae"], images=1)["places"] == [0]


def test_two_runs_are_compared_on_the_same_images(subjects: dict[str, Subject]) -> None:
    a, b = ask(subjects["linear"]), ask(subjects["mlae"])
    found = slices(a, b)
    right_a, right_b = ({at for at, (t, g) in enumerate(zip(s["truth"], s["guess"])) if t == g} for s in (a, b))
    assert set(found.only_a) == right_a - right_b and set(found.only_b) == right_b - right_a
    assert found.only_a or found.only_b


def test_it_tells_how_far_it_is_and_can_be_ended(subjects: dict[str, Subject]) -> None:
    told: list[tuple[int, int]] = []
    questions()["errors"](subjects["mlae"], {}, lambda *far: told.append(far))
    assert told == [(200, 200)]

    def gone(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        questions()["errors"](subjects["mlae"], {}, gone)


def test_the_network_is_left_as_it_was(subjects: dict[str, Subject]) -> None:
    model = subjects["mlae"].setup.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ask(subjects["mlae"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_images_by_place(subjects: dict[str, Subject]) -> None:
    found = ask(subjects["mlae"], "images_at", places=[3, 199])["thumbnails"]
    assert set(found) == {"3", "199"} and found["3"] != found["199"]


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "some", None, [1]])
def test_a_number_of_images_that_cannot_be(subjects: dict[str, Subject], value: object) -> None:
    with pytest.raises(QuestionError, match='it must be "all" or a whole number from 1 to 200'):
        ask(subjects["mlae"], images=value)


@pytest.mark.parametrize(
    ("places", "rule"),
    [
        ("012", "a list of at most 96"),
        (None, "a list of"),
        ([0] * 97, "a list of"),
        ([200], "from 0 to 199"),
        ([True], "from 0"),
    ],
)
def test_places_that_cannot_be(subjects: dict[str, Subject], places: object, rule: str) -> None:
    with pytest.raises(QuestionError, match=rule):
        ask(subjects["mlae"], "images_at", places=places)
