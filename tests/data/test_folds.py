"""Cross-validation: how images are divided, and that a run trains on what its evaluation does not have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.data import tasks
from mlae_lab.data.bundled import load_bundled
from mlae_lab.data.folds import Fold, fold_of, is_evaluated
from tests.data.trees import make_own


def test_seeds_count_folds_first_and_divisions_then() -> None:
    assert fold_of(RunConfig("digits")) is None
    assert [fold_of(RunConfig("digits", folds=3, seed=seed)) for seed in (0, 2, 3)] == [
        Fold(0, 0, 3), Fold(0, 2, 3), Fold(1, 0, 3),
    ]  # fmt: skip


def test_folds_divide_the_images_and_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 23, 7])
    first = np.array([is_evaluated(labels, Fold(0, number, 5)) for number in range(5)])
    assert (first.sum(axis=0) == 1).all(), "every image is evaluated once"
    assert first.sum(axis=1).tolist() == [16] * 5
    for label in range(3):
        counts = first[:, labels == label].sum(axis=1)
        assert counts.max() - counts.min() <= 1
    again = np.array([is_evaluated(labels, Fold(0, number, 5)) for number in range(5)])
    other = np.array([is_evaluated(labels, Fold(1, number, 5)) for number in range(5)])
    assert (first == again).all()
    assert not (first == other).all(), "another division"


def test_a_fold_of_a_bundled_task() -> None:
    config, splits = RunConfig("digits", folds=5, seed=7), load_bundled("digits")
    loaded = tasks.load_protocol(config)
    together = np.concatenate([splits.train.images, splits.val.images])
    assert (len(loaded.train), len(loaded.evaluation)) == (800, 200)
    assert (loaded.evaluation.images == together[list(loaded.evaluated)]).all()
    rest = np.delete(together, loaded.evaluated, axis=0)
    assert (loaded.train.images == rest).all()
    assert tasks.load_protocol(replace(config, folds=0)).evaluated == ()


def test_a_fold_of_a_folder_is_found_again_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    folder = make_own(tmp_path / "data" / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(RunConfig("own:birds", folds=2, seed=1))
    loaded = tasks.load_protocol(config)
    assert loaded.record is not None
    trained, evaluated = set(loaded.record.train.paths), set(loaded.record.evaluation.paths)
    assert not trained & evaluated
    other = tasks.load_protocol(replace(config, seed=0)).record
    assert other is not None
    assert set(other.evaluation.paths) == trained, "the other fold of two"
    again = tasks.load_protocol(config, record=loaded.record)
    assert (again.evaluation.images == loaded.evaluation.images).all()
    (folder / "wren").rename(folder / "xwren")  # found by content: the images stay where the record has them
    moved = tasks.load_protocol(config, record=loaded.record)
    assert sorted(moved.evaluation.content.tolist()) == sorted(loaded.evaluation.content.tolist())  # type: ignore
    assert len(moved.train) == len(loaded.train)
