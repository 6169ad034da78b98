"""FGVC with VPT's splits: resolved keys, labels of class ids, and invalid files."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from trees import make_fgvc, write_image

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group
from mlae_lab.data.bundled import DataError
from mlae_lab.data.fgvc import find_fgvc, read_fgvc
from mlae_lab.data.listing import UNKNOWN_LABEL

CUB, CARS = catalog.task("cub"), catalog.task("stanford_cars")
FGVC_TASKS = [task for task in catalog.TASKS if task.group is Group.FGVC]


def write_json(home: Path, **splits: object) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for split, content in splits.items():
        (home / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("task", FGVC_TASKS, ids=lambda task: task.name)
def test_reads_each_dataset_with_its_own_image_root(tmp_path: Path, task: catalog.Task) -> None:
    home = make_fgvc(tmp_path, task.name)
    assert find_fgvc(tmp_path, task) == home
    listing = read_fgvc(home, task)
    assert listing.kind == "fgvc"
    assert listing.problems == ()
    assert listing.counts == {"train": 8, "val": 2, "test": 5}
    assert all((home / path).is_file() for items in listing.splits.values() for path, _ in items)
    assert [label for _, label in listing.splits["train"]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert listing.classes == 4


@pytest.mark.parametrize("name", ["CUB_200_2011", "cub_200_2011", "CUB-200-2011", "cub"])
@pytest.mark.parametrize("above", ["", "fgvc", "FGVC"])
def test_finds_a_dataset_by_its_folder_names(tmp_path: Path, name: str, above: str) -> None:
    home = make_fgvc(tmp_path / above, "cub", 1, 1, 1, folder=name)
    assert find_fgvc(tmp_path, CUB) == home
    assert find_fgvc(home, CUB) == home
    assert find_fgvc(tmp_path, CARS) is None
    assert find_fgvc(tmp_path / "nowhere", CUB) is None
    (home / "train.json").unlink()
    assert find_fgvc(tmp_path, CUB) is None


# ---------------------------------------------------------------- labels


def test_ids_of_train_define_the_labels(tmp_path: Path) -> None:
    """val and test lack classes: mapped separately they would count from 0 again."""
    home = tmp_path / "cars"
    for i in range(6):
        write_image(home / f"{i}.jpg", i)
    write_json(home, train={"0.jpg": 40, "1.jpg": 7, "2.jpg": 9}, val={"3.jpg": 40}, test={"4.jpg": 9, "5.jpg": 40})
    listing = read_fgvc(home, CARS)
    assert [label for _, label in listing.splits["train"]] == [2, 0, 1]
    assert listing.splits["val"] == (("3.jpg", 2),)
    assert listing.splits["test"] == (("4.jpg", 1), ("5.jpg", 2))
    assert listing.class_names == ("7", "9", "40")


def test_unknown_class_id_is_a_problem(tmp_path: Path) -> None:
    home = tmp_path / "cars"
    for i in range(4):
        write_image(home / f"{i}.jpg", i)
    write_json(home, train={"0.jpg": 1, "1.jpg": 2}, val={"2.jpg": 2}, test={"3.jpg": 3})
    listing = read_fgvc(home, CARS)
    assert listing.classes == 2
    assert listing.splits["test"] == (("3.jpg", UNKNOWN_LABEL),)
    (problem,) = listing.problems
    assert problem == "test.json has class ids that train.json lacks (3), which leaves 1 image without a label: 3.jpg."


def test_ids_may_be_digits_in_quotes(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub")
    whole = read_fgvc(home, CUB).splits
    for split in ("train", "val", "test"):
        path = home / f"{split}.json"
        ids = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({key: f"{value:03d}" for key, value in ids.items()}), encoding="utf-8")
    assert read_fgvc(home, CUB).splits == whole


@pytest.mark.parametrize("value", ["x", "", "-1", 1.0, 1.5, None, True, [1], {}, {"a": 1}])
def test_class_id_that_is_not_an_integer(tmp_path: Path, value: object) -> None:
    home = make_fgvc(tmp_path, "cub")
    write_json(home, val={"000.Grünspecht/val 0.jpg": value})
    with pytest.raises(DataError, match=r"val.json: the class id of '000.Grünspecht/val 0.jpg' is .* a whole number"):
        read_fgvc(home, CUB)


def test_classes_are_named_after_their_folders(tmp_path: Path) -> None:
    assert read_fgvc(make_fgvc(tmp_path, "cub"), CUB).class_names[1] == "001.Grünspecht"
    mixed = make_fgvc(tmp_path, "cub", folder="mixed")
    write_json(mixed, train={"000.Grünspecht/train 0.jpg": 5, "000.Grünspecht/train 4.jpg": 6})
    assert read_fgvc(mixed, CUB).class_names == ("5", "6")


# ---------------------------------------------------------------- resolving keys


@pytest.mark.parametrize(
    ("prefix", "stored"),
    [
        ("", "images/a/{}.jpg"),
        ("images/", "images/a/{}.jpg"),  # the key as given
        ("CUB_200_2011/", "images/a/{}.jpg"),
        ("CUB_200_2011/images/", "images/a/{}.jpg"),
        ("", "a/{}.jpg"),
        ("", "Images/a/{}.jpg"),
    ],
)
def test_keys_relative_to_other_folders(tmp_path: Path, prefix: str, stored: str) -> None:
    for i in range(3):
        write_image(tmp_path / stored.format(i), i)
    write_json(tmp_path, **{split: {f"{prefix}a/{i}.jpg": 0} for i, split in enumerate(("train", "val", "test"))})
    listing = read_fgvc(tmp_path, CUB)
    assert [listing.splits[split][0][0] for split in ("train", "val", "test")] == [stored.format(i) for i in range(3)]


def test_cars_with_their_folder_in_front(tmp_path: Path) -> None:
    write_image(tmp_path / "cars_train" / "00001.jpg", 1)
    write_image(tmp_path / "cars_test" / "00001.jpg", 2)
    train, test = ({f"stanford_cars/cars_{split}/00001.jpg": 0} for split in ("train", "test"))
    write_json(tmp_path, train=train, val=train, test=test)
    splits = read_fgvc(tmp_path, CARS).splits
    assert splits["train"][0][0] == "cars_train/00001.jpg"
    assert splits["test"][0][0] == "cars_test/00001.jpg"


def test_first_existing_image_decides_for_its_split(tmp_path: Path) -> None:
    """A missing first image does no harm, and a stray one elsewhere does not count for the others."""
    home = make_fgvc(tmp_path, "cub")
    (home / "images" / "000.Grünspecht" / "train 0.jpg").unlink()
    write_image(home / "003.Grünspecht" / "train 3.jpg")
    paths = [path for path, _ in read_fgvc(home, CUB).splits["train"]]
    assert paths[0] == "images/000.Grünspecht/train 0.jpg"
    assert paths[3] == "images/003.Grünspecht/train 3.jpg"


def test_a_split_without_any_image_fails_and_says_where_it_looked(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub")
    write_json(home, test={"x/1.jpg": 1, "x/2.jpg": 1})
    with pytest.raises(DataError) as error:
        read_fgvc(home, CUB)
    assert "test.json lists 2 images and none exists" in str(error.value)
    assert str(home / "x/1.jpg") in str(error.value)
    assert str(home / "images/x/1.jpg") in str(error.value)


def test_keys_in_another_unicode_form(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub")
    whole = read_fgvc(home, CUB).splits
    for split in ("train", "val", "test"):
        ids = json.loads((home / f"{split}.json").read_text(encoding="utf-8"))
        write_json(home, **{split: {unicodedata.normalize("NFD", key): value for key, value in ids.items()}})
    assert read_fgvc(home, CUB).splits == whole


@pytest.mark.parametrize("key", ["/home/me/a.jpg", "../a.jpg", "C:\\a.jpg", ""])
def test_a_key_that_leaves_the_folder(tmp_path: Path, key: str) -> None:
    home = make_fgvc(tmp_path, "cub")
    write_json(home, val={key: 1})
    with pytest.raises(DataError, match=r"val.json: .* is not a path below"):
        read_fgvc(home, CUB)


# ---------------------------------------------------------------- invalid files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["a.jpg", 1]', "train.json is not an object: it must be one object"),
        (b"7", "is not an object"),
        (b"[]", "is not an object"),
        (b"{}", "is an empty object"),
        (b'{"a.jpg": 1', "is not JSON in UTF-8"),
        (b"", "is not JSON in UTF-8"),
        (b'{"Gr\xfcn.jpg": 1}', "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON in UTF-8"),
    ],
)
def test_file_that_is_not_an_object_of_images(tmp_path: Path, content: bytes, message: str) -> None:
    home = make_fgvc(tmp_path, "cub")
    (home / "train.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_fgvc(home, CUB)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_missing_file(tmp_path: Path, split: str) -> None:
    home = make_fgvc(tmp_path, "cub")
    (home / f"{split}.json").unlink()
    with pytest.raises(DataError, match=f"{split}.json is missing: an FGVC dataset needs train.json, val.json and"):
        read_fgvc(home, CUB)


def test_byte_order_mark_and_repeated_key(tmp_path: Path) -> None:
    home = make_fgvc(tmp_path, "cub")
    text = '{"000.Grünspecht/val 0.jpg": 1, "000.Grünspecht/val 0.jpg": 2}'
    (home / "val.json").write_bytes(text.encode("utf-8-sig"))
    assert [label for _, label in read_fgvc(home, CUB).splits["val"]] == [0, 1]  # both kept: the census reports them
