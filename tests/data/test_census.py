"""What the census sees: images that are gone, damaged, mislabelled, twice, and numbers beside the table's."""

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
from mlae_lab.data.census import MISSING, PARTIAL, READY, census, readable
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
    """A task of the catalog with the numbers of a small tree."""
    return replace(task, train=train, val=val, test=test, classes=classes)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


# ---------------------------------------------------------------- the healthy case and the table


@pytest.mark.parametrize("decode", [False, True])
def test_whole_and_by_the_table(home: Path, decode: bool) -> None:
    task = small(CIFAR)
    found = census(read_vtab(home, task), task, decode)
    assert found.state == READY
    assert found.is_standard
    assert found.decoded is decode
    assert found.counts == found.expected == {"train": 8, "val": 2, "test": 5}
    assert (found.problems, found.warnings, found.notes) == ((), (), ())


def test_every_kind_of_image_can_be_read(tmp_path: Path) -> None:
    """Odd sizes, grey, CMYK, rotated by EXIF; PNG with alpha, palette and one bit; and the other formats."""
    for i in range(20):
        write_image(tmp_path / "a" / f"{i}.jpg", i)
        write_image(tmp_path / "b" / f"{i}.png", i)
    for i, suffix in enumerate((".bmp", ".webp", ".gif", ".tif", ".TIFF", ".ppm")):
        write_image(tmp_path / "c" / f"ü {i}{suffix}", i)
    found = census(read_own(tmp_path), None, decode=True)
    assert found.state == READY
    assert found.problems == ()


def test_numbers_that_differ_are_warned_of_with_both(home: Path) -> None:
    found = census(read_vtab(home, CIFAR), CIFAR, decode=False)
    assert found.state == READY
    assert not found.is_standard
    assert found.warnings == (
        "train lists 8 images, the table has 800.",
        "val lists 2 images, the table has 200.",
        "test lists 5 images, the table has 10,000.",
    )
    assert found.notes == ("train has no image of 97 of 100 classes: 3, 4, 5, 6, 7 and 92 more.",)


@pytest.mark.parametrize(("off", "standard"), [(1, True), (-1, True), (2, False), (-2, False)])
def test_one_test_image_more_or_less_is_still_standard(home: Path, off: int, standard: bool) -> None:
    task = small(CIFAR, test=5 + off)
    found = census(read_vtab(home, task), task, decode=False)
    assert found.is_standard is standard
    assert len(found.warnings) == 1
    assert found.state == READY


def test_caltech_with_one_image_more(home: Path) -> None:
    caltech = catalog.task("caltech101")
    listing = read_vtab(home, caltech)
    test = tuple((f"images/test/{i:06d}.jpg", i % 102) for i in range(6085))
    found = census(replace(listing, splits={**listing.splits, "test": test}), caltech, decode=False)
    assert "test lists 6,085 images, the table has 6,084." in found.warnings


@pytest.mark.parametrize("changed", [{"train": 9}, {"val": 1}, {"classes": 4}])
def test_another_number_of_train_val_or_classes_is_not_standard(home: Path, changed: dict[str, int]) -> None:
    listing = read_vtab(home, small(CIFAR))
    found = census(listing, small(CIFAR, **changed), decode=False)
    assert not found.is_standard
    assert len(found.warnings) == 1
    assert found.state == READY


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
    assert "The images have 4 classes, the table has 200." in fewer.warnings
    assert not fewer.is_standard


def test_own_images_have_no_table(tmp_path: Path) -> None:
    listing = read_own(make_own(tmp_path))
    found = census(listing, None, decode=True)
    assert (found.state, found.expected, found.expected_classes, found.warnings) == (READY, {}, 0, ())
    assert found.classes == 3
    assert found.notes == listing.notes
    assert not found.is_standard
    nameless = small(CIFAR, 0, 0, 0, classes=0)  # as the catalog describes somebody's own
    assert census(listing, nameless, decode=True) == found


# ---------------------------------------------------------------- missing


def test_missing_images_are_named_the_first_five(home: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(home, task)
    for i in range(7):
        (home / f"images/train800/{i:06d}.jpg").unlink()
    found = census(listing, task, decode=True)
    names = ", ".join(f"images/train800/{i:06d}.jpg" for i in range(5))
    assert found.problems == (f"Missing: 7 of 15 images, {names} and 2 more.",)
    assert found.state == PARTIAL
    assert not found.is_standard
    assert len(found.missing) == 7
    assert found.unreadable == ()  # a missing image is not unreadable as well


def test_nothing_there_is_missing(home: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(home, task)
    (home / "images").rename(home / "moved")
    found = census(listing, task, decode=True)
    assert found.state == MISSING
    assert found.problems[0].startswith("Missing: 15 of 15 images, images/train800/0")
    assert found.counts == {"train": 8, "val": 2, "test": 5}


def test_no_listing_at_all() -> None:
    found = census(None, CIFAR, decode=False)
    assert found.state == MISSING
    assert found.problems == ("No folder with images of CIFAR-100 (cifar) was found.",)
    assert found.counts == {"train": 0, "val": 0, "test": 0}
    assert found.expected["test"] == 10_000


def test_a_folder_in_an_images_place_and_a_dangling_link_are_missing(home: Path) -> None:
    task = small(CIFAR)
    for i in (0, 1):
        (home / f"images/test/{i:06d}.jpg").unlink()
    (home / "images/test/000000.jpg").mkdir()
    (home / "images/test/000001.jpg").symlink_to(home / "nowhere.jpg")
    (home / "images/test/000002.jpg").rename(home / "elsewhere.jpg")
    (home / "images/test/000002.jpg").symlink_to(home / "elsewhere.jpg")  # this one leads somewhere
    found = census(read_vtab(home, task), task, decode=True)
    assert found.missing == ("images/test/000000.jpg", "images/test/000001.jpg")
    assert found.unreadable == ()


# ---------------------------------------------------------------- unreadable


def test_a_truncated_image_is_found_by_decoding_only(tmp_path: Path) -> None:
    task = small(CIFAR)
    listing = read_vtab(make_vtab(tmp_path, "cifar", classes=CLASSES, broken="images/val200/000001.jpg"), task)
    assert census(listing, task, decode=False).problems == ()
    found = census(listing, task, decode=True)
    assert found.problems == ("Unreadable: 1 of 15 images, images/val200/000001.jpg.",)
    assert found.state == PARTIAL
    assert not found.is_standard
    assert found.unreadable == ("images/val200/000001.jpg",)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".tif", ".ppm", ".webp"])
