"""The four bundled tasks: the same images on every machine, no image in two splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import RunConfig
from mlae_lab.data import bundled, tasks
from mlae_lab.data.bundled import CHECKSUMS, DataError, checksum, load_bundled
from mlae_lab.data.splits import Splits

NAMES = ("digits", "fashion", "dsprites_loc_rendered", "dsprites_ori_rendered")


def parts(splits: Splits) -> tuple:
    return splits.train, splits.val, splits.test


def test_checksums_cover_all_four() -> None:
    assert set(CHECKSUMS) == set(NAMES) == {t.name for t in catalog.TASKS if t.bundled}


@pytest.mark.parametrize("name", NAMES)
def test_images_and_labels_are_the_same_on_every_machine(name: str) -> None:
    assert checksum(load_bundled(name)) == CHECKSUMS[name]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_classes_are_the_catalogs(name: str) -> None:
    task, splits = catalog.task(name), load_bundled(name)
    assert [len(part) for part in parts(splits)] == [800, 200, task.test]
    assert task.test == (797 if name == "digits" else 2000)
    assert len(splits.class_names) == len(set(splits.class_names)) == task.classes
    for part in parts(splits):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
        assert len(part.images) == len(part.labels) == len(part)
        assert set(np.unique(part.labels)) == set(range(task.classes))  # every class is in every split


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits_or_twice_in_one(name: str) -> None:
    images = [image.tobytes() for part in parts(load_bundled(name)) for image in part.images]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("name", NAMES)
def test_no_class_fills_a_quarter_of_the_training_images(name: str) -> None:
    labels = load_bundled(name).train.labels
    assert np.bincount(labels).max() < 200


def test_images_use_the_whole_range_of_grey() -> None:
    for name in NAMES:
        images = load_bundled(name).train.images
        assert images.min() == 0
        assert images.max() == 255
    assert set(np.unique(load_bundled("dsprites_loc_rendered").train.images)) == {0, 255}


def test_both_dsprites_tasks_have_the_same_images_and_different_labels() -> None:
    loc, ori = load_bundled("dsprites_loc_rendered"), load_bundled("dsprites_ori_rendered")
    assert np.array_equal(loc.train.images, ori.train.images)
    assert not np.array_equal(loc.train.labels, ori.train.labels)


def test_labels_of_the_location_task_follow_from_the_images() -> None:
    """The middle of the white pixels, 16 to 48, in 16 bins: within one bin, since a heart is not symmetric."""
    part = load_bundled("dsprites_loc_rendered").val
    columns = np.arange(64) + 0.5
    white = (part.images > 0).sum(axis=1)
    middle = (white * columns).sum(axis=1) / white.sum(axis=1)
    assert np.abs((middle - 16) / 2 - 0.5 - part.labels).max() < 1.5


@pytest.mark.parametrize(
    ("alias", "name"), [("fashion_mnist", "fashion"), ("dsprites_loc_bundled", "dsprites_loc_rendered")]
)
def test_an_alias_loads_the_task_that_it_names(alias: str, name: str) -> None:
    assert checksum(load_bundled(alias)) == checksum(load_bundled(name))
    assert checksum(load_bundled(alias)) == checksum(load_bundled(name))
    assert load_bundled(alias).class_names == load_bundled(name).class_names


def test_a_task_of_the_paper_is_not_bundled() -> None:
    with pytest.raises(DataError):
        load_bundled("cifar")


# ---------------------------------------------------------------- protocols


def test_the_two_protocols() -> None:
    splits = load_bundled("digits")
    train, evaluation = splits.protocol("val")
    assert train is splits.train
    assert evaluation is splits.val
    train, evaluation = splits.protocol("test")
    assert len(train) == 1000
    assert evaluation is splits.test
    assert np.array_equal(train.images, np.concatenate([splits.train.images, splits.val.images]))
    assert np.array_equal(train.labels, np.concatenate([splits.train.labels, splits.val.labels]))


# ---------------------------------------------------------------- finding a task's images


def test_ready_are_exactly_the_bundled_tasks() -> None:
    assert {t.name for t in catalog.TASKS if tasks.ready(t)} == set(NAMES)


def test_a_task_without_data_says_which_have_some() -> None:
    with pytest.raises(DataError) as error:
        tasks.load_protocol(RunConfig("cifar100"))
    assert "CIFAR-100 (cifar) has no data here" in str(error.value)
    for name in NAMES:
        assert name in str(error.value)


def test_an_unknown_task() -> None:
    with pytest.raises(CatalogError, match="'mnist' is not a task"):
        load_bundled("mnist")


@pytest.fixture
def other_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A separate assets folder; nothing that was read from it stays in the cache."""
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    load_bundled.cache_clear()
    yield tmp_path
    load_bundled.cache_clear()


def test_a_missing_file_says_where_it_belongs(other_assets: Path) -> None:
    with pytest.raises(DataError, match=r"digits.npz cannot be read .*it is part of the repository"):
        load_bundled("digits")


@pytest.mark.parametrize("keep", [0, 1, 100, 20_000])
def test_a_damaged_file_is_a_data_error(root: Path, other_assets: Path, keep: int) -> None:
    whole = (root / "assets" / "digits.npz").read_bytes()
    (other_assets / "digits.npz").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"digits.npz cannot be read"):
        load_bundled("digits")


def test_a_foreign_file_is_a_data_error(other_assets: Path) -> None:
    np.savez(other_assets / "digits.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"digits.npz cannot be read"):
        load_bundled("digits")
    (other_assets / "digits.npz").write_bytes(b"text, not numbers")
    with pytest.raises(DataError, match=r"digits.npz cannot be read"):
        load_bundled("digits")
