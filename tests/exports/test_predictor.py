"""`mlae_lab.load`: a trained run for use from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mlae_lab
from mlae_lab.core.events import Evaluation
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.errors import LabError
from mlae_lab.runs.store import RunStore


def test_a_loaded_run_predicts_what_it_was_evaluated_on(finished: tuple[RunStore, str], tmp_path: Path) -> None:
    store, run = finished
    model = mlae_lab.load(run, store.folder)
    assert model.classes == tuple("0123456789")
    evaluated, last = load_bundled("digits").val, store.last(run, Evaluation)
    assert last is not None
    predictions = model.predict([*evaluated.images])
    correct = [int(p.label) == label for p, label in zip(predictions, evaluated.labels, strict=True)]
    assert 100 * np.mean(correct) == pytest.approx(last.accuracy)
    file = tmp_path / "digit.png"
    image = Image.fromarray(evaluated.images[3])
    image.save(file)
    for same in (file, str(file), image, image.convert("RGB"), evaluated.images[3]):
        single = model.predict(same, top=2)
        assert single.label == predictions[3].label
        assert single.probability == pytest.approx(predictions[3].probability, abs=1e-6)
        assert len(single.top) == 2
    assert model.predict([]) == []
    assert model.probabilities([file]).sum() == pytest.approx(1)
    assert run in repr(model)


def test_what_cannot_be_loaded_or_read_is_one_sentence(finished: tuple[RunStore, str], tmp_path: Path) -> None:
    store, run = finished
    with pytest.raises(LabError, match="there is no store in"):
        mlae_lab.load(run, tmp_path)
    with pytest.raises(LabError, match="is not in"):
        mlae_lab.load("aaaaaaaa", store.folder)
    with pytest.raises(LabError, match="is not a file: name a file with the weights"):
        mlae_lab.load(run, store.folder, tmp_path / "none.safetensors")
    model = mlae_lab.load(run, store.folder)
    with pytest.raises(DataError, match="give a path, a PIL image, or an array of uint8"):
        model.predict(np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match=r"gone\.png"):
        model.predict(tmp_path / "gone.png")
