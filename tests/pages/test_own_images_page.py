"""The Task page of own images: a folder with files that cannot be read, and a dataset made on the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.data.trees import make_own
from tests.lab import figures, html, open_page
from tests.runs.test_class_recall import unequal_run

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_check_leaves_out_what_cannot_be_read_and_says_so(data: Path) -> None:
    make_own(data / "own" / "Cats & Dogs, 2024", {"cat": 12, "dog": 12}, broken="cat/image 3.jpg")
    at = open_page("task", task="own:Cats & Dogs, 2024")
    assert not at.exception
    assert "Cats &amp; Dogs, 2024" in html(at)
    assert "readable)" not in html(at)
    at.button(key="task_check").click().run()
    assert not at.exception
    assert "(23 of 24 readable)" in html(at)
    assert "Left out, as they cannot be read: 1 of 24 images, cat/image 3.jpg" in html(at)


def test_a_folder_that_is_gone_is_one_sentence(data: Path) -> None:
    at = open_page("task", task="own:gone")
    assert not at.exception
    (info,) = at.info
    assert "has no folder gone: choose another task, or add images above" in info.value


def preview_of(data: Path, monkeypatch: pytest.MonkeyPatch, counts: dict[str, int]) -> AppTest:
    """The Task page with the preview of a folder below a root of the server."""
    make_own(data.parent / "root" / "photos", counts)
    monkeypatch.setenv("MLAE_LAB_IMAGE_FOLDERS", str(data.parent / "root"))
    at = open_page("task")
    at.button(key="own_toggle").click().run()
    at.button_group(key="own_where").set_value("Folder on this machine").run()
    at.selectbox(key="own_below_1").set_value("photos").run()
    at.button(key="own_read_folder_1").click().run()
    assert not at.exception
    return at


def test_a_folder_below_a_root_becomes_a_dataset(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = preview_of(data, monkeypatch, {"owl": 20, "wren": 10, "fog": 10})
    text = html(at)
    assert "40 images in 3 classes. Nothing is stored yet" in text
    assert "Unequal classes: owl has 20 images, fog 10, a ratio of 2.0 to 1" in text
    assert text.count("<figcaption>owl</figcaption>") == 3
    assert not (data / "own").exists()
    at.multiselect(key="own_leave_out_1").set_value(["fog"]).run()
    at.text_area(key="own_rename_1").set_value("wren = Wren").run()
    at.number_input(key="own_test_1").set_value(30).run()
    at.text_input(key="own_name_1").set_value("My birds").run()
    at.button(key="own_create_1").click().run()
    assert not at.exception
    assert at.query_params["task"] == "own:My birds"
    assert "own images, 15/6/9" in html(at)
    assert "from photos; 10 files left out" in html(at)
    assert sorted(path.name for path in (data / "own" / "My birds" / "train").iterdir()) == ["Wren", "owl"]
    assert at.button(key="task_next").label == "Next: Masks"

    at.button(key="own_version_start").click().run()
    at.button(key="own_read_version_3").click().run()
    assert at.radio(key="own_split_3").value == "As given"
    assert at.text_input(key="own_name_3").value == "My birds v2"
    at.button(key="own_create_3").click().run()
    assert at.query_params["task"] == "own:My birds v2"
    at.button(key="own_delete").click().run()
    at.button(key="own_delete_yes").click().run()
    assert not at.exception
    assert [path.name for path in (data / "own").iterdir()] == ["My birds"]


def uploads(folder: Path) -> list[tuple[str, bytes, str]]:
    return [(path.name, path.read_bytes(), "image/png") for path in sorted(folder.iterdir())]


def test_files_of_one_class_after_the_other_are_uploaded(data: Path, tmp_path: Path) -> None:
    make_own(tmp_path, {"owl": 6, "wren": 6}, (".png",))
    at = open_page("task")
    at.button(key="own_toggle").click().run()
    for form, name in ((1, "owl"), (2, "wren")):
        at.file_uploader(key=f"own_upload_{form}").set_value(uploads(tmp_path / name)).run()
        at.text_input(key=f"own_class_{form}").set_value(name).run()
        at.button(key=f"own_add_{form}").click().run()
    assert "Added: owl (6 images), wren (6 images)." in html(at)
    at.button(key="own_read_files_3").click().run()
    assert not at.exception
    assert "12 images in 2 classes" in html(at)
    assert len(list((data / ".own").iterdir())) == 1
    at.button(key="own_discard_3").click().run()
    assert not any((data / ".own").iterdir()), "what was not stored is deleted"


def test_files_with_a_csv_are_uploaded(data: Path, tmp_path: Path) -> None:
    make_own(tmp_path, {"owl": 8}, (".png",))
    at = open_page("task")
    at.button(key="own_toggle").click().run()
    table = "file,label\n" + "".join(f"image {i}.png,{'ab'[i % 2]}\n" for i in range(8))
    files = [*uploads(tmp_path / "owl"), ("labels.csv", table.encode(), "text/csv")]
    at.file_uploader(key="own_upload_1").set_value(files).run()
    at.button(key="own_read_files_1").click().run()
    assert not at.exception
    assert "8 images in 2 classes" in html(at)
    at.button(key="own_create_1").click().run()
    assert (data / "own" / "labels" / "train" / "a").is_dir()


def test_what_cannot_be_stored_is_one_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = preview_of(data, monkeypatch, {"owl": 6, "wren": 1})
    assert at.button(key="own_create_1").disabled
    assert "wren has one: leave it out or merge it" in at.error[0].value
    at.text_area(key="own_rename_1").set_value("wren").run()
    assert "renames no class" in at.warning[0].value
    at.text_area(key="own_rename_1").set_value("wren = owl").run()
    assert "at least two classes" in at.error[0].value
    assert not at.exception


def test_without_roots_a_browser_can_read_no_folder(data: Path) -> None:
    at = open_page("task")
    at.button(key="own_toggle").click().run()
    at.button_group(key="own_where").set_value("Folder on this machine").run()
    assert not at.exception
    assert "a browser can read none" in html(at)
    assert not [button for button in at.button if button.label == "Preview"]


def test_unequal_classes_have_their_recall_on_the_page_of_a_run(data: Path) -> None:
    _, name = unequal_run(data.parent / "store")
    at = open_page("train", run=name)
    assert "the largest class has 3.1 times the images of the smallest" in html(at)
    assert "class-accuracy" in figures(at)
