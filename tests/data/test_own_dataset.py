"""Own datasets: read a source, plan without writing, write whole or not at all; duplicates, splits, names, links."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import make_own, make_vtab, truncate, write_image

from mlae_lab.data import own_dataset, tasks
from mlae_lab.data.bundled import DataError
from mlae_lab.data.duplicates import ImageFacts, examine, near_duplicates
from mlae_lab.data.folder_files import DATASET_FILE
from mlae_lab.data.listing import SPLITS
from mlae_lab.data.own_dataset import Changes, DatasetPlan, Origin, plan, write
from mlae_lab.data.own_source import ImageSource, read_source

ORIGIN = Origin("folder", "there")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def photo(path: Path, seed: int, size: int = 96, quality: int = 95) -> Path:
    """A smooth random image: of other sizes and qualities it is still nearly alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(path, "JPEG", quality=quality)
    return path


def planned(source: ImageSource, changes: Changes | None = None) -> DatasetPlan:
    return plan(source, examine(source.folder, [image.path for image in source.images]), changes)


def test_class_folders_become_a_dataset_that_the_lab_reads(data: Path, tmp_path: Path) -> None:
    source = read_source(make_own(tmp_path / "mine", {"owl": 20, "wren": 10, "crow": 10}))
    result = planned(source, Changes(rename={"crow": "raven"}, leave_out=("wren",), ratio=(50, 25, 25), seed=3))
    assert not data.exists(), "a plan writes nothing"
    assert result.classes == ["owl", "raven"]
    assert {split: sum(n) for split, n in result.counts.items()} == {"train": 14, "val": 8, "test": 8}
    assert result.left_out == {"class wren": tuple(sorted(i.path for i in source.images if "wren" in i.path))}
    assert result.imbalance == 2
    task = write(result, "My birds", ORIGIN, owner="me")
    assert task.name == "own:My birds"
    assert [t.name for t in tasks.own_tasks()] == [task.name]
    listing = tasks.listed(task, data / "own" / "My birds")
    assert listing.class_names == ("owl", "raven")
    assert listing.notes == (), "its file is no image of somebody else"
    assert {split: len(items) for split, items in listing.splits.items()} == {
        split: sum(n) for split, n in result.counts.items()
    }
    record = json.loads((data / "own" / "My birds" / DATASET_FILE).read_text())
    assert record["changes"] == {
        "rename": {"crow": "raven"}, "leave_out": ["wren"], "ratio": [50, 25, 25], "seed": 3, "duplicates": "exact",
    }  # fmt: skip
    assert record["left_out"]["class wren"]["files"] == 10
    assert not any((data / ".own").iterdir())


def test_a_split_by_ratio_has_exact_sizes_and_every_class_alike(tmp_path: Path) -> None:
    source = read_source(make_own(tmp_path, {"a": 40, "b": 10, "c": 3}))
    first, again, other = (planned(source, Changes(ratio=(70, 20, 10), seed=s)) for s in (0, 0, 1))
    assert {split: sum(n) for split, n in first.counts.items()} == {"train": 37, "val": 11, "test": 5}
    assert first.counts["train"][0] in range(27, 30)
    assert min(first.counts["train"]) > 0
    assert first.images == again.images
    assert first.images != other.images


def test_splits_given_by_folders_stay_and_a_missing_one_comes_from_train(tmp_path: Path) -> None:
    for split, count in (("Training", 10), ("test", 3)):
        make_own(tmp_path / split, {"a": count, "b": count})
    source = read_source(tmp_path)
    assert source.has_splits
    result = planned(source, Changes(ratio=None, duplicates="keep"))
    assert {split: sum(n) for split, n in result.counts.items()} == {"train": 16, "val": 4, "test": 6}
    assert all(image.split == "test" for image in result.images if image.path.startswith("test/"))
    assert any("from train: val" in note for note in result.notes)


def test_vtab_lists_are_read_by_their_lists(tmp_path: Path) -> None:
    source = read_source(make_vtab(tmp_path, "svhn", classes=2))
    assert source.has_splits
    assert Counter(image.split for image in source.images) == {"train": 8, "val": 2, "test": 5}


# ---------------------------------------------------------------- sources


