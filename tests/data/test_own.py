"""A user's own images: classes are folders, and a missing split is sampled the same way everywhere."""

from __future__ import annotations

import random
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from trees import make_own, make_vtab, write_image

from mlae_lab.data.bundled import DataError
from mlae_lab.data.decode import problem_of
from mlae_lab.data.folder_files import SUFFIXES
from mlae_lab.data.listing import Listing, natural
from mlae_lab.data.own import read_own


def touch(root: Path, counts: dict[str, int], suffix: str = ".jpg") -> Path:
    """Empty files with an image suffix, as reading a folder does not open them."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i}{suffix}").touch()
    return root


def paths(listing: Listing, split: str) -> set[str]:
    return {path for path, _ in listing.splits[split]}


def per_class(listing: Listing, split: str) -> list[int]:
    count = Counter(label for _, label in listing.splits[split])
    return [count[label] for label in range(listing.classes)]


def test_classes_are_the_folders_and_every_image_is_in_one_split(tmp_path: Path) -> None:
    listing = read_own(make_own(tmp_path))
    assert listing.kind == "own"
    assert listing.class_names == ("a pear", "fig", "Äpfel")
    assert sum(listing.counts.values()) == 15
    assert min(listing.counts.values()) > 0
    every = [path for items in listing.splits.values() for path, _ in items]
    assert len(every) == len(set(every)) == 15
    assert all((tmp_path / path).is_file() for path in every)
    for items in listing.splits.values():
        assert all(path.split("/")[0] == listing.class_names[label] for path, label in items)
    assert listing.notes == ("Split with seed 0: train, val, test.",)


def test_every_suffix_in_any_case_and_nested_images_but_nothing_hidden(tmp_path: Path) -> None:
    for i, suffix in enumerate(SUFFIXES):
        write_image(tmp_path / "a" / f"{i}{suffix.upper()}", i)
        write_image(tmp_path / "b" / "deep" / "deeper" / f"{i}{suffix}", i)
    for other in ("a/.hidden.jpg", "a/._0.JPG", "a/notes.txt", "a/jpg", ".git/x.jpg", "b/.thumbs/x.jpg", "loose.jpg"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    assert sum(listing.counts.values()) == 2 * len(SUFFIXES)
    assert any(path.startswith("b/deep/deeper/") for path in paths(listing, "train"))
    assert listing.notes[0] == "Images outside the class folders have no class and are ignored: loose.jpg."


def test_natural_order() -> None:
    names = ["10", "9", "class 2", "Class 10", "class 1", "_", "b", "A", "007", "7"]
    assert sorted(names, key=natural) == ["007", "7", "9", "10", "_", "A", "b", "class 1", "class 2", "Class 10"]
    assert natural("9" * 6000) > natural("8")  # longer than Python turns into a number


# ---------------------------------------------------------------- splitting


def test_split_depends_only_on_seed_and_paths(tmp_path: Path) -> None:
    first = read_own(touch(tmp_path / "one", {"a": 30, "b": 20}))
    assert read_own(tmp_path / "one").splits == first.splits
    other = tmp_path / "elsewhere" / "two"
    names = sorted(paths(first, "train") | paths(first, "val") | paths(first, "test"))
    random.Random(5).shuffle(names)
    for name in names:  # made in another order, so the directory may list them so
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).touch()
    assert read_own(other).splits == first.splits
    assert read_own(other, seed=1).splits != first.splits


def test_split_of_a_small_folder_is_fixed(tmp_path: Path) -> None:
    """Fixed here, so that no machine and no later version splits differently unnoticed."""
    assert read_own(touch(tmp_path, {"a": 4, "ü": 4})).splits == {
        "train": (("a/2.jpg", 0), ("ü/0.jpg", 1), ("a/3.jpg", 0), ("ü/2.jpg", 1)),
        "val": (("ü/1.jpg", 1), ("a/1.jpg", 0)),
        "test": (("a/0.jpg", 0), ("ü/3.jpg", 1)),
    }


def test_split_is_the_same_on_macos(tmp_path: Path) -> None:
    """The same folder with composed and decomposed umlauts."""
    listings = []
    for form in ("NFC", "NFD"):
        home = touch(tmp_path / form, {unicodedata.normalize(form, name): 10 for name in ("Äpfel", "Grün")})
        listings.append(read_own(home))
    first, second = (
        {split: [(unicodedata.normalize("NFC", path), label) for path, label in items] for split, items in x.items()}
        for x in (listing.splits for listing in listings)
    )
    assert first == second
    assert listings[0].class_names == listings[1].class_names
    assert all((tmp_path / "NFD" / path).is_file() for path in paths(listings[1], "train"))


# ---------------------------------------------------------------- folders of splits


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_given_splits_are_used(tmp_path: Path, val: str) -> None:
    for name, counts in (("Train", {"a": 3, "b": 2}), (val, {"a": 1}), ("test", {"b": 2, "c": 2})):
        touch(tmp_path / name, counts)
    (tmp_path / "annotations").mkdir()
    listing = read_own(tmp_path)
    assert listing.counts == {"train": 5, "val": 1, "test": 4}
    assert listing.class_names == ("a", "b", "c")  # over all splits: train has no c
    assert paths(listing, "val") == {f"{val}/a/0.jpg"}
    assert {label for path, label in listing.splits["test"] if "/c/" in path} == {2}
    assert listing.notes == ("Only train, val and test are read, not annotations.",)


@pytest.mark.parametrize(("given", "cut"), [("val", "test"), ("test", "val")])
def test_one_missing_split_is_a_fifth_of_train(tmp_path: Path, given: str, cut: str) -> None:
    touch(tmp_path / "train", {"a": 30, "b": 20})
    touch(tmp_path / given, {"a": 3, "b": 3})
    listing = read_own(tmp_path)
    assert listing.counts[given] == 6
    assert listing.counts["train"] + listing.counts[cut] == 50
    assert 5 <= listing.counts[cut] <= 15
    assert min(per_class(listing, cut)) > 0
    assert paths(listing, given) == {f"{given}/{name}/{i}.jpg" for name in "ab" for i in range(3)}
    assert not paths(listing, "train") & paths(listing, cut)
    assert listing.notes == (f"Split with seed 0 from train: {cut}.",)


def test_train_alone_gives_all_three(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"a": 6, "b": 4})
    (tmp_path / "test").mkdir()  # empty
    listing = read_own(tmp_path)
    assert sum(listing.counts.values()) == 10
    assert min(listing.counts.values()) > 0
    assert listing.class_names == ("a", "b")


def test_class_named_train(tmp_path: Path) -> None:
    listing = read_own(touch(tmp_path, {"train": 4, "bus": 4, "test": 4}))
    assert listing.class_names == ("bus", "test", "train")
    assert sum(listing.counts.values()) == 12


@pytest.mark.parametrize(
    "folders", [{"val/a": 3, "val/b": 3, "test/a": 3}, {"train": 9, "test": 9}, {"test": 3, "val": 3}]
)
def test_split_folders_without_train_are_refused(tmp_path: Path, folders: dict[str, int]) -> None:
    with pytest.raises(DataError, match="it needs a folder train that holds"):
        read_own(touch(tmp_path, folders))


def test_train_too_small_to_split(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"a": 2})
    touch(tmp_path / "test", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="train has 2 images: too few to split off val"):
        read_own(tmp_path)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "", "Testing"),
        ("training_set", "", "test_set"),
        ("train-set", "dev", "test"),
        ("TRAIN", "eval", "test"),
        ("seg_train", "", "seg_test"),
        ("training", "validation", "evaluation"),  # Food-11
        ("train", "eval", ""),
        ("Train images", "Val_Data", "testdata"),
    ],
)
def test_usual_names_of_split_folders(tmp_path: Path, train: str, val: str, test: str) -> None:
    """They became classes of a run that finished."""
    names = {"train": train, "val": val, "test": test}
    for split, name in names.items():
        if name:
            touch(tmp_path / name, {"a": 20 if split == "train" else 3, "b": 20 if split == "train" else 3})
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    for split, name in names.items():
        assert {path.split("/")[0] for path in paths(listing, split)} == {name or train}


def test_a_doubled_split_folder_is_one(tmp_path: Path) -> None:
    """As the archive of Intel's image classification unpacks."""
    for name in ("seg_train/seg_train", "seg_test/seg_test"):
        touch(tmp_path / name, {"forest": 10, "sea": 10})
    listing = read_own(tmp_path)
    assert listing.class_names == ("forest", "sea")
    assert listing.counts["test"] == 20


