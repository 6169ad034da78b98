"""Corrected labels of a dataset make a version of it; the dataset, splits and other images stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import make_own

from mlae_lab.cli import main
from mlae_lab.data import own_dataset
from mlae_lab.data.bundled import DataError
from mlae_lab.data.duplicates import examine
from mlae_lab.data.own_dataset import Changes, Origin
from mlae_lab.data.own_source import labels_by_file, read_source
from mlae_lab.data.relabel import corrected
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a dataset with 10 owls and 10 wrens."""
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))
    given = read_source(make_own(tmp_path / "photos", {"owl": 10, "wren": 10}))
    facts = examine(given.folder, [image.path for image in given.images])
    own_dataset.write(own_dataset.plan(given, facts, Changes()), "birds", Origin("folder", "photos"))
    return tmp_path / "data" / "own" / "birds"


def images(folder: Path) -> dict[str, set[bytes]]:
    """The contents of the images of each split and class."""
    return {
        str(path.relative_to(folder)): {file.read_bytes() for file in path.iterdir()} for path in folder.glob("*/*")
    }


def test_an_image_that_was_replaced_is_not_corrected(birds: Path) -> None:
    owl = next((birds / "val" / "owl").iterdir())
    path = f"val/owl/{owl.name}"
    seen = {path: examine(birds, [path])[path].content}
    assert corrected("own:birds", {path: "wren"}, contents=seen)
    owl.write_bytes(next((birds / "train" / "wren").iterdir()).read_bytes())
    for change in ({"labels": {path: "wren"}}, {"labels": {}, "leave_out": {path}}):
        with pytest.raises(DataError, match="is another image than the one that was looked at"):
            corrected("own:birds", contents=seen, **change)  # type: ignore[arg-type]


def test_a_corrected_image_moves_to_its_class_and_one_is_left_out(birds: Path) -> None:
    owl, other = sorted((birds / "val" / "owl").iterdir())[:2]
    wren = next((birds / "train" / "wren").iterdir())
    before = images(birds)
    moved, gone = owl.read_bytes(), wren.read_bytes()
    labels = {f"val/owl/{owl.name}": "wren", f"val/owl/{other.name}": "owl"}
    given, plan = corrected("own:birds", labels, {f"train/wren/{wren.name}"})
    own_dataset.write(plan, "birds v2", given.origin, link=given.linkable)
    after = images(birds.parent / "birds v2")
    expected = {name: set(contents) for name, contents in before.items()}
    expected["val/owl"].remove(moved)
    expected["val/wren"].add(moved)
    expected["train/wren"].remove(gone)
    assert after == expected
    assert images(birds) == before
    stored = own_dataset.stored(birds.parent / "birds v2")
    assert stored
    assert stored.origin.parent == "birds"
    assert stored.record["left_out"]["left out by hand"]["names"] == [f"train/wren/{wren.name}"]
    assert f"Corrected labels: 1 image (val/owl/{owl.name} from owl to wren)." in stored.record["notes"]


@pytest.mark.parametrize(
    ("labels", "leave_out", "rule"),
    [({"val/owl/none.png": "wren"}, [], "is no image of 'birds'"), ({}, ["../x"], "is no image"), ({}, [], "no label")],
)
def test_what_cannot_be_corrected_is_refused(birds: Path, labels: dict, leave_out: list[str], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        corrected("own:birds", labels, leave_out)


def test_a_folder_that_the_lab_did_not_make_keeps_its_labels(birds: Path) -> None:
    make_own(birds.parent / "by hand" / "train", {"a": 4, "b": 4})
    with pytest.raises(DataError, match="was not made by the lab"):
        corrected("own:by hand", {"train/a/image 0.jpg": "b"})


def test_the_command_takes_a_table_of_labels(birds: Path, tmp_path: Path, capsys: Captured) -> None:
    owl = next((birds / "test" / "owl").iterdir())
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\ntest/owl/{owl.name},wren\n")
    assert main(["dataset", "relabel", "birds", "--labels", str(table), "--json", "--dry-run"]) == 0
    assert printed_json(capsys)["written"] is False
    assert main(["dataset", "relabel", "birds", "--labels", str(table), "--json"]) == 0
    result = printed_json(capsys)
    assert result["task"] == "own:birds v2"
    assert result["classes"]["wren"]["test"] == len(list((birds / "test" / "wren").iterdir())) + 1
    assert main(["dataset", "relabel", "birds"]) == 2
    assert "needs --labels CSV" in capsys.readouterr().err
    assert main(["dataset", "relabel", "birds", "--labels", str(table), "--rename", "owl=Owl"]) == 2
    assert "changes only the labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "rule"),
    [("c.png,owl", "line 2 .* no image"), ("a.png,owl\nx/a.png,wren", "twice"), ("a.png,owl,val", "names a split")],
)
def test_a_table_that_does_not_fit_is_refused(rows: str, rule: str) -> None:
    header = "file,label,split\n" if rows.count(",") == 2 and "\n" not in rows else "file,label\n"
    with pytest.raises(DataError, match=rule):
        labels_by_file(["x/a.png", "x/b.png"], (header + rows).encode())
