"""Real images on the command line, end to end: folder, census, cache, worker process, accuracy and badge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.locations import ASSETS
from tests.data.trees import make_fgvc, make_own, make_vtab

Captured = pytest.CaptureFixture[str]
BUNDLED = ASSETS / "lab_vit_12x128.safetensors"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))


def trained(capsys: Captured, *words: str) -> dict:
    assert main(["train", "--epochs", "2", "--backbone", "lab_vit_12x128.random", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_vtab_in_the_data_folder_on_test(tmp_path: Path, capsys: Captured) -> None:
    make_vtab(tmp_path / "data" / "vtab-1k", "dtd", train=20, val=5, test=9)
    report = trained(capsys, "--task", "dtd", "--protocol", "test")
    assert report["status"] == "finished"
    assert report["test_accuracy"] is not None
    assert report["badge"]["data"] == "not VTAB-1k: its layout with 20/5/9 images"
    assert report["best_epoch_optimistic"]["accuracy"] >= report["test_accuracy"]
    assert len(report["weights_fingerprint"]) == 12


def test_fgvc_in_a_named_folder_with_random_crops(trains_here: None, tmp_path: Path, capsys: Captured) -> None:
    folder = make_fgvc(tmp_path / "elsewhere", "cub", train=20, val=5, test=9)
    report = trained(capsys, "--task", "cub", "--data", str(folder))
    assert report["status"] == "finished"
    assert "fgvc-rrc" in report["badge"]["preprocessing"]
    repeated = trained(capsys, "--task", "cub", "--data", str(folder))
    assert repeated["accuracy_by_epoch"] == report["accuracy_by_epoch"], "crops depend only on the seed"


def test_own_images_with_a_broken_one_train_without_it(trains_here: None, tmp_path: Path, capsys: Captured) -> None:
    folder = make_own(tmp_path / "Cats & Dogs, 2024", {"cat": 12, "dog": 12}, broken="cat/image 3.jpg")
    report = trained(capsys, "--data", str(folder))
    assert report["status"] == "finished"
    assert report["task"] == "own:Cats & Dogs, 2024"
    assert report["badge"]["data"].endswith(" (23 of 24 readable)")
    assert any("cat/image 3.jpg" in note for note in report["data_notes"])


def test_own_class_folders(trains_here: None, tmp_path: Path, capsys: Captured) -> None:
    make_own(tmp_path / "my birds", {"amsel": 12, "star": 12})
    report = trained(capsys, "--task", "own", "--data", str(tmp_path / "my birds"), "--normalisation", "imagenet")
    assert report["task"] == "own:my birds"
    assert report["badge"]["data"].startswith("own images, ")
    assert "ImageNet" in report["badge"]["preprocessing"]


def test_a_swin_trains_on_its_own_canvas(trains_here: None, tmp_path: Path, capsys: Captured) -> None:
    make_own(tmp_path / "data" / "own" / "b", {"amsel": 6, "star": 6})
    words = ["train", "--task", "own:b", "--epochs", "1", "--backbone", "swin_tiny_patch4_window7_224.random", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["status"] == "finished"
    assert report["expert_parameters"] == 141_408


def test_a_broken_image_fails_the_run_and_is_named(trains_here: None, tmp_path: Path, capsys: Captured) -> None:
    folder = make_vtab(tmp_path / "data" / "vtab-1k", "dtd", train=20, val=5, test=9)
    broken = sorted((folder / "images" / "val200").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:80])
    assert main(["train", "--task", "dtd", "--backbone", "lab_vit_12x128.random", "--json"]) == 1
    out, err = capsys.readouterr()
    assert broken.name in json.loads(out.splitlines()[-1])["reason"]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task", "cub", "--data", "/nowhere/at/all"], "/nowhere/at/all is not a folder"),
        (["--task", "own:birds"], "has no folder for own:birds"),
        (["--task", "digits", "--weights", "/no/file.npz"], "/no/file.npz is not a file"),
        (
            ["--task", "digits", "--backbone", "vit_small_patch16_224", "--weights", str(BUNDLED)],
            "not (1152, 384) and 47 more have wrong shapes; it fits lab_vit_12x128: choose that backbone",
        ),
        (["--task", "digits", "--preprocessing", "fgvc-rrc"], "too small to crop"),
        (["--task", "digits", "--backbone", "vit_base_patch16_224_in21k"], "legacy alias of augreg"),
        (["--task", "digits", "--mask", "m1_24x8_ff*24_0*24"], "blocks.12.attn.qkv is not a linear layer"),
    ],
)
def test_an_invalid_request_is_one_sentence(words: list[str], sentence: str, capsys: Captured, tmp_path: Path) -> None:
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "store").exists()
