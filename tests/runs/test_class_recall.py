"""Recall of each class and balanced accuracy, from the list of a run's images and its evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlae_lab.cli import main
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Started, packed
from mlae_lab.core.proportions import balanced_accuracy
from mlae_lab.data.image_record import ImageList, ImageRecord, write_record
from mlae_lab.runs.class_recall import class_recall
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.lab import printed_json

CORRECT = [True] * 9 + [False] + [True] + [False] * 2  # 9 of 10 owls, 1 of 3 wrens


def image_list(labels: list[int]) -> ImageList:
    return ImageList(tuple(f"{i}.jpg" for i in range(len(labels))), tuple(labels), np.arange(1, len(labels) + 1))


def unequal_run(folder: Path) -> tuple[RunStore, str]:
    """A new store with a finished run on unequal classes."""
    store = RunStore(folder)
    name = store.enqueue(RunConfig("own:birds", method="linear", epochs=1), "cpu").id
    started = Started(1, 1, 1, 40, 13, 2, "cpu", "float32", 0.1)
    accuracy = 100 * sum(CORRECT) / 13
    store.append(name, [started, Evaluation(1, 2, "val", accuracy, 1.0, 1.0, packed(CORRECT))])
    store.move(name, Status.FINISHED)
    file = store.paths(name).images
    file.parent.mkdir(parents=True, exist_ok=True)
    record = ImageRecord(("owl", "wren"), image_list([0] * 30 + [1] * 10), image_list([0] * 10 + [1] * 3))
    write_record(file, record)
    return store, name


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunStore, str]:
    return unequal_run(tmp_path / "store")


def test_balanced_accuracy_is_the_mean_recall_of_classes_with_images() -> None:
    assert balanced_accuracy([9, 1, 0], [10, 3, 0]) == pytest.approx((0.9 + 1 / 3) / 2)


def test_recall_of_an_evaluation(run: tuple[RunStore, str]) -> None:
    store, name = run
    evaluation = store.last(name, Evaluation)
    recall = class_recall(store.paths(name).images, evaluation)
    assert recall is not None
    assert (recall.images, recall.correct) == ((10, 3), (9, 1))
    assert recall.imbalance == pytest.approx(40 / 13)
    assert recall.balanced == pytest.approx(61.667, abs=0.001)
    assert recall.is_unequal


def test_without_a_record_or_with_another_number_of_images_it_is_unknown(run: tuple[RunStore, str]) -> None:
    store, name = run
    file = store.paths(name).images
    assert class_recall(file, Evaluation(1, 2, "val", 50.0, 1.0, 1.0)) is None
    assert class_recall(file, Evaluation(1, 2, "val", 50.0, 1.0, 1.0, packed([True] * 20))) is None
    assert class_recall(file.with_name("gone"), store.last(name, Evaluation)) is None


def test_it_is_on_the_command_line(run: tuple[RunStore, str], capsys: pytest.CaptureFixture[str]) -> None:
    store, name = run
    assert main(["runs", name, "--store", str(store.folder), "--json"]) == 0
    row = printed_json(capsys)
    assert row["balanced_accuracy"] == 61.67
    assert row["class_recall"] == {"owl": 90.0, "wren": 33.33}