def test_images_without_a_class_in_a_split_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"a": 20, "b": 20})
    touch(tmp_path, {"test": 3})
    listing = read_own(tmp_path)
    assert sum(listing.counts.values()) == 40
    assert any("have no class and are ignored: test/0.jpg, test/1.jpg, test/2.jpg." in note for note in listing.notes)


def test_only_images_of_the_splits_count_as_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"a": 5, "b": 5})
    touch(tmp_path / "test", {"a": 5, "b": 5})
    for name in ("raw/1.heic", "2.heic", "train/3.heic", "train/a/4.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    listing = read_own(tmp_path)
    assert listing.left_out == ("train/a/4.heic",)
    assert "Left out, as they cannot be read: 1 of 21 images, train/a/4.heic (HEIC)." in listing.notes
    assert "Only train, val and test are read, not raw." in listing.notes
    assert "Images outside the class folders have no class and are ignored: 2.heic, train/3.heic." in listing.notes


def test_folders_for_one_split_are_joined_with_a_note(tmp_path: Path) -> None:
    for name in ("train", "val", "Validation", "test"):
        touch(tmp_path / name, {"a": 4, "b": 4})
    listing = read_own(tmp_path)
    assert listing.counts == {"train": 8, "val": 16, "test": 8}
    assert any("Validation as val" in note and "val as val" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        ({"setA/cat": 4, "setA/dog": 4, "setB/cat": 4, "setB/dog": 4}, ("setA", "setB", "cat, dog")),
        ({"train/cat": 4, "train/dog": 4, "holdout/cat": 4, "holdout/dog": 4}, ("holdout", "train", "cat, dog")),
        ({"cat/train": 4, "cat/test": 4, "dog/Train": 4, "dog/Test": 4, "cow": 4}, ("cat", "dog", "test, train")),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(
    tmp_path: Path, folders: dict[str, int], named: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match="may be splits or classes: for splits, name them train, val and test") as error:
        read_own(touch(tmp_path, folders))
    assert all(name in str(error.value) for name in named)


@pytest.mark.parametrize(("given", "missing"), [("val", "test"), ("test", "val")])
def test_a_misspelt_split_next_to_train_is_refused(tmp_path: Path, given: str, missing: str) -> None:
    """It was left out, and another test split was sampled from train."""
    for name in ("train", given, "tset"):
        touch(tmp_path / name, {"cat": 4, "dog": 4})
    same = r"tset holds folders of the same names as train \(cat, dog\)"
    with pytest.raises(DataError, match=f"{same}, so it may be the split {missing}: name it so"):
        read_own(tmp_path)
    touch(tmp_path / missing, {"cat": 4, "dog": 4})
    assert "Only train, val and test are read, not tset." in read_own(tmp_path).notes


def test_class_folders_with_folders_of_other_names_are_classes(tmp_path: Path) -> None:
    listing = read_own(touch(tmp_path, {"cat/2023": 4, "cat/2024": 4, "dog/2024": 4, "dog/old": 4}))
    assert listing.class_names == ("cat", "dog")


def test_a_stray_image_in_train_does_not_make_it_a_class(tmp_path: Path) -> None:
    for name in ("train", "test"):
        touch(tmp_path / name, {"a": 20, "b": 20})
    (tmp_path / "train" / "example.jpg").touch()
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    assert any(note.endswith("are ignored: train/example.jpg.") for note in listing.notes)


def test_classes_that_differ_in_case_between_splits_are_one(tmp_path: Path) -> None:
    """Val had 0 % before."""
    touch(tmp_path / "train", {"Cat": 20, "dog": 20})
    touch(tmp_path / "val", {"cat": 4, "Dog": 4})
    listing = read_own(tmp_path)
    assert listing.class_names == ("Cat", "dog")
    assert per_class(listing, "val") == [4, 4]
    assert "Class folders whose names differ only in case are one class: Dog is dog, cat is Cat." in listing.notes


def test_splits_without_a_common_class_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"cat": 20, "dog": 20})
    touch(tmp_path / "val", {"0": 4, "1": 4})
    with pytest.raises(DataError, match="val holds the classes 0, 1 and train cat, dog: both need class folders of"):
        read_own(tmp_path)


