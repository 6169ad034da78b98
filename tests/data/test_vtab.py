"""VTAB-1k's layout: lists, aliases, and invalid lines."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from trees import make_vtab, write_image

from mlae_lab.core import catalog
from mlae_lab.core.catalog import Group
from mlae_lab.data.bundled import DataError
from mlae_lab.data.listing import Listing, inside, plain, some
from mlae_lab.data.vtab import find_vtab, read_vtab

CIFAR = catalog.task("cifar")
VTAB_TASKS = [t for t in catalog.TASKS if t.group in (Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED)]


def test_reads_paths_and_labels_in_the_lists_order(tmp_path: Path) -> None:
    listing = read_vtab(make_vtab(tmp_path, "cifar", classes=3), CIFAR)
    assert listing.kind == "vtab"
    assert listing.folder == tmp_path / "cifar"
    assert listing.counts == {"train": 8, "val": 2, "test": 5}
    assert listing.splits["val"] == (("images/val200/000000.jpg", 0), ("images/val200/000001.jpg", 1))
    assert [label for _, label in listing.splits["train"]] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert all((listing.folder / path).is_file() for items in listing.splits.values() for path, _ in items)


def test_the_table_fixes_the_classes_whatever_a_split_holds(tmp_path: Path) -> None:
    listing = read_vtab(make_vtab(tmp_path, "cifar", classes=3), CIFAR)
    assert listing.classes == 100
    assert listing.class_names[7] == "7"


def test_the_two_protocols(tmp_path: Path) -> None:
    listing = read_vtab(make_vtab(tmp_path, "cifar"), CIFAR)
    train, val, test = (listing.splits[split] for split in ("train", "val", "test"))
    assert listing.protocol("val") == (train, val)
    assert listing.protocol("test") == (train + val, test)
    with pytest.raises(DataError, match="'both' is not a protocol: val trains"):
        listing.protocol("both")


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_depends_on_labels_and_files_and_not_on_the_folder(tmp_path: Path) -> None:
    home = make_vtab(tmp_path, "cifar")
    first = read_vtab(home, CIFAR).fingerprint
    assert len(first) == 12
    assert int(first, 16) >= 0
    moved = home.rename(tmp_path / "elsewhere")
    assert read_vtab(moved, CIFAR).fingerprint == first
    fingerprints = {first}
    image = moved / "images/test/000002.jpg"
    os.utime(image, ns=(0, 1))
    fingerprints.add(read_vtab(moved, CIFAR).fingerprint)
    image.unlink()
    fingerprints.add(read_vtab(moved, CIFAR).fingerprint)
    text = (moved / "test.txt").read_text()
    (moved / "test.txt").write_text(text.replace("000001.jpg 1", "000001.jpg 2"))
    fingerprints.add(read_vtab(moved, CIFAR).fingerprint)
    assert len(fingerprints) == 4


# ---------------------------------------------------------------- finding


@pytest.mark.parametrize("name", ["cifar", "cifar100", "CIFAR-100", "Cifar_100"])
@pytest.mark.parametrize("above", ["", "vtab-1k", "VTAB_1k"])
def test_finds_a_task_by_name_or_alias_also_below_vtab_1k(tmp_path: Path, name: str, above: str) -> None:
    home = make_vtab(tmp_path / above, "cifar", 1, 1, 1, folder=name)
    assert find_vtab(tmp_path, CIFAR) == home
    assert find_vtab(home, CIFAR) == home  # the root is the task's folder
    assert find_vtab(tmp_path, catalog.task("dtd")) is None
    assert find_vtab(home, catalog.task("dtd")) is None


def test_folder_of_the_right_name_without_lists_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "cifar" / "images").mkdir(parents=True)
    (tmp_path / "cifar100").write_text("a file")
    assert find_vtab(tmp_path, CIFAR) is None
    home = make_vtab(tmp_path / "vtab-1k", "cifar", 1, 1, 1)
    assert find_vtab(tmp_path, CIFAR) == home


def test_the_catalogs_name_comes_before_an_alias(tmp_path: Path) -> None:
    make_vtab(tmp_path, "cifar", 1, 1, 1, folder="cifar100")
    home = make_vtab(tmp_path, "cifar", 1, 1, 1)
    assert find_vtab(tmp_path, CIFAR) == home


def test_missing_root_and_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_vtab(tmp_path / "nowhere", CIFAR) is None
    home = make_vtab(tmp_path, "cifar", 1, 1, 1)
    monkeypatch.chdir(home)
    assert find_vtab(Path("."), CIFAR) == home


def test_folder_names_of_tasks_are_unique() -> None:
    names = [plain(name) for task in catalog.TASKS for name in {plain(n) for n in (task.name, *task.aliases)}]
    assert len(names) == len(set(names))


def test_every_task_of_vtab_is_found_by_its_name(tmp_path: Path) -> None:
    assert len(VTAB_TASKS) == 19
    for task in VTAB_TASKS:
        (tmp_path / task.name).mkdir()
        (tmp_path / task.name / "train800.txt").write_text("")
    assert [find_vtab(tmp_path, task) for task in VTAB_TASKS] == [tmp_path / task.name for task in VTAB_TASKS]


# ---------------------------------------------------------------- variants of lists


def rewrite(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.write_bytes(text.encode(encoding))


def test_crlf_a_byte_order_mark_and_blank_lines_at_the_end(tmp_path: Path) -> None:
    home = make_vtab(tmp_path, "cifar")
    expected = read_vtab(home, CIFAR).splits
    for name in ("train800.txt", "val200.txt", "test.txt"):
        text = (home / name).read_text().replace("\n", "\r\n")
        rewrite(home / name, text + "\r\n \r\n\n", "utf-8-sig")
    assert read_vtab(home, CIFAR).splits == expected
    rewrite(home / "val200.txt", "images/val200/000000.jpg 0\nimages//val200/./000001.jpg 1")  # no newline at the end
    assert read_vtab(home, CIFAR).splits == expected


@pytest.mark.parametrize("name", ["two words.jpg", "Grün 7 süß.jpg", "a.b c .jpg", "line\u2028inside.jpg", "日本.jpg"])
def test_paths_with_spaces_and_umlauts(tmp_path: Path, name: str) -> None:
    home = make_vtab(tmp_path, "cifar")
    write_image(home / "images" / "val200" / name)
    rewrite(home / "val200.txt", f"images/val200/{name} 42\n")
    assert read_vtab(home, CIFAR).splits["val"] == ((f"images/val200/{name}", 42),)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_found_as_the_disk_spells_it(
    tmp_path: Path, listed: str, stored: str
) -> None:
    home = make_vtab(tmp_path, "cifar")
    name = "images/Bücher/Grün.jpg"
    write_image(home / unicodedata.normalize(stored, name))
    rewrite(home / "val200.txt", unicodedata.normalize(listed, name) + " 1\n")
    ((path, label),) = read_vtab(home, CIFAR).splits["val"]
    assert (home / path).is_file()
    assert label == 1


def test_without_train800_the_first_800_of_the_joint_list_are_train(tmp_path: Path) -> None:
    home = make_vtab(tmp_path, "cifar")
    lines = [f"images/train800val200/{i:06d}.jpg {i % 100}\n" for i in range(1000)]
    rewrite(home / "train800val200.txt", "".join(lines))
    assert read_vtab(home, CIFAR).counts == {"train": 8, "val": 2, "test": 5}  # the joint list is a second copy
    (home / "train800.txt").unlink()
    listing = read_vtab(home, CIFAR)
    assert listing.counts == {"train": 800, "val": 200, "test": 5}
    assert listing.splits["val"][0] == ("images/train800val200/000800.jpg", 0)
    assert listing.lists["val"] == ("train800val200.txt", 801)
    assert "first 800 lines" in listing.notes[0]
    rewrite(home / "train800val200.txt", "".join(lines[:800]))
    with pytest.raises(DataError, match="lists 800 images: it needs more than 800"):
        read_vtab(home, CIFAR)


@pytest.mark.parametrize("name", ["train800.txt", "val200.txt", "test.txt"])
def test_a_missing_list_is_named(tmp_path: Path, name: str) -> None:
    home = make_vtab(tmp_path, "cifar")
    (home / name).unlink()
    with pytest.raises(DataError, match=f"cifar has no {name}: a VTAB-1k task needs"):
        read_vtab(home, CIFAR)


@pytest.mark.parametrize(
    "line",
    [
        "images/a.jpg",
        "images/a.jpg ",
        "images/a.jpg x",
        "images/a.jpg 1.5",
        "images/a.jpg\t3",
        "7",
        "",
        "images/a.jpg ٣",
        "images/a.jpg 1_0",
        "images/a.jpg 99999999999999999999",
    ],
)
def test_line_that_is_not_a_path_and_a_label(tmp_path: Path, line: str) -> None:
    home = make_vtab(tmp_path, "cifar")
    rewrite(home / "val200.txt", f"images/val200/000000.jpg 0\n{line}\nimages/val200/000001.jpg 1\n")
    with pytest.raises(DataError, match=r"val200.txt, line 2 is '.*': a line must be a path, one space and a whole"):
        read_vtab(home, CIFAR)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/a.jpg",
        "../a.jpg",
        "images/../../a.jpg",
        "C:\\a.jpg",
        "D:/a.jpg",
        "\\\\server\\a.jpg",
        "a\\..\\b",
        "images/..",
        ".",
        "a\0b.jpg",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    home = make_vtab(tmp_path, "cifar")
    rewrite(home / "test.txt", f"{path} 0\n")
    with pytest.raises(DataError, match=r"test.txt, line 1: .* is not a path below the list's folder"):
        read_vtab(home, CIFAR)


def test_dots_in_a_name_are_allowed() -> None:
    assert inside("a..b/c...jpg", "here") == "a..b/c...jpg"
    assert inside("c:d.jpg", "here") == "c:d.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no images"),
        (b"\xef\xbb\xbf\r\n\r\n", "lists no images"),
        (b"images/Gr\xfcn.jpg 1\n", "is not UTF-8 text from byte 9 on: save it as UTF-8"),
        ("images/a.jpg 1\n".encode("utf-16"), "is not UTF-8 text from byte 0 on"),
    ],
)
def test_a_list_without_lines_or_in_another_encoding(tmp_path: Path, content: bytes, message: str) -> None:
    home = make_vtab(tmp_path, "cifar")
    (home / "test.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vtab(home, CIFAR)


def test_long_lists_of_names_are_shortened() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([str(i) for i in range(1205)]) == "0, 1, 2, 3, 4 and 1,200 more"
    assert some(["\udcff.jpg"]) == "\\udcff.jpg"  # a name with bytes that are not UTF-8


def test_a_listing_is_plain_data(tmp_path: Path) -> None:
    first, second = (read_vtab(make_vtab(tmp_path, "cifar"), CIFAR) for _ in range(2))
    assert isinstance(first, Listing)
    assert first == second