def test_an_enclosing_folder_is_opened_and_junk_is_counted(tmp_path: Path) -> None:
    home = make_own(tmp_path / "in" / "photos", {"owl": 4, "wren": 4})
    for junk in ("__MACOSX/photos/owl/._image 0.jpg", "photos/owl/Thumbs.db", "photos/.DS_Store"):
        (tmp_path / "in" / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / junk).write_bytes(b"x")
    (home / "notes.txt").write_text("hello")
    (home / "owl" / "raw.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    source = read_source(tmp_path / "in")
    assert source.folder == home
    assert source.notes[0] == "The folder photos encloses everything and was opened."
    assert len(source.images) == 8
    left_out = {reason: len(paths) for reason, paths in source.left_out.items()}
    assert left_out == {
        "hidden files and files of other programs": 3,
        "not an image": 1,
        "cannot be read: HEIC": 1,
    }


def test_unreadable_images_are_left_out_with_their_reason(tmp_path: Path) -> None:
    source = read_source(make_own(tmp_path, {"a": 6, "b": 6}, broken="a/image 0.jpg"))
    (reason,) = (r for r in planned(source).left_out if r.startswith("cannot be read"))
    assert planned(source).left_out[reason] == ("a/image 0.jpg",)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_gives_labels_and_splits(tmp_path: Path, separator: str) -> None:
    for i in range(12):
        write_image(tmp_path / "pool" / f"{i:02}.jpg", i)
    rows = [("Image_ID", "species", "set")]
    rows += [(f"{i:02}", "owl" if i % 2 else "wren", ("train", "valid", "test")[i // 4]) for i in range(11)]
    rows.append(("gone.jpg", "owl", "test"))
    source = read_source(tmp_path, "\ufeff".encode() + "\r\n".join(separator.join(row) for row in rows).encode())
    assert Counter((image.label, image.split) for image in source.images) == {
        ("wren", "train"): 2, ("owl", "train"): 2, ("wren", "val"): 2, ("owl", "val"): 2, ("wren", "test"): 2,
        ("owl", "test"): 1,
    }  # fmt: skip
    assert source.left_out == {"in the CSV but not among the files": ("gone.jpg",), "not in the CSV": ("pool/11.jpg",)}


def test_a_csv_without_a_header_has_file_and_label(tmp_path: Path) -> None:
    make_own(tmp_path, {"x": 4})
    source = read_source(tmp_path, b"x/image 0.jpg,a\nimage 1.PNG,b\nx/image 2.jpeg,a\nimage 3.jpg,b\n")
    assert [image.label for image in source.images] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\0", "not UTF-8"),
        (b"a,b\n1,2\n", "has the columns a, b: name them file,label"),
        (b"file,label\n../etc/passwd,a\n", "not a path below"),
        (b"file,label\nother.jpg,a\n", "none of them is among the images"),
        (b"file,label\nimage 0.jpg,a\nx/image 0.jpg,b\n", "twice, in line 2 as a and in line 3 as b"),
        (b"file,label,split\nimage 0.jpg,a,holdout\n", "has the split 'holdout'"),
        (b"file,label\nimage 0.jpg,\n", "it needs a file and a label"),
    ],
)
def test_a_wrong_csv_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    make_own(tmp_path, {"x": 4})
    with pytest.raises(DataError, match=message):
        read_source(tmp_path, content)


def test_links_that_leave_the_root_are_left_out(tmp_path: Path) -> None:
    root = make_own(tmp_path / "root", {"a": 4, "b": 4})
    secret = make_own(tmp_path / "secret", {"c": 3})
    (root / "a" / "link.jpg").symlink_to(secret / "c" / "image 0.jpg")
    (root / "c").symlink_to(secret / "c")
    (secret / "c" / "notes.txt").write_text("secret")
    source = read_source(root, root=root)
    assert len(source.images) == 8
    assert source.left_out == {"a link that leaves the folder": ("a/link.jpg", "c")}, "no name behind a link"
    assert len(read_source(root).images) == 12, "a user's own links on the command line are followed"


# ---------------------------------------------------------------- duplicates


def test_copies_are_drawn_into_one_split(tmp_path: Path) -> None:
    for i in range(12):
        photo(tmp_path / "ab"[i % 2] / f"{i}.jpg", i)
        shutil.copyfile(tmp_path / "ab"[i % 2] / f"{i}.jpg", tmp_path / "ab"[i % 2] / f"copy of {i}.jpg")
    result = planned(read_source(tmp_path), Changes(duplicates="keep"))
    assert len(result.same) == 12
    assert len(result.same_across) <= 4, "only at the borders of a split"
    without = planned(read_source(tmp_path), Changes(duplicates="exact"))
    assert without.same == result.same
    split_of: dict[str, set[str]] = {}
    for image in without.images:
        split_of.setdefault(Path(image.path).name.removeprefix("copy of "), set()).add(image.split)
    assert all(len(splits) == 1 for splits in split_of.values())


def test_duplicates_across_given_splits_are_left_out_of_val_and_test(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        for i in range(6):
            photo(tmp_path / split / "ab"[i % 2] / f"{i}.jpg", first + i)
    photo(tmp_path / "val" / "a" / "same.jpg", 0)
    photo(tmp_path / "test" / "b" / "other class.jpg", 20)
    photo(tmp_path / "test" / "b" / "smaller.jpg", 3, size=80, quality=60)
    source = read_source(tmp_path)
    keep, exact, near = (planned(source, Changes(ratio=None, duplicates=word)) for word in ("keep", "exact", "near"))
    assert len(keep.images) == 21
    assert {frozenset(image.path for image in group) for group in keep.same_across} == {
        frozenset({"train/a/0.jpg", "val/a/same.jpg"}), frozenset({"test/b/other class.jpg", "val/a/0.jpg"}),
    }  # fmt: skip
    assert len(keep.conflicts) == 1
    reason = "the content of an image of an earlier split"
    assert exact.left_out == {reason: ("test/b/other class.jpg", "val/a/same.jpg")}
    assert near.left_out == exact.left_out | {"nearly alike to an image of an earlier split": ("test/b/smaller.jpg",)}
    ((a, b, bits),) = keep.near.pairs
    assert {keep.compared[a].path, keep.compared[b].path} == {"train/b/3.jpg", "test/b/smaller.jpg"}
    assert bits <= 4
    assert (keep.near.across, keep.near.within) == (1, 0)


def test_near_duplicates_agree_with_a_count_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    base = [int(rng.integers(0, 2**63)) for _ in range(300)]
    looks = [look ^ sum(1 << int(b) for b in rng.choice(64, i % 7, replace=False)) for i, look in enumerate(base)]
    facts = [ImageFacts(i + 1, look) for i, look in enumerate([*base, *looks])] + [ImageFacts(9999, None)]
    splits = [i % 3 for i in range(len(facts))]
    near = near_duplicates(facts, splits)
    expected = {
        (i, j): bin(facts[i].look ^ facts[j].look).count("1")  # type: ignore[operator]
        for i in range(600)
        for j in range(i + 1, 600)
        if bin(facts[i].look ^ facts[j].look).count("1") <= 4  # type: ignore[operator]
    }
    across = {pair for pair in expected if splits[pair[0]] != splits[pair[1]]}
    assert (near.across, near.within) == (len(across), len(expected) - len(across))
    assert all(expected[i, j] == bits for i, j, bits in near.pairs)
    assert near.leaked == {i if splits[i] > splits[j] else j for i, j in across}


# ---------------------------------------------------------------- what cannot be written


@pytest.mark.parametrize(
    ("counts", "changes", "message"),
    [
        ({"a": 6, "b": 6}, Changes(leave_out=("b",)), "at least two classes"),
        ({"a": 6, "b": 1}, Changes(), "b has one: leave it out or merge it"),
        ({"a": 6, "b": 6}, Changes(rename={"a": "x/y"}), "has a slash"),
        ({"a": 6, "b": 6}, Changes(rename={"a": " "}), "needs a name"),
        ({"a": 6, "b": 6}, Changes(rename={"a": ".x"}), "file managers hide"),
        ({"a": 6, "b": 6}, Changes(rename={"a": "B"}), "differ only in case"),
    ],
)
def test_a_plan_says_what_is_wrong_and_is_not_written(
    data: Path, tmp_path: Path, counts: dict[str, int], changes: Changes, message: str
) -> None:
    result = planned(read_source(make_own(tmp_path / "mine", counts)), changes)
    assert any(message in problem for problem in result.problems)
    with pytest.raises(DataError):
        write(result, "x", ORIGIN)
    assert not data.exists()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: planned(s, Changes(leave_out=("dog",))), "'dog' is no class of the images: they have a, b"),
        (lambda s: planned(s, Changes(ratio=None)), "name no splits"),
        (lambda s: Changes(ratio=(50, 50, 0)), "three positive numbers"),
        (lambda s: Changes(duplicates="all"), "choose keep, exact, near"),
        (lambda s: write(planned(s), "../x", ORIGIN), "slash"),
        (lambda s: write(planned(s), ".x", ORIGIN), "hide"),
        (lambda s: write(planned(s), "x" * 81, ORIGIN), "81 characters"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    data: Path, tmp_path: Path, act: Callable[[ImageSource], object], message: str
) -> None:
    source = read_source(make_own(tmp_path / "mine", {"a": 6, "b": 6}))
    with pytest.raises(DataError, match=message):
        act(source)
    assert not data.exists()


def test_a_taken_name_is_refused_and_a_version_gets_the_next(data: Path, tmp_path: Path) -> None:
    result = planned(read_source(make_own(tmp_path / "mine", {"a": 6, "b": 6})))
    write(result, "Birds", ORIGIN)
    with pytest.raises(DataError, match="such as 'Birds v2'"):
        write(result, "birds", ORIGIN)
    assert own_dataset.next_version("Birds") == "Birds v2"
    first = own_dataset.stored(data / "own" / "Birds")
    assert first is not None
    version = planned(read_source(first.folder), Changes(ratio=None, rename={"a": "owl"}))
    write(version, "Birds v2", Origin("dataset", "Birds", parent="Birds"), link=True)
    assert own_dataset.next_version("Birds v2") == "Birds v3"
    old, new = (tasks.listed(task, data / "own" / task.title) for task in tasks.own_tasks())
    assert (old.class_names, new.class_names) == (("a", "b"), ("b", "owl"))
    assert old.counts == new.counts
    second = own_dataset.stored(data / "own" / "Birds v2")
    assert second is not None
    assert second.origin.parent == "Birds"
    own_dataset.delete(first)
    assert [task.title for task in tasks.own_tasks()] == ["Birds v2"]
    assert tasks.census(tasks.own_tasks()[0], tasks.listed(tasks.own_tasks()[0], second.folder), decode=True).state == (
        "ready"
    ), "deleting one dataset keeps the images of the other"


def test_a_write_that_fails_leaves_nothing(data: Path, tmp_path: Path) -> None:
    result = planned(read_source(make_own(tmp_path / "mine", {"a": 6, "b": 6})))
    (tmp_path / "mine" / "b" / "image 5.jpeg").unlink()
    with pytest.raises(OSError, match="image 5"):
        write(result, "x", ORIGIN)
    assert not any((data / "own").iterdir())


def test_equal_file_names_of_one_class_are_kept_apart(data: Path, tmp_path: Path) -> None:
    for part in ("2023", "2024"):
        for i in range(4):
            photo(tmp_path / "mine" / "a" / part / f"{i}.jpg", i + 10 * int(part))
            photo(tmp_path / "mine" / "b" / f"{part} {i}.jpg", 100 + i + 10 * int(part))
    result = planned(read_source(tmp_path / "mine"), Changes(duplicates="keep"))
    write(result, "x", ORIGIN)
    assert len([path for split in SPLITS for path in (data / "own" / "x" / split).rglob("*.jpg")]) == 16


def test_a_damaged_file_of_a_dataset_does_not_break_it(data: Path, tmp_path: Path) -> None:
    write(planned(read_source(make_own(tmp_path / "mine", {"a": 6, "b": 6}))), "x", ORIGIN)
    truncate(data / "own" / "x" / DATASET_FILE)
    assert own_dataset.stored(data / "own" / "x") is None
    assert [task.title for task in tasks.own_tasks()] == ["x"]
