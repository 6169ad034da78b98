"""Whether a folder holds the images of a run: content decides, not names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.data import tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.content import content_hashes
from mlae_lab.data.image_record import ImageRecord, record_of
from mlae_lab.data.run_images import checked_folder
from tests.data.trees import make_own, write_image


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunConfig, ImageRecord, Path]:
    """A run on a folder that has moved since: its config, its record and the folder."""
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    folder = make_own(tmp_path / "data" / "own" / "birds", {"wren": 12, "owl": 12})
    config = tasks.located(RunConfig(task="own:birds"))
    listing = tasks.listed(tasks.catalog.task("own:birds"), folder)
    train, evaluation = (content_hashes([folder / path for path, _ in part]) for part in listing.protocol("val"))
    record = record_of(listing, "val", (train, evaluation))
    return config, record, folder.rename(tmp_path / "photos")


def test_a_moved_folder_is_taken_by_its_content(run: tuple[RunConfig, ImageRecord, Path]) -> None:
    config, record, folder = run
    assert checked_folder(config, record, str(folder)) == str(folder)
    (folder / "owl").rename(folder / "zowl")
    write_image(folder / "zowl" / "new.jpg", 77)
    imported = replace(config, data="", data_fingerprint="")
    assert checked_folder(imported, record, str(folder)) == str(folder)
    assert checked_folder(config, record, " ") == ""


def test_other_images_are_refused_with_what_is_missing(
    run: tuple[RunConfig, ImageRecord, Path], tmp_path: Path
) -> None:
    config, record, folder = run
    (folder / record.train.paths[0]).write_bytes(b"another image")
    with pytest.raises(DataError, match=r"lacks 1 of the run's \d+ training images \(.*name the folder that holds the"):
        checked_folder(config, record, str(folder))
    with pytest.raises(DataError, match="is not a folder"):
        checked_folder(config, record, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="cannot be located: name it in full"):
        checked_folder(config, record, "~nosuch/birds")


def test_without_a_record_the_label_decides(run: tuple[RunConfig, ImageRecord, Path]) -> None:
    config, _, folder = run
    assert checked_folder(config, None, str(folder)) == str(folder)
    write_image(folder / "owl" / "new.jpg", 77)
    with pytest.raises(DataError, match=r"holds own images, .* and the run is of own images, "):
        checked_folder(config, None, str(folder))


def test_a_bundled_task_reads_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits is bundled and reads no folder"):
        checked_folder(RunConfig(task="digits"), None, str(tmp_path))


@pytest.mark.parametrize("change", ["a class of one image", "an unknown split", "an empty list"])
def test_a_folder_that_no_new_run_accepts_still_has_the_images_of_its_run(
    run: tuple[RunConfig, ImageRecord, Path], change: str
) -> None:
    config, record, folder = run
    if change == "a class of one image":
        write_image(folder / "wagtail" / "new.jpg", 77)
    elif change == "an unknown split":
        for name in ("owl", "wren"):
            (folder / "Übung" / name).parent.mkdir(exist_ok=True)
            (folder / name).rename(folder / "Übung" / name)
        for name in ("owl", "wren"):
            write_image(folder / "train" / name / "new.jpg", 77)
    else:
        (folder / "train800.txt").touch()
    with pytest.raises(DataError):
        tasks.listed(tasks.catalog.task("own:birds"), folder)
    assert checked_folder(config, record, str(folder)) == str(folder)
    loaded = tasks.load_protocol(replace(config, data=str(folder)), record=record)
    assert (len(loaded.train), len(loaded.evaluation), loaded.missing) == (
        len(record.train),
        len(record.evaluation),
        "",
    )
    assert loaded.evaluation.labels.tolist() == list(record.evaluation.labels)