def test_the_dataset_one_folder_deeper_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "archive" / "flowers", {"rose": 4, "lily": 4})
    with pytest.raises(DataError, match=r"only the class folder 'flowers'.*; or name .*flowers, which has 2 folders"):
        read_own(tmp_path / "archive")


# ---------------------------------------------------------------- any ending, other programs


@pytest.mark.parametrize("ending", ["", ".jfif", ".jpe", ".JPG_large", ".img"])
def test_what_is_in_a_file_decides_not_its_ending(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        for i in range(4):
            write_image(tmp_path / "images" / name / f"{i}.jpg", i)
            (tmp_path / "images" / name / f"{i}.jpg").rename(tmp_path / "images" / name / f"{i}{ending}")
    assert sum(read_own(tmp_path / "images").counts.values()) == 8


def test_other_files_are_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "a" / "x.cr2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    (tmp_path / "b" / "labels.txt").write_text("P1 and P2")
    (tmp_path / "b" / "Thumbs.db").touch()
    listing = read_own(tmp_path)
    assert sum(listing.counts.values()) == 8
    assert listing.left_out == ("a/x.cr2", "a/x.heic")
    assert listing.notes[-2:] == (
        "Left out, as they cannot be read: 2 of 10 images, a/x.cr2 (camera raw), a/x.heic (HEIC).",
        "Files that are not images are ignored: 1 (b/labels.txt).",
    )


def test_a_class_of_other_formats_does_not_vanish(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 4, "b": 4, "c": 0})
    for i in range(3):
        (tmp_path / "c" / f"{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(DataError, match=r"none of the 3 images of the class c can be read \(HEIC\)"):
        read_own(tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera raw"),
        (bytes(128) + b"DICM\2\0\0\0UL", "DICOM"),
        (b"\x76\x2f\x31\x01\2\0\0\0", "OpenEXR"),
    ],
)
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_class_of_videos_or_of_unread_formats_does_not_vanish(
    tmp_path: Path, content: bytes, kind: str, split: str
) -> None:
    touch(tmp_path, {f"{split}a": 4, f"{split}b": 4, f"{split}c": 0})
    for i in range(2):
        (tmp_path / split / "c" / str(i)).write_bytes(content)
    with pytest.raises(DataError, match=rf"none of the 2 images of the class c can be read \({kind}\)"):
        read_own(tmp_path)


