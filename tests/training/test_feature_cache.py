"""Frozen features on disk: the same numbers with and without them, whatever happens to the files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import allocation
from mlae_lab.data.splits import LabelledImages
from mlae_lab.training import feature_cache
from mlae_lab.training.feature_cache import FeatureCache
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.trainer import fit
from tests.lab import few_images

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
FEATURES = torch.randn(70, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", "a part")


def files(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_what_is_saved_is_loaded(cache: FeatureCache) -> None:
    assert cache.load(IMAGES) is None
    cache.save(IMAGES, FEATURES)
    loaded = cache.load(IMAGES)
    assert loaded is not None
    assert torch.equal(loaded, FEATURES)


def test_other_images_another_part_and_other_threads_are_not_mistaken_for_it(cache: FeatureCache) -> None:
    cache.save(IMAGES, FEATURES)
    changed = IMAGES.copy()
    changed[69, 0, 0, 0] ^= 1
    assert cache.load(changed) is None
    assert cache.load(IMAGES[:69]) is None
    assert cache.load(IMAGES.reshape(70, 8, 32, 3)) is None
    assert FeatureCache(cache.folder, "another part").load(IMAGES) is None
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)  # may sum in another order
        assert cache.load(IMAGES) is None
    finally:
        torch.set_num_threads(threads)
    assert cache.load(IMAGES) is not None


@pytest.mark.parametrize("damage", ["a bit", "cut", "empty", "text"])
def test_a_damaged_file_is_computed_again(cache: FeatureCache, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache.save(IMAGES, FEATURES)
    (file,) = files(cache)
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes({"a bit": content, "cut": content[:-100], "empty": b"", "text": b"features"}[damage])
    with caplog.at_level(logging.WARNING):
        assert cache.load(IMAGES) is None
    assert "the features are computed again" in caplog.text
    cache.save(IMAGES, FEATURES)
    assert cache.load(IMAGES) is not None


def test_a_folder_that_cannot_be_written_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file" / "features", "a part")
    with caplog.at_level(logging.WARNING):
        cache.save(IMAGES, FEATURES)
        assert cache.load(IMAGES) is None
    assert "does not take frozen features" in caplog.text


def test_those_that_were_not_read_for_longest_are_deleted(cache: FeatureCache) -> None:
    cache = replace(cache, limit=3 * FEATURES.numel() * 4)  # a file is a little larger: room for two
    parts = [replace(cache, part=name) for name in "abc"]
    for age, part in enumerate(parts[:2]):
        part.save(IMAGES, FEATURES)
        os.utime(part._file(IMAGES), (1000 + age, 1000 + age))
    assert parts[0].load(IMAGES) is not None  # used just now
    parts[2].save(IMAGES, FEATURES)
    assert [part.load(IMAGES) is not None for part in parts] == [True, False, True]


def test_what_a_killed_process_left_is_deleted(cache: FeatureCache) -> None:
    cache.save(IMAGES, FEATURES)
    old, new = cache.folder / "a.safetensors.1.part", cache.folder / "b.safetensors.2.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    cache.save(IMAGES[:60], FEATURES[:60])
    assert (old.exists(), new.exists()) == (False, True), "the new one may be written just now"


def test_nothing_is_written_without_room(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace(cache, limit=100).save(IMAGES, FEATURES)
    assert not cache.folder.exists()
    monkeypatch.setattr(feature_cache, "SHARE_OF_FREE", 0.0)
    cache.save(IMAGES, FEATURES)
    assert files(cache) == []


def test_the_folder_is_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLAE_LAB_FEATURES", str(tmp_path))
    assert feature_cache.folder() == tmp_path
    monkeypatch.setenv("MLAE_LAB_FEATURES", "off")
    assert feature_cache.folder() is None
    monkeypatch.delenv("MLAE_LAB_FEATURES")
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path))
    assert feature_cache.folder() == tmp_path / "cache" / "features"


# ---------------------------------------------------------------- in a run


def counted(cache: FeatureCache | None) -> tuple[Inputs, list[int]]:
    """Inputs of the images, and how many images each pass through the frozen part had."""
    passes: list[int] = []

    def before(images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        return images.flatten(1)

    part = LabelledImages(IMAGES, np.zeros(70, dtype=np.int64))
    return Inputs(part, before, torch.device("cpu"), 16, cache=cache, at_once=40), passes


def test_the_second_time_no_image_passes_through_the_frozen_part(cache: FeatureCache) -> None:
    (first, passes), (second, again), (without, _) = counted(cache), counted(cache), counted(None)
    assert passes == [1, 40, 30]
    assert again == [1], "one image, for the size of its features"
    assert first.features is not None
    assert second.features is not None
    assert without.features is not None
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.features, without.features)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Setup, int]]:
    """Prepares a run with a folder of features, or without one; the number of files afterwards."""

    def prepare_run(config: RunConfig, folder: str = "features") -> tuple[Setup, int]:
        monkeypatch.setenv("MLAE_LAB_FEATURES", folder if folder == "off" else str(tmp_path / folder))
        setup = prepare(config)
        return setup, len(list(tmp_path.glob("features/*")))

    return prepare_run


CONFIG = RunConfig(
    "own:few", allocation((0,) * 10 + (3, 2), drop_rate=0.3), backbone="lab_vit_12x128.random", epochs=2, device="cpu",
    precision="float32", learning_rate=5e-3, data=str(few_images()),
)  # fmt: skip


def test_runs_of_equal_weights_images_and_layers_share_features(prepared: Callable) -> None:
    assert prepared(CONFIG)[1] == 2, "train and val"
    assert prepared(replace(CONFIG, plan=allocation((0,) * 10 + (8, 8), drop_rate=0.5), epochs=9))[1] == 2
    assert prepared(replace(CONFIG, method="linear"))[1] == 4, "after all blocks, not after ten"
    assert prepared(replace(CONFIG, protocol="test"))[1] == 6, "other images"
    assert prepared(replace(CONFIG, seed=1))[1] == 8, "the random weights are those of the seed"
    assert prepared(replace(CONFIG, plan=allocation((1,))))[1] == 8, "a first block with experts: only the stem"


def test_a_training_has_the_same_numbers_with_and_without(prepared: Callable) -> None:
    results = []
    for folder in ("features", "features", "off"):
        results.append([event for event in fit(prepared(CONFIG, folder)[0]) if isinstance(event, Evaluation)])
    losses = [[(event.accuracy, event.loss) for event in events] for events in results]
    assert losses[0] == losses[1] == losses[2]
    assert len(losses[0]) > 0
