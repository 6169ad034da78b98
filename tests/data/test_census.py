"""The census: missing, damaged, mislabelled and repeated images, and numbers that differ from the catalog."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from trees import make_fgvc, make_own, make_vtab, truncate, write_image

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Task
from mlae_lab.data.census import MISSING, PARTIAL, READY, census
from mlae_lab.data.decode import problem_of
from mlae_lab.data.fgvc import read_fgvc
from mlae_lab.data.listing import Listing
from mlae_lab.data.own import read_own
from mlae_lab.data.vtab import read_vtab

CIFAR, CUB = catalog.task("cifar"), catalog.task("cub")
CLASSES = 3


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_vtab(tmp_path, "cifar", classes=CLASSES)


def small(task: Task, train: int = 8, val: int = 2, test: int = 5, classes: int = CLASSES) -> Task:
    """A task of the catalog with the numbers of a small folder."""
    return replace(task, train=train, val=val, test=test, classes=classes)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


# ---------------------------------------------------------------- complete datasets and the catalog


@pytest.mark.parametrize("decode", [False, True])
def test_complete_dataset_that_matches_the_catalog(home: Path, decode: bool) -> None:
    task = small(CIFAR)
    result = census(read_vtab(home, task), task, decode)
    assert result.state == READY
    assert result.is_standard
    assert result.decoded is decode
    assert result.counts == result.expected == {"train": 8, "val": 2, "test": 5}
    assert (result.problems, result.warnings, result.notes) == ((), (), ())


def test_every_kind_of_image_can_be_read(tmp_path: Path) -> None:
    """Odd sizes, grey, CMYK, rotated by EXIF; PNG with alpha, palette and one bit; other formats."""
    for i in range(20):
        write_image(tmp_path / "a" / f"{i}.jpg", i)
        write_image(tmp_path / "b" / f"{i}.png", i)
    for i, suffix in enumerate((".bmp", ".webp", ".gif", ".tif", ".TIFF", ".ppm")):
        write_image(tmp_path / "c" / f"ü {i}{suffix}", i)
    result = census(read_own(tmp_path), None, decode=True)
    assert result.state == READY
    assert result.problems == ()


def test_warnings_name_both_numbers(home: Path) -> None:
    result = census(read_vtab(home, CIFAR), CIFAR, decode=False)
    assert result.state == READY
    assert not result.is_standard
    assert result.warnings == (
        "train lists 8 images, the catalog has 800.",
        "val lists 2 images, the catalog has 200.",
        "test lists 5 images, the catalog has 10,000.",
    )
    assert result.notes == ("train has no image of 97 of 100 classes: 3, 4, 5, 6, 7 and 92 more.",)


@pytest.mark.parametrize(("off", "standard"), [(1, True), (-1, True), (2, False), (-2, False)])
def test_one_test_image_more_or_less_is_still_standard(home: Path, off: int, standard: bool) -> None:
    task = small(CIFAR, test=5 + off)
    result = census(read_vtab(home, task), task, decode=False)
    assert result.is_standard is standard
    assert len(result.warnings) == 1
    assert result.state == READY


def test_caltech_with_one_image_more(home: Path) -> None:
    caltech = catalog.task("caltech101")
    listing = read_vtab(home, caltech)
    test = tuple((f"images/test/{i:06d}.jpg", i % 102) for i in range(6085))
    result = census(replace(listing, splits={**listing.splits, "test": test}), caltech, decode=False)
    assert "test lists 6,085 images, the catalog has 6,084." in result.warnings


@pytest.mark.parametrize("changed", [{"train": 9}, {"val": 1}, {"classes": 4}])
def test_another_number_of_train_val_or_classes_is_not_standard(home: Path, changed: dict[str, int]) -> None:
    listing = read_vtab(home, small(CIFAR))
    result = census(listing, small(CIFAR, **changed), decode=False)
    assert not result.is_standard
    assert len(result.warnings) == 1
    assert result.state == READY


def test_only_the_tasks_own_layout_is_standard(home: Path, tmp_path: Path) -> None:
    listing = read_vtab(home, small(CIFAR))
    assert not census(listing, None, decode=False).is_standard
    assert not census(replace(listing, kind="own"), small(CIFAR), decode=False).is_standard
    assert not census(listing, small(catalog.task("digits")), decode=False).is_standard
    task = small(CUB, classes=4)
    birds = read_fgvc(make_fgvc(tmp_path, "cub"), task)
    assert census(birds, task, decode=True).is_standard
    assert not census(replace(birds, kind="vtab"), task, decode=False).is_standard
    fewer = census(birds, CUB, decode=False)
    assert "The images have 4 classes, the catalog has 200." in fewer.warnings
    assert not fewer.is_standard


def test_own_images_are_not_compared_with_the_catalog(tmp_path: Path) -> None:
    listing = read_own(make_own(tmp_path))
    result = census(listing, None, decode=True)
    assert (result.state, result.expected, result.expected_classes, result.warnings) == (READY, {}, 0, ())
    assert result.classes == 3
    assert result.notes == (*listing.notes, "test has no image of 2 of 3 classes: fig, Äpfel.")
    assert not result.is_standard
    nameless = small(CIFAR, 0, 0, 0, classes=0)  # as the catalog describes a user's own images
    assert census(listing, nameless, decode=True) == result


def test_classes_with_one_image_or_none_in_a_split_are_noted(tmp_path: Path) -> None:
    for split, counts in (("train", {"a": 4, "b": 1}), ("val", {"a": 2, "c": 2}), ("test", {"a": 2, "b": 2})):
        make_own(tmp_path / split, counts)
    result = census(read_own(tmp_path), None, decode=False)
    assert result.notes == (
        "train has no image of 1 of 3 classes: c.",
        "val has no image of 1 of 3 classes: b.",
        "test has no image of 1 of 3 classes: c.",
        "train has a single image of 1 of 3 classes: b.",
    )


# ---------------------------------------------------------------- missing


def test_first_five_missing_images_are_named(home: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(home, task)
    for i in range(7):
        (home / f"images/train800/{i:06d}.jpg").unlink()
    result = census(listing, task, decode=True)
    names = ", ".join(f"images/train800/{i:06d}.jpg" for i in range(5))
    assert result.problems == (f"Missing: 7 of 15 images, {names} and 2 more.",)
    assert result.state == PARTIAL
    assert not result.is_standard
    assert len(result.missing) == 7
    assert result.unreadable == ()  # a missing image is not unreadable as well


def test_folder_without_listed_images_is_missing(home: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(home, task)
    (home / "images").rename(home / "moved")
    result = census(listing, task, decode=True)
    assert result.state == MISSING
    assert result.problems[0].startswith("Missing: 15 of 15 images, images/train800/0")
    assert result.counts == {"train": 8, "val": 2, "test": 5}


def test_no_listing_at_all() -> None:
    result = census(None, CIFAR, decode=False)
    assert result.state == MISSING
    assert result.problems == ("No folder with images of CIFAR-100 (cifar) was found.",)
    assert result.counts == {"train": 0, "val": 0, "test": 0}
    assert result.expected["test"] == 10_000


def test_folder_instead_of_an_image_and_links_that_lead_nowhere_are_missing(home: Path) -> None:
    task = small(CIFAR)
    for i in (0, 1, 3):
        (home / f"images/test/{i:06d}.jpg").unlink()
    (home / "images/test/000000.jpg").mkdir()
    (home / "images/test/000001.jpg").symlink_to(home / "nowhere.jpg")
    (home / "images/test/000003.jpg").symlink_to("000003.jpg")
    (home / "images/test/000002.jpg").rename(home / "elsewhere.jpg")
    (home / "images/test/000002.jpg").symlink_to(home / "elsewhere.jpg")  # this link has a target
    result = census(read_vtab(home, task), task, decode=True)
    assert result.missing == tuple(f"images/test/{i:06d}.jpg" for i in (0, 1, 3))
    assert result.unreadable == ()


# ---------------------------------------------------------------- unreadable


def test_a_truncated_image_is_found_by_decoding_only(tmp_path: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(make_vtab(tmp_path, "cifar", classes=CLASSES, broken="images/val200/000001.jpg"), task)
    assert census(listing, task, decode=False).problems == ()
    result = census(listing, task, decode=True)
    assert result.problems == ("Unreadable: 1 of 15 images, images/val200/000001.jpg.",)
    assert result.state == PARTIAL
    assert not result.is_standard
    assert result.unreadable == ("images/val200/000001.jpg",)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".tif", ".ppm", ".webp"])
def test_half_an_image_is_unreadable_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole{suffix}"
    write_image(path, 4)
    assert problem_of(path) == ("", 0)
    truncate(path)
    assert problem_of(path)[0]


def test_files_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, 2)
    whole = bytearray(path.read_bytes())
    for content in (b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(200)):
        path.write_bytes(content)
        assert problem_of(path)[0]
    whole[len(whole) // 2] ^= 0xFF  # one byte of a complete PNG, which its checksum detects
    path.write_bytes(whole)
    assert problem_of(path)[0]
    assert problem_of(tmp_path / "nowhere.png")[0]
    assert problem_of(tmp_path)[0]


def test_an_image_too_large_to_decode(tmp_path: Path) -> None:
    """90 million pixels in the header: refused before memory is allocated for them."""
    (tmp_path / "huge.ppm").write_bytes(b"P6\n10000 9000\n255\n" + bytes(1000))
    with pytest.warns(match="decompression bomb"):
        assert problem_of(tmp_path / "huge.ppm")[0]


def test_progress_is_reported_and_can_stop_the_check(home: Path) -> None:
    listing = read_vtab(home, CIFAR)
    reports: list[tuple[int, int]] = []
    census(listing, None, decode=True, progress=lambda done, whole: reports.append((done, whole)))
    assert reports[-1] == (15, 15)

    def enough(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        census(listing, None, decode=True, progress=enough)


# ---------------------------------------------------------------- labels and repeated images


def test_labels_outside_the_classes_are_named_with_their_line(home: Path) -> None:
    task = small(CIFAR)
    append(home / "train800.txt", "images/train800/000000.jpg 3\n")
    (home / "val200.txt").write_text("images/val200/000000.jpg 2\nimages/val200/000001.jpg -1\n")
    result = census(read_vtab(home, task), task, decode=False)
    assert "train has 1 label outside 0 to 2: train800.txt line 9, images/train800/000000.jpg 3." in result.problems
    assert "val has 1 label outside 0 to 2: val200.txt line 2, images/val200/000001.jpg -1." in result.problems
    assert result.state == PARTIAL
    assert not result.is_standard


def test_unknown_class_id_is_reported_once(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub", classes=4)
    ids = json.loads((home / "test.json").read_text(encoding="utf-8"))
    ids[next(iter(ids))] = 99
    (home / "test.json").write_text(json.dumps(ids), encoding="utf-8")
    task = small(CUB, classes=4)
    result = census(read_fgvc(home, task), task, decode=False)
    assert len(result.problems) == 1
    assert "class ids that train.json lacks (99)" in result.problems[0]
    assert result.state == PARTIAL
    assert not result.is_standard


def test_an_image_in_two_splits_and_one_twice(home: Path) -> None:
    task = small(CIFAR)
    append(home / "test.txt", "images/train800/000003.jpg 0\nimages/test/000000.jpg 0\n")
    result = census(read_vtab(home, task), task, decode=False)
    assert result.problems == (
        "In more than one split: 1 image, images/train800/000003.jpg (train and test).",
        "More than once in a split: 1 image, images/test/000000.jpg (test).",
    )


def test_class_without_training_images_is_a_note(home: Path) -> None:
    task = small(CIFAR, classes=4)
    result = census(read_vtab(home, task), task, decode=False)
    assert result.notes == ("train has no image of 1 of 4 classes: 3.",)
    assert result.state == READY
    assert result.is_standard


# ---------------------------------------------------------------- speed


def test_forty_thousand_images_in_two_seconds(tmp_path: Path) -> None:
    """Measured in process time, which other work on the machine does not slow down."""
    (tmp_path / "images").mkdir()
    items = tuple((f"images/{i:06d}.jpg", i % 10) for i in range(40_000))
    for path, _ in items:
        os.close(os.open(tmp_path / path, os.O_CREAT))  # quicker than Path.touch
    splits = {"train": items[:800], "val": items[800:1000], "test": items[1000:]}
    start = time.process_time()
    result = census(Listing(tmp_path, "vtab", splits, tuple("0123456789")), None, decode=False)
    assert time.process_time() - start < 2
    assert result.state == READY
    assert result.problems == ()