def test_the_only_image_of_a_class_that_cannot_be_read(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 4, "b": 4, "c": 1})
    with pytest.raises(DataError, match=r"the only image of the class c cannot be read \(empty file\)"):
        read_own(tmp_path, unreadable={"c/0.jpg": "empty file"})


@pytest.mark.parametrize("place", ["train", "train/a", "train/a/live", "."])
def test_videos_next_to_images_are_no_images(tmp_path: Path, place: str) -> None:
    """As a telephone saves live photos."""
    touch(tmp_path / "train", {"a": 4, "b": 4})
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "0.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\2\0qt  ")
    listing = read_own(tmp_path)
    assert (listing.left_out, listing.class_names) == ((), ("a", "b"))
    assert listing.notes[-1].startswith("Files that are not images are ignored: 1 (")


def test_tga_is_read(tmp_path: Path) -> None:
    for name, mode in (("a", "RGB"), ("b", "P")):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new(mode, (9, 7), 3).save(tmp_path / name / f"{i}.tga")
    listing = read_own(tmp_path)
    assert sum(listing.counts.values()) == 6
    for split in listing.splits.values():
        assert all(problem_of(tmp_path / path) == ("", 0) for path, _ in split)


def test_unreadable_files_outside_the_classes_are_not_counted(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        touch(tmp_path / name, {"a": 4, "b": 4})
    (tmp_path / "camera" / "new").mkdir(parents=True)
    for place in ("camera/new", "."):
        (tmp_path / place / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    listing = read_own(tmp_path)
    assert listing.left_out == ()
    assert listing.notes == (
        "Only train, val and test are read, not camera.",
        "Images outside the class folders have no class and are ignored: x.heic.",
    )


@pytest.mark.parametrize(
    "name", ["@eaDir", ".thumbnails", "lost+found", "$RECYCLE.BIN", "__MACOSX", ".ipynb_checkpoints", "#recycle"]
)
def test_folders_of_other_programs_are_no_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, {"a": 4, "b": 4, name: 4, f"a/{name}": 4, f"b/deep/{name}/x": 4})
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    assert sum(listing.counts.values()) == 8
    assert not any("without images" in note for note in listing.notes)


def test_a_run_of_version_0_5_reads_the_folder_as_that_version_did(tmp_path: Path) -> None:
    touch(tmp_path / "one", {"Training/a": 4, "Training/b": 4, "Testing/a": 4, "@eaDir": 4})
    write_image(tmp_path / "one" / "Training" / "a" / "x.jfif")
    listing = read_own(tmp_path / "one", as_0_5=True)
    assert listing.class_names == ("@eaDir", "Testing", "Training")
    assert sum(listing.counts.values()) == 16


# ---------------------------------------------------------------- VTAB's lists under another name


def test_a_folder_with_lists_is_read_by_them(tmp_path: Path) -> None:
    home = make_vtab(tmp_path, "cifar", classes=7, folder="my images")
    listing = read_own(home)
    assert listing.kind == "own"
    assert listing.counts == {"train": 8, "val": 2, "test": 5}
    assert listing.class_names == tuple("0123456")
    (home / "test.txt").write_text("images/test/000000.jpg 11\n")
    assert read_own(home).classes == 12  # the largest label is in test


@pytest.mark.parametrize("label", ["0", "-1", "999999999"])
def test_lists_with_invalid_labels(tmp_path: Path, label: str) -> None:
    home = make_vtab(tmp_path, "cifar", classes=1)
    (home / "test.txt").write_text(f"images/test/000000.jpg {label}\n")
    with pytest.raises(DataError, match="they must count at least 2 and at most 100,000 classes from 0"):
        read_own(home)


# ---------------------------------------------------------------- invalid folders


def test_missing_folder_empty_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no class folder with images"):
        read_own(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose.jpg").touch()
    with pytest.raises(DataError, match=r"has no class folder with images \(jpg, jpeg, png"):
        read_own(tmp_path)
    for path in (tmp_path / "nowhere", tmp_path / "loose.jpg"):
        with pytest.raises(DataError, match="is not a folder: give one"):
            read_own(path)


def test_too_few_classes_or_images(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 5})
    with pytest.raises(DataError, match="only the class folder 'a' with images"):
        read_own(tmp_path)
    touch(tmp_path, {"b": 1, "c": 1, "d": 9})
    with pytest.raises(DataError, match=r"classes with a single image \(b, c\): each class needs at least 2"):
        read_own(tmp_path)


def test_folder_without_images_is_ignored_with_a_note(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 2, "b": 2, "__MACOSX": 0, "empty": 0})
    (tmp_path / "__MACOSX" / "._0.jpg").touch()
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    assert "Folders without images are ignored: empty." in listing.notes
    assert "Hidden folders and folders of other programs are ignored: __MACOSX." in listing.notes


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """A disk may hold names that are not UTF-8: the images count, and the name of the class is escaped."""
    folder = tmp_path / "gr\udcfcn"
    try:
        touch(tmp_path, {"gr\udcfcn": 3, "b": 3})
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    listing = read_own(tmp_path)
    assert listing.class_names == ("b", "gr\\udcfcn")
    assert len(listing.fingerprint) == 12
    assert all((tmp_path / path).is_file() for path in paths(listing, "train"))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("link", "target"), [("loop", "."), ("up", ".."), ("train/loop", ".."), ("train/a/loop", "..")]
)
def test_a_link_to_a_folder_that_holds_it_is_no_class(tmp_path: Path, link: str, target: str) -> None:
    folder = tmp_path / "pets"
    for split, names in (("train", "ab"), ("test", "ab")) if "/" in link else (("", "ab"),):
        touch(folder / split, dict.fromkeys(names, 5))
    before = read_own(folder)
    (folder / link).symlink_to(target, target_is_directory=True)
    listing = read_own(folder)
    assert (listing.splits, listing.class_names) == (before.splits, ("a", "b"))
    assert link in "".join(listing.notes)


