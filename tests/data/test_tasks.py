"""Tasks: from a folder on disk to the images of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError
from tests.data.trees import make_fgvc, make_own, make_vtab


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def config(task: str, **settings: object) -> RunConfig:
    return RunConfig(task, epochs=1, **settings)  # type: ignore[arg-type]


def test_missing_data_is_one_sentence_with_advice(data: Path) -> None:
    assert not tasks.ready(catalog.task("cifar"))
    assert tasks.own_tasks() == ()
    with pytest.raises(DataError, match=r"fetch cifar.*--data.*digits"):
        tasks.located(config("cifar"))
    with pytest.raises(DataError, match="own has no folder for own:birds"):
        tasks.located(config("own:birds"))


def test_a_bundled_task_reads_no_folder(data: Path) -> None:
    assert tasks.located(config("digits")) == config("digits")
    with pytest.raises(DataError, match="is bundled and reads no folder"):
        tasks.located(config("digits", data=str(data)))


@pytest.mark.parametrize(("protocol", "train", "evaluated"), [("val", 8, 2), ("test", 10, 5)])
def test_vtab_from_the_data_folder(data: Path, protocol: str, train: int, evaluated: int) -> None:
    make_vtab(data / "vtab-1k", "eurosat")
    assert tasks.ready(catalog.task("eurosat"))
    result = tasks.located(config("eurosat", protocol=protocol))
    assert result.data == str(data / "vtab-1k" / "eurosat")
    assert result.data_label == "not VTAB-1k: its layout with 8/2/5 images" == result.badge.data
    reports: list[tuple[int, int]] = []
    loaded = tasks.load_protocol(result, lambda done, total: reports.append((done, total)))
    assert (len(loaded.train), len(loaded.evaluation), len(loaded.class_names)) == (train, evaluated, 10)
    assert loaded.train.images.shape == (train, 48, 48, 3)
    assert reports[-1] == (train + evaluated,) * 2
    again = tasks.load_protocol(result, lambda done, total: reports.append((0, 0)))
    assert reports[-1] != (0, 0), "decoded once"
    assert np.array_equal(again.train.images, loaded.train.images)


def test_explicit_folder_with_any_name(data: Path, tmp_path: Path) -> None:
    folder = make_vtab(tmp_path / "elsewhere", "cifar", folder="my images ü")
    assert tasks.located(config("cifar", data=str(folder))).data == str(folder)
    assert tasks.located(config("cub", data=str(make_fgvc(tmp_path / "f", "cub")))).badge.data.startswith("not FGVC")
    with pytest.raises(DataError, match="is not a folder"):
        tasks.located(config("cifar", data=str(tmp_path / "nowhere")))


def test_own_images_are_a_task_like_any_other(data: Path) -> None:
    make_own(data / "own" / "Vögel (2)", {"amsel": 6, "star": 6})
    make_own(data / "own" / "@eaDir", {"a": 6, "b": 6})  # of a network disk, and ignored
    (task,) = tasks.own_tasks()
    assert task.name == "own:Vögel (2)"
    assert task.title == "Vögel (2)"
    assert tasks.ready(task)
    result = tasks.located(config(task.name))
    assert result.badge.data.startswith("own images, ")
    loaded = tasks.load_protocol(result)
    assert loaded.class_names == ("amsel", "star")
    assert len(loaded.train) + len(loaded.evaluation) < 12
    assert set(loaded.train.labels) == {0, 1}


def test_a_task_name_is_never_a_path() -> None:
    for name in ("own:../secret", "own:/etc", "own:a/b", "own:", "own:..", "own:.", "own: x", "own:..\\x"):
        with pytest.raises(catalog.CatalogError):
            catalog.task(name)


def test_damaged_image_stops_the_run_and_is_named(data: Path) -> None:
    folder = make_vtab(data / "vtab-1k", "svhn")
    result = tasks.located(config("svhn"))
    victim = sorted(folder.rglob("*.jpg"))[0]
    for image in sorted((folder / "images" / "train800").iterdir())[:1]:
        image.write_bytes(image.read_bytes()[:90])
        victim = image
    with pytest.raises(DataError, match=victim.name):
        tasks.load_protocol(result)


def test_a_missing_image_is_found_before_the_run(data: Path) -> None:
    folder = make_vtab(data / "vtab-1k", "svhn")
    victim = sorted((folder / "images" / "val200").iterdir())[0]
    victim.unlink()
    with pytest.raises(DataError, match=rf"partial.*{victim.name}"):
        tasks.located(config("svhn"))
