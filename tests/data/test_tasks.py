"""Tasks: from a folder on disk to the images of a run."""

from __future__ import annotations

import argparse
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlae_lab.cli.output import UsageError
from mlae_lab.cli.settings import add_run_options, config_of
from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import decoded
from mlae_lab.data.preprocessing import preprocessing
from tests.data.trees import make_fgvc, make_own, make_vtab, truncate, write_image


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


def test_damaged_image_stops_the_run_and_is_named(data: Path) -> None:
    folder = make_vtab(data / "vtab-1k", "svhn")
    result = tasks.located(config("svhn"))
    victim = sorted((folder / "images" / "train800").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:90])
    with pytest.raises(DataError, match=victim.name):
        tasks.load_protocol(result)


def test_a_missing_image_is_found_before_the_run(data: Path) -> None:
    folder = make_vtab(data / "vtab-1k", "svhn")
    victim = sorted((folder / "images" / "val200").iterdir())[0]
    victim.unlink()
    with pytest.raises(DataError, match=rf"partial.*{victim.name}"):
        tasks.located(config("svhn"))


# ---------------------------------------------------------------- the folder of own images


def test_a_class_named_like_its_folder_stays_a_class(data: Path, tmp_path: Path) -> None:
    """`smoke/smoke` was read as the dataset, and `no_smoke` ignored."""
    for root in (data / "own", tmp_path / "elsewhere"):
        folder = make_own(root / "smoke", {"smoke": 8, "no_smoke": 8})
        make_own(folder / "own" / "smoke", {"x": 3, "y": 3})  # looked at below the data folder only
        given = "" if root == data / "own" else str(folder)
        result = tasks.located(config("own:smoke", data=given))
        assert result.data == str(folder)
        assert tasks.located(result) == result, "the same folder again"
        assert tasks.load_protocol(result).class_names == ("no_smoke", "own", "smoke")


def test_a_benchmark_folder_is_found_once(data: Path, tmp_path: Path) -> None:
    folder = make_vtab(tmp_path, "cifar", folder="mine")
    make_vtab(folder, "cifar")
    result = tasks.located(config("cifar", data=str(folder)))
    assert result.data == str(folder)
    assert tasks.located(result) == result
    above = tasks.located(config("svhn", data=str(make_vtab(tmp_path, "svhn").parent)))
    assert above.data == str(tmp_path / "svhn")


NAMES = ("Cats & Dogs", "birds, 2024", "Owner's images", "Vo\u0308gel", "पक्षी", "x" * 70, "100 %", ".hidden")


def test_every_folder_name_is_listed_and_trains(data: Path) -> None:
    for name in NAMES:
        make_own(data / "own" / name, {"a": 4, "b": 4})
    composed = {unicodedata.normalize("NFC", name) for name in NAMES}
    assert {task.title for task in tasks.own_tasks()} == composed - {".hidden"}
    for name in NAMES:
        result = tasks.located(config(f"own:{name}"))
        assert result.data == str(data / "own" / name)
        assert catalog.task(result.task).title in composed


def test_a_link_that_may_not_be_followed_hides_no_other_folder(
    ordinary_user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(ordinary_user))
    make_own(ordinary_user / "own" / "birds")
    (ordinary_user / "private").mkdir(mode=0)
    (ordinary_user / "own" / "shared").symlink_to(ordinary_user / "private" / "shared")
    assert [task.title for task in tasks.own_tasks()] == ["birds"]
    (ordinary_user / "own" / "shared").unlink()


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task")
    add_run_options(parser)
    return parser.parse_args(words)


