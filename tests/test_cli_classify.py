"""`predict RUN FOLDER --csv FILE` on a trained run: the same predictions as its evaluation; wrong requests."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mlae_lab.cli import main
from mlae_lab.data.bundled import load_bundled
from mlae_lab.runs import probe
from mlae_lab.runs.store import RunStore
from tests.data.trees import truncate
from tests.lab import end_probe, finished_run, printed_json, small_config

Captured = pytest.CaptureFixture[str]
IMAGES = 70  # more than one query takes


@pytest.fixture(scope="module")
def trained(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    store, run = finished_run(tmp_path_factory.mktemp("classify"))
    yield store, run
    end_probe(store, run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first val images of the task, a file that cannot be read and one that is no image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "inner").mkdir()
    images = load_bundled("digits").val.images
    for number, pixels in enumerate(images[:IMAGES]):
        Image.fromarray(pixels).save(folder / "inner" / f"=image {number}.png")
    Image.fromarray(images[0]).save(folder / "broken.png")
    truncate(folder / "broken.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def command(trained: tuple[RunStore, str], *words: object) -> int:
    store, run = trained
    return main(["predict", run, *map(str, words), "--store", str(store.folder), "--json"])


def test_a_folder_and_a_zip_become_a_table(
    trained: tuple[RunStore, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    store, run = trained
    errors = probe.wait(store, run, "errors", {"images": "all"}).value
    assert errors
    accuracy = round(100 * errors["correct"] / errors["images"]) + 4
    assert command(trained, folder, "--csv", tmp_path / "a.csv", "--top", 2, "--accuracy", accuracy) == 0
    result = printed_json(capsys)
    assert result["classified"] == IMAGES
    assert list(result["unreadable"]) == ["broken.png"]
    assert result["ignored"] == {"not an image": ["notes.txt"]}
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "probability", "abstain", "class_2", "probability_2", "problem"]
    assert rows[0]["file"] == "broken.png"
    assert rows[0]["problem"]
    assert [rows[0]["class"], rows[0]["abstain"]] == ["", ""]
    for number, row in enumerate(rows[1:]):
        assert row["file"] == f"inner/=image {number}.png"
        assert row["class"] == errors["names"][errors["predicted"][number]]
        assert float(row["probability"]) == pytest.approx(errors["confidence"][number], abs=2e-6)
        assert (row["abstain"] == "yes") == (float(row["probability"]) < result["threshold"])
    chosen = result["chosen"]
    kept = [t == p for t, p, c in zip(*(errors[n] for n in ("truth", "predicted", "confidence")), strict=True)
            if c >= chosen["threshold"]]  # fmt: skip
    assert (len(kept), sum(kept)) == (chosen["kept"], chosen["correct"])
    assert 100 * sum(kept) / len(kept) >= accuracy
    assert 0 < result["abstained"] < IMAGES

    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*.png")):
            packed.write(path, path.relative_to(folder).as_posix())
    words = [archive, "--csv", tmp_path / "b.csv", "--top", 2, "--abstain-below", result["threshold"]]
    assert command(trained, *words) == 0
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    assert not any((tmp_path / "data" / ".own").iterdir()), "what was unpacked is gone"
    assert command(trained, *words) == 2, "an existing table is not replaced"


def test_a_run_that_was_trained_on_val_chooses_no_threshold(
    trained: tuple[RunStore, str], folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    store, _ = trained
    run = store.enqueue(replace(small_config(), protocol="test"), device="cpu").id
    assert command((store, run), folder, "--csv", tmp_path / "a.csv", "--accuracy", 95) == 2
    assert "trained on train and val (protocol test)" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["FOLDER"], "add --csv FILE"),
        (["FOLDER", "3", "--csv", "NEW"], "without other images"),
        (["FOLDER", "--csv", "NEW", "--off", "L12E1"], "for single images"),
        (["FOLDER", "--csv", "NEW", "--top", "0"], "must be 1 to 10"),
        (["FOLDER", "--csv", "NEW", "--abstain-below", "2"], "must be a probability"),
        (["FOLDER", "--csv", "NEW", "--abstain-below", "0.5", "--accuracy", "90"], "exclude each other"),
        (["0", "--csv", "NEW"], "goes with a folder or a zip"),
        (["EMPTY", "--csv", "NEW"], "holds no image"),
        (["FOLDER", "--csv", "/no such folder/a.csv"], "cannot be written"),
    ],
)
def test_wrong_requests(
    trained: tuple[RunStore, str], folder: Path, tmp_path: Path, words: list[str], rule: str, capsys: Captured
) -> None:
    (tmp_path / "empty").mkdir()
    named = {"FOLDER": folder, "NEW": tmp_path / "new.csv", "EMPTY": tmp_path / "empty"}
    assert command(trained, *(named.get(word, word) for word in words)) == 2
    assert rule in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()
