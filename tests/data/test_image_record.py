"""The list of a run's images: its file, and finding them in a folder that has changed."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlae_lab.core import catalog
from mlae_lab.data.bundled import DataError
from mlae_lab.data.content import content_hash, content_hashes
from mlae_lab.data.image_record import (
    ImageList,
    ImageRecord,
    as_listing,
    duplicates,
    match,
    missing_sentence,
    packed,
    read_record,
    record_of,
    unpacked,
    write_record,
)
from mlae_lab.data.own import read_own
from mlae_lab.data.vtab import read_vtab
from tests.data.trees import make_own, make_vtab, write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "birds"
    for number in range(24):
        write_image(home / ("owl" if number % 2 else "wren") / f"{number}.png", number)
    return home


def record_in(folder: Path) -> ImageRecord:
    listing = read_own(folder)
    train, evaluation = (content_hashes([folder / path for path, _ in items]) for items in listing.protocol("val"))
    return record_of(listing, "val", (train, evaluation))


def test_a_file_gives_back_what_was_written(folder: Path, tmp_path: Path) -> None:
    record = record_in(folder)
    write_record(tmp_path / "images.json.gz", record)
    read = read_record(tmp_path / "images.json.gz")
    assert read is not None
    assert packed(read) == packed(record)
    assert (read.classes, read.train.digest) == (("owl", "wren"), record.train.digest)
    assert read_record(tmp_path / "none") is None
    unnamed = unpacked(packed(record, with_paths=False), "x")
    assert unnamed.train.paths == ()
    assert unnamed.train.digest == record.train.digest
    assert b"owl/" not in gzip.decompress(packed(record, with_paths=False))


def test_the_depth_of_the_images_is_kept(folder: Path) -> None:
    record = record_in(folder)
    assert record.depth is None
    assert unpacked(packed(record), "x").depth is None
    deep = replace(record, depth=12)
    assert unpacked(packed(deep), "x").depth == 12
    matched = match(deep, read_own(folder))
    assert as_listing(matched, deep, folder).depth == 12
    for depth in (7, 17, "12", True):
        with pytest.raises(DataError, match="depth of its images"):
            unpacked(changed(depth=depth), "x")


def test_names_that_are_not_utf8_survive() -> None:
    part = ImageList(("gr\udcfcn/ä.jpg",), (0,), np.array([7], dtype=np.uint64))
    assert unpacked(packed(ImageRecord(("a",), part, part)), "x").train.paths == part.paths


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    with (tmp_path / "film.png").open("wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()
    try:
        (value,) = content_hashes([tmp_path / "film.png"])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert value == content_hash((tmp_path / "film.png").read_bytes())


def changed(**values: object) -> bytes:
    part = {"paths": ["a"], "labels": [0], "content": "00" * 8}
    data = {"format": 1, "classes": ["x", "y"], "train": dict(part), "evaluation": dict(part)} | values
    return gzip.compress(json.dumps(data).encode(), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no gzip", gzip.compress(b"[]", mtime=0), gzip.compress(b"[" * 5000, mtime=0), changed()[:-9],
        changed(format=2), changed(classes=[1]), changed(classes="xy"), changed(train={}), changed(train=[]),
        changed(train={"paths": ["a"], "labels": [2], "content": "00" * 8}),
        changed(train={"paths": ["a"], "labels": [True], "content": "00" * 8}),
        changed(train={"paths": ["a", "b"], "labels": [0], "content": "00" * 8}),
        changed(train={"paths": [], "labels": [0], "content": "00" * 9}),
        changed(train={"paths": [], "labels": [0], "content": "zz"}), changed(unused=-1), changed(unused="3"),
    ],
    ids=lambda content: f"{zlib.crc32(content):08x}",
)  # fmt: skip
def test_a_damaged_file_is_one_sentence(content: bytes) -> None:
    unpacked(changed(), "images.json.gz")
    with pytest.raises(DataError, match=r"images.json.gz is not a list of a run's images"):
        unpacked(content, "images.json.gz")


def test_a_small_file_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlae_lab.data.image_record.MAX_BYTES", 1000)
    with pytest.raises(DataError, match="larger than an image record can be"):
        unpacked(gzip.compress(b" " * 5000), "x")


def test_an_unchanged_folder_matches_completely(folder: Path) -> None:
    record = record_in(folder)
    matched = match(record, read_own(folder))
    assert matched.is_complete
    assert matched.unused == record.unused == 24 - len(record.train) - len(record.evaluation)  # those of test
    assert matched.train == read_own(folder).splits["train"]
    assert missing_sentence(matched, record, folder) == ""


def test_renamed_moved_and_relabelled_files_are_still_the_same_images(folder: Path, tmp_path: Path) -> None:
    record = record_in(folder)
    labels = {content: label for label, content in zip(record.train.labels, record.train.content, strict=True)}
    (folder / "owl").rename(folder / "zowl")  # after wren now, so every label of the folder differs
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    matched = match(record, read_own(moved))
    assert matched.is_complete
    listing = as_listing(matched, record, moved)
    assert listing.class_names == ("owl", "wren")
    for path, label in listing.splits["train"]:
        assert labels[content_hash((moved / path).read_bytes())] == label
        assert ("zowl" if label == 0 else "wren") == path.split("/")[0]


def test_added_images_are_counted_and_not_used(folder: Path) -> None:
    record = record_in(folder)
    for number in range(100, 110):
        write_image(folder / "owl" / f"new {number}.png", number)
    matched = match(record, read_own(folder))
    assert matched.is_complete
    assert record.unused is not None
    assert matched.unused == record.unused + 10
    assert len(matched.evaluation) == len(record.evaluation)


def test_missing_and_modified_images_are_named(folder: Path) -> None:
    record = record_in(folder)
    (folder / record.evaluation.paths[0]).unlink()
    write_image(folder / record.train.paths[1], 999)
    matched = match(record, read_own(folder))
    assert not matched.is_complete
    assert (matched.missing_train, matched.missing_evaluation) == (
        (record.train.paths[1],),
        (record.evaluation.paths[0],),
    )
    sentence = missing_sentence(matched, record, folder)
    assert f"lacks 1 of the run's {len(record.train)} training images ({record.train.paths[1]}) and 1 of" in sentence
    assert len(matched.train) == len(record.train) - 1


def test_a_listed_image_that_is_gone_is_missing_and_not_new(tmp_path: Path) -> None:
    cifar = catalog.task("cifar")
    folder = make_vtab(tmp_path, "cifar")
    for number, image in enumerate(sorted(folder.rglob("*.jpg"))):
        write_image(image, number)  # different ones in each split
    listing = read_vtab(folder, cifar)
    contents = tuple(content_hashes([folder / path for path, _ in items]) for items in listing.protocol("val"))
    record = record_of(listing, "val", (contents[0], contents[1]))
    (folder / record.train.paths[0]).unlink()
    matched = match(record, read_vtab(folder, cifar))
    assert matched.missing_train == (record.train.paths[0],)
    assert matched.unused == record.unused == 5


def test_the_same_image_in_training_and_evaluation_is_named(folder: Path) -> None:
    record = record_in(folder)
    assert duplicates(record) == ()
    shutil.copyfile(folder / record.train.paths[0], folder / record.evaluation.paths[2])
    assert duplicates(record_in(folder)) == (record.evaluation.paths[2],)


def test_own_trees_of_other_tests_are_recorded(tmp_path: Path) -> None:
    record = record_in(make_own(tmp_path))
    assert len(set(record.train.content.tolist())) > 1