@pytest.mark.parametrize("link", ["c", "train/c"])
@pytest.mark.parametrize("in_a_circle", [True, False])
def test_a_link_that_cannot_be_followed_is_named_in_the_notes(
    ordinary_user: Path, link: str, in_a_circle: bool
) -> None:
    folder, private = ordinary_user / "pets", ordinary_user / "private"
    for split in ("train", "test") if "/" in link else ("",):
        touch(folder / split, {"a": 5, "b": 5})
    private.mkdir(mode=0)
    (folder / link).symlink_to(folder / link if in_a_circle else private / "c")
    listing = read_own(folder)
    assert listing.class_names == ("a", "b")
    assert f"Files that are not images are ignored: 1 ({link})." in listing.notes
    (folder / link).unlink()


def test_hidden_folders_are_named_in_the_notes(tmp_path: Path) -> None:
    listing = read_own(touch(tmp_path, {"c": 5, "java": 5, ".net": 5}))
    assert listing.class_names == ("c", "java")
    assert "Hidden folders and folders of other programs are ignored: .net." in listing.notes


def test_a_text_named_like_the_test_list_does_not_hide_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "test.txt").write_text("what I want to test\n")
    listing = read_own(tmp_path)
    assert listing.class_names == ("a", "b")
    assert "Files that are not images are ignored: 1 (test.txt)." in listing.notes