def test_half_an_image_is_unreadable_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole{suffix}"
    write_image(path, 4)
    assert readable(path)
    truncate(path)
    assert not readable(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, 2)
    whole = bytearray(path.read_bytes())
    for content in (b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(200)):
        path.write_bytes(content)
        assert not readable(path)
    whole[len(whole) // 2] ^= 0xFF  # one byte of a whole PNG: its checksum tells
    path.write_bytes(whole)
    assert not readable(path)
    assert not readable(tmp_path / "nowhere.png")
    assert not readable(tmp_path)


def test_an_image_too_large_to_decode(tmp_path: Path) -> None:
    """90 million pixels by its header: refused before any memory is taken for them."""
    (tmp_path / "huge.ppm").write_bytes(b"P6\n10000 9000\n255\n" + bytes(1000))
    with pytest.warns(match="decompression bomb"):
        assert not readable(tmp_path / "huge.ppm")


def test_progress_is_told_and_can_end_the_work(home: Path) -> None:
    listing = read_vtab(home, CIFAR)
    told: list[tuple[int, int]] = []
    census(listing, None, decode=True, progress=lambda done, whole: told.append((done, whole)))
    assert told[-1] == (15, 15)

    def enough(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        census(listing, None, decode=True, progress=enough)


# ---------------------------------------------------------------- labels and doubles


def test_labels_outside_the_classes_are_named_with_their_line(home: Path) -> None:
    task = small(CIFAR)
    append(home / "train800.txt", "images/train800/000000.jpg 3\n")
    (home / "val200.txt").write_text("images/val200/000000.jpg 2\nimages/val200/000001.jpg -1\n")
    found = census(read_vtab(home, task), task, decode=False)
    assert "train has 1 label outside 0 to 2: train800.txt line 9, images/train800/000000.jpg 3." in found.problems
    assert "val has 1 label outside 0 to 2: val200.txt line 2, images/val200/000001.jpg -1." in found.problems
    assert found.state == PARTIAL
    assert not found.is_standard


def test_an_id_that_train_lacks_is_told_once(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub", classes=4)
    ids = json.loads((home / "test.json").read_text(encoding="utf-8"))
    ids[next(iter(ids))] = 99
    (home / "test.json").write_text(json.dumps(ids), encoding="utf-8")
    task = small(CUB, classes=4)
    found = census(read_fgvc(home, task), task, decode=False)
    assert len(found.problems) == 1
    assert "class ids that train.json lacks (99)" in found.problems[0]
    assert found.state == PARTIAL
    assert not found.is_standard


def test_an_image_in_two_splits_and_one_twice(home: Path) -> None:
    task = small(CIFAR)
    append(home / "test.txt", "images/train800/000003.jpg 0\nimages/test/000000.jpg 0\n")
    found = census(read_vtab(home, task), task, decode=False)
    assert found.problems == (
        "In more than one split: 1 image, images/train800/000003.jpg (train and test).",
        "More than once in a split: 1 image, images/test/000000.jpg (test).",
    )


def test_a_class_that_train_lacks_is_a_note_and_no_problem(home: Path) -> None:
    task = small(CIFAR, classes=4)
    found = census(read_vtab(home, task), task, decode=False)
    assert found.notes == ("train has no image of 1 of 4 classes: 3.",)
    assert found.state == READY
    assert found.is_standard


# ---------------------------------------------------------------- speed


def test_forty_thousand_images_in_two_seconds(tmp_path: Path) -> None:
    """Counted as the process's own time: other work on the machine does not slow it."""
    (tmp_path / "images").mkdir()
    items = tuple((f"images/{i:06d}.jpg", i % 10) for i in range(40_000))
    for path, _ in items:
        os.close(os.open(tmp_path / path, os.O_CREAT))  # quicker than Path.touch
    splits = {"train": items[:800], "val": items[800:1000], "test": items[1000:]}
    start = time.process_time()
    found = census(Listing(tmp_path, "vtab", splits, tuple("0123456789")), None, decode=False)
    assert time.process_time() - start < 2
    assert found.state == READY
    assert found.problems == ()
