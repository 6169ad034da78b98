"""`dataset` on the command line: new from a folder, a zip and a version; list, check, delete; wrong requests."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.config import RunConfig
from mlae_lab.data import dataset_input, own_dataset
from mlae_lab.data.dataset_input import folder_in_root, folders_below, image_roots
from mlae_lab.data.duplicates import examine
from mlae_lab.data.own_dataset import Origin
from mlae_lab.data.own_source import read_source
from mlae_lab.runs.owners import terminal_owner
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.data.trees import make_own, write_image
from tests.lab import printed_json

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    return tmp_path


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent).as_posix())
    return file


def test_a_zip_becomes_a_dataset_then_a_version_of_it(lab: Path, capsys: Captured) -> None:
    archive = zipped(make_own(lab / "photos", {"owl": 12, "wren": 6, "fog": 4}), lab / "photos.zip")
    words = ["dataset", "new", "birds", str(archive), "--leave-out", "fog", "--rename", "owl=Tawny owl", "--json"]
    assert main([*words, "--dry-run"]) == 0
    preview = printed_json(capsys)
    assert preview["written"] is False
    assert not (lab / "data" / "own").exists()
    assert main([*words, "--ratio", "50,25,25"]) == 0
    result = printed_json(capsys)
    assert result["task"] == "own:birds"
    assert result["imbalance"] == 2
    assert result["counts"] == {"train": 10, "val": 4, "test": 4}
    assert list(result["classes"]) == ["Tawny owl", "wren"]
    assert not any((lab / "data" / ".own").iterdir()), "what was unpacked is gone"

    assert main(["dataset", "new", "birds v2", "own:birds", "--rename", "wren=Wren", "--json"]) == 0
    assert printed_json(capsys)["counts"] == result["counts"], "a version keeps the splits"
    assert main(["dataset", "list", "--json"]) == 0
    rows = {row["name"]: row for row in printed_json(capsys)["datasets"]}
    assert (rows["birds"]["origin"]["kind"], rows["birds"]["origin"]["name"]) == ("zip", "photos.zip")
    assert rows["birds v2"]["origin"]["parent"] == "birds"
    assert rows["birds v2"]["classes"] == 2
    assert not (lab / "store").exists(), "nothing of this needs a store"
    assert main(["dataset", "list"]) == 0
    assert "a version of birds" in capsys.readouterr().out


def test_check_names_copies_across_splits(lab: Path, capsys: Captured) -> None:
    home = lab / "data" / "own" / "by hand"
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        make_own(home / split, {"a": count, "b": count})  # equal numbers are equal images
    assert main(["dataset", "check", "by hand", "--json"]) == 0
    result = printed_json(capsys)
    assert len(result["same_content"]) == 6
    assert {entry["split"] for entry in result["same_content"][0]} == {"train", "val", "test"}
    assert main(["dataset", "check", "own:by hand"]) == 0
    assert "same content: test/a/image 0.jpg, train/a/image 0.jpg, val/a/image 0.jpg" in capsys.readouterr().out
    assert main(["dataset", "delete", "by hand", "--yes"]) == 2
    assert "was not made by the lab" in capsys.readouterr().err


def test_delete_needs_a_confirmation_and_names_the_runs(lab: Path, capsys: Captured) -> None:
    folder = make_own(lab / "photos", {"owl": 6, "wren": 6})
    assert main(["dataset", "new", "birds", str(folder)]) == 0
    store = RunStore(lab / "store")
    run = store.enqueue(RunConfig("own:birds", method="linear"), "cpu")
    capsys.readouterr()
    assert main(["dataset", "delete", "birds", "--yes"]) == 2
    assert f"run {run.id} needs the images of birds and is not over" in capsys.readouterr().err
    store.move(run.id, Status.STOPPED)
    assert main(["dataset", "delete", "birds"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert main(["dataset", "delete", "birds", "--yes", "--json"]) == 0
    assert len(printed_json(capsys)["runs"]) == 1
    assert not (lab / "data" / "own" / "birds").exists()


def test_a_csv_labels_a_flat_folder(lab: Path, capsys: Captured) -> None:
    for i in range(12):
        write_image(lab / "flat" / f"{i}.jpg", i)
    (lab / "labels.csv").write_text("file,label\n" + "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(12)))
    assert main(["dataset", "new", "x", str(lab / "flat"), "--labels", str(lab / "labels.csv"), "--json"]) == 0
    assert sum(printed_json(capsys)["counts"].values()) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "x"], "takes a name and a folder"),
        (["new", "x", "nowhere"], "neither a folder, nor a zip, nor an own dataset"),
        (["new", "a/b", "photos"], "has a slash"),
        (["new", "x", "photos", "--ratio", "60,40"], "three numbers"),
        (["new", "x", "photos", "--ratio", "60,30,20"], "sum 100"),
        (["new", "x", "photos", "--rename", "owl"], "such as dog=hound"),
        (["new", "x", "photos", "--leave-out", "dog"], "'dog' is no class"),
        (["new", "x", "photos", "--leave-out", "owl"], "at least two classes"),
        (["new", "x", "photos", "--labels", "gone.csv"], "cannot be read"),
        (["new", "x", "text.zip"], "not a zip archive"),
        (["check", "x"], "no own dataset is called 'x'"),
        (["list", "x"], "takes no name"),
    ],
)
def test_an_invalid_request_is_one_sentence(
    lab: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    make_own(lab / "photos", {"owl": 6, "wren": 6})
    (lab / "text.zip").write_text("hello")
    monkeypatch.chdir(lab)
    assert main(["dataset", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (lab / "data" / "own" / "x").exists()


def test_a_zip_with_too_much_is_refused_before_it_is_unpacked(
    lab: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(make_own(lab / "photos", {"owl": 3, "wren": 3}), lab / "photos.zip")
    monkeypatch.setattr(dataset_input, "MAX_FILES", 5)
    assert main(["dataset", "new", "x", str(archive)]) == 2
    assert "has 8 files and folders: at most 5 are taken" in capsys.readouterr().err
    monkeypatch.setattr(dataset_input, "MAX_FILES", 50)
    monkeypatch.setattr(dataset_input, "MAX_UNPACKED", 1000)
    assert main(["dataset", "new", "x", str(archive)]) == 2
    assert "at most 1 kB are taken" in capsys.readouterr().err


def test_a_zip_entry_that_leaves_the_folder_is_refused(lab: Path, capsys: Captured) -> None:
    with zipfile.ZipFile(lab / "bad.zip", "w") as archive:
        archive.writestr("../../escaped.jpg", b"x")
    assert main(["dataset", "new", "x", str(lab / "bad.zip")]) == 2
    assert "would leave the folder" in capsys.readouterr().err
    assert not list(lab.rglob("escaped.jpg"))


# ---------------------------------------------------------------- folders that a browser may choose


def test_only_folders_below_the_roots_can_be_chosen(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lab / "shared"
    make_own(root / "photos", {"owl": 3, "wren": 3})
    make_own(lab / "secret", {"a": 3, "b": 3})
    (root / "out").symlink_to(lab / "secret")
    (root / ".hidden").mkdir()
    assert image_roots() == ()
    monkeypatch.setenv("MLAE_LAB_IMAGE_FOLDERS", f"{root}:{lab / 'gone'}")
    assert image_roots() == (root,)
    assert folders_below(root) == ["", "photos", "photos/owl", "photos/wren"]
    assert len(folder_in_root(root, "photos").source.images) == 6
    for below in ("../secret", str(lab / "secret"), "out", "gone"):
        with pytest.raises(own_dataset.DataError, match="no folder below the folders"):
            folder_in_root(root, below)
    with pytest.raises(own_dataset.DataError, match="no folder below the folders"):
        folder_in_root(lab / "secret", "")


def test_uploaded_names_stay_in_their_folder(tmp_path: Path) -> None:
    dataset_input.add_files([("../../x.jpg", b"1"), ("a\\x.jpg", b"2"), ("x.jpg", b"1"), ("..", b"3")], tmp_path / "in")
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["x (2).jpg", "x.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_dataset_of_somebody_else_needs_yes(lab: Path, capsys: Captured) -> None:
    source = read_source(make_own(lab / "photos", {"owl": 6, "wren": 6}))
    facts = examine(source.folder, [image.path for image in source.images])
    own_dataset.write(own_dataset.plan(source, facts), "x", Origin("zip", "x"), terminal_owner("ada"))
    assert main(["dataset", "delete", "x"]) == 2
    assert "belongs to" in capsys.readouterr().err
    assert main(["dataset", "delete", "x", "--yes"]) == 0