def test_one_equal_class_is_enough_to_doubt_a_folder_next_to_train(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"cat": 5, "dogs": 5})
    touch(tmp_path / "Prüfung", {"cat": 5, "dog": 5})
    with pytest.raises(DataError, match=r"Prüfung and train hold folders of the same names \(cat\)"):
        read_own(tmp_path)


def test_a_class_with_a_single_readable_image_is_refused_as_such(tmp_path: Path) -> None:
    touch(tmp_path, {"a": 5, "b": 2})
    with pytest.raises(DataError, match=r"classes with a single image that can be read \(b\)"):
        read_own(tmp_path, unreadable={"b/0.jpg": "empty file"})


def test_lists_of_images_that_are_not_there_say_why(tmp_path: Path) -> None:
    folder = make_vtab(tmp_path, "dtd", classes=2)
    test = {line.rpartition(" ")[0] for line in (folder / "test.txt").read_text().splitlines()}
    with pytest.raises(
        DataError, match=r"\(No such file or directory\): restore them, or correct the paths in the list"
    ):
        read_own(folder, unreadable=dict.fromkeys(test, "No such file or directory"))


def test_names_are_shown_without_control_characters(tmp_path: Path) -> None:
    listing = read_own(touch(tmp_path, {"a\x1b[31m": 5, "b\nc": 5, "क्\u200dष": 5}))
    assert listing.class_names == ("a\\x1b[31m", "b\\nc", "क्\u200dष")


def test_a_split_without_a_readable_image_is_not_sampled_from_train(tmp_path: Path) -> None:
    touch(tmp_path / "train", {"a": 5, "b": 5})
    touch(tmp_path / "test", {"a": 2})
    with pytest.raises(DataError, match=r"none of the 2 images of test can be read \(empty file\)"):
        read_own(tmp_path, unreadable=dict.fromkeys(("test/a/0.jpg", "test/a/1.jpg"), "empty file"))


@pytest.mark.parametrize(("link", "target"), [("c", "a"), ("test", "train"), ("test/b", "train/b")])
def test_a_link_that_lists_the_same_files_again_is_refused(tmp_path: Path, link: str, target: str) -> None:
    touch(tmp_path / "train" if "t" in link else tmp_path, {"a": 5, "b": 5})
    if "/" in link:
        touch(tmp_path / "test", {"a": 5})
    (tmp_path / link).symlink_to(tmp_path / target, target_is_directory=True)
    with pytest.raises(DataError, match=f"{link} and {target} are the same folder, by a link"):
        read_own(tmp_path)


def test_links_to_images_that_are_not_listed_otherwise_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "all", {"a": 5, "b": 5, "c": 5, "d": 5})
    for split, names in (("train", "ab"), ("test", "cd")):
        (tmp_path / split).mkdir()
        for name, target in zip("ab", names, strict=True):
            (tmp_path / split / name).symlink_to(f"../all/{target}", target_is_directory=True)
    listing = read_own(tmp_path)
    assert (listing.counts["test"], listing.class_names) == (10, ("a", "b"))


def test_two_links_to_one_folder_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", {"x": 5})
    touch(tmp_path / "own", {"a": 5})
    for name in "bc":
        (tmp_path / "own" / name).symlink_to(tmp_path / "elsewhere" / "x", target_is_directory=True)
    with pytest.raises(DataError, match="c and b are the same folder, by a link"):
        read_own(tmp_path / "own")