def test_data_without_task_means_own_images(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_own(tmp_path / "my, birds", {"a": 4, "b": 4})
    (tmp_path / "my, birds" / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    os.symlink(folder, tmp_path / "link")
    for words, title in ((["--data", ".."], "my, birds"), (["--data", str(folder)], "my, birds"),
                         (["--data", str(tmp_path / "link"), "--task", "own"], "link")):  # fmt: skip
        result = config_of(parsed(*words), dense())
        assert catalog.task(result.task).title == title
        assert Path(result.data).samefile(folder)
        assert ".." not in result.data
    with pytest.raises(UsageError, match="no task is named: add --task"):
        config_of(parsed(), dense())


# ---------------------------------------------------------------- images that cannot be read


def broken(folder: Path) -> Path:
    make_own(folder, {"a": 20, "b": 20})
    truncate(folder / "a" / "image 3.jpg")
    (folder / "b" / "image 1.PNG").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (folder / "b" / "image 2.jpeg").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "b" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    return folder


def test_unreadable_images_are_found_before_the_run_left_out_and_named(data: Path) -> None:
    folder = broken(data / "own" / "birds")
    reports: list[tuple[int, int]] = []
    result = tasks.located(config("own:birds"), lambda done, total: reports.append((done, total)))
    assert reports[-1] == (40, 40)
    assert result.badge.data.endswith(" (37 of 41 readable)")
    note = next(note for note in result.data_notes if note.startswith("Left out"))
    for text in (
        "4 of 41 images", "a/image 3.jpg (", "b/image 1.PNG (a Git LFS pointer, no image)",
        "b/image 2.jpeg (an HTML page, no image)", "b/phone.heic (HEIC)",
    ):  # fmt: skip
        assert text in note
    loaded = tasks.load_protocol(result, on_chunk=lambda: pytest.fail("checked a second time"))
    assert loaded.config == result, "the run leaves out the same images"
    assert loaded.record is not None
    assert not {"a/image 3.jpg", "b/image 1.PNG", "b/phone.heic"} & {*loaded.record.train.paths}
    listing = tasks.listed(catalog.task("own:birds"), folder)
    assert sum(listing.counts.values()) == 37


def test_a_run_finds_its_images_without_the_stored_check(data: Path) -> None:
    """The cache is safe to delete."""
    broken(data / "own" / "birds")
    result = tasks.located(config("own:birds"))
    loaded = tasks.load_protocol(result)
    for file in (data / "cache" / "checks").iterdir():
        file.unlink()
    repeated = tasks.load_protocol(result, record=loaded.record)
    assert repeated.config == result
    assert np.array_equal(repeated.evaluation.images, loaded.evaluation.images)


def test_an_image_that_is_completed_during_the_check_is_checked_again(data: Path) -> None:
    """As of a folder that is still being copied."""
    folder = make_own(data / "own" / "birds", {"a": 10, "b": 10})
    image = folder / "a" / "image 3.jpg"
    whole = image.read_bytes()
    truncate(image)

    def complete(done: int, total: int) -> None:
        image.write_bytes(whole)

    task = catalog.task("own:birds")
    assert tasks.checked(task, folder, complete).left_out == ("a/image 3.jpg",)
    assert tasks.checked(task, folder).left_out == ()


def test_a_class_without_a_readable_image_is_refused(data: Path) -> None:
    folder = make_own(data / "own" / "birds", {"a": 6, "b": 6, "c": 6})
    for image in (folder / "c").iterdir():
        image.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"none of the 6 images of the class c can be read \(a Git LFS pointer"):
        tasks.located(config("own:birds"))


def test_own_lists_with_unreadable_images_and_labels_from_1(data: Path) -> None:
    folder = make_vtab(data / "own", "cifar", classes=3, folder="lists", broken="images/train800/000001.jpg")
    for name in ("train800.txt", "val200.txt", "test.txt"):
        pairs = [line.rsplit(" ", 1) for line in (folder / name).read_text().splitlines()]
        (folder / name).write_text("".join(f"{path} {int(label) + 1}\n" for path, label in pairs))
    result = tasks.located(config("own:lists"))
    assert result.data_label == "own images, 7/2/5 (14 of 15 readable)"
    assert any("run from 1" in note for note in result.data_notes)
    loaded = tasks.load_protocol(result)
    assert loaded.class_names == ("1", "2", "3")
    assert set(loaded.train.labels) == {0, 1, 2}


# ---------------------------------------------------------------- 12 bits in files of 16


def test_twelve_bits_in_sixteen_are_scaled_by_the_range_of_the_folder(data: Path) -> None:
    """They became nearly black."""
    folder = make_own(data / "own" / "scans", {"a": 8, "b": 8})
    for name in "ab":
        for i in range(8):
            value = 4000 if (name, i) == ("b", 7) else 1600
            Image.fromarray(np.full((9, 9), value, dtype=np.uint16)).save(folder / name / f"image {i}.png")
            for suffix in (".jpg", ".PNG", ".jpeg"):
                (folder / name / f"image {i}{suffix}").unlink(missing_ok=True)
    result = tasks.located(config("own:scans"))
    assert "Values of 16 bits are read as 12 bits, as the largest in the folder is 4,000." in result.data_notes
    loaded = tasks.load_protocol(result)
    values = {*np.unique(loaded.train.images), *np.unique(loaded.evaluation.images)}
    assert values <= {1600 >> 4, 4000 >> 4}
    assert 100 in values
    assert loaded.record is not None
    assert loaded.record.depth == 12
    write_image(folder / "a" / "colour.jpg", 1)
    Image.fromarray(np.full((9, 9), 65_000, dtype=np.uint16)).save(folder / "a" / "brighter.png")
    later = tasks.load_protocol(result, record=loaded.record)
    assert np.array_equal(later.train.images, loaded.train.images), "a run keeps its depth"
    rule = preprocessing("vtab").rule(9)
    assert decoded(folder / "a" / "image 0.png", rule).max() == 6, "as without knowledge of the folder"
