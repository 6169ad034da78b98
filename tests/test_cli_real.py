"""Real images by command line, the whole way: folder, census, cache, worker process, number with its badge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.cli import main
from tests.data.trees import make_fgvc, make_own, make_vtab

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def indices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "store"))


def trained(capsys: Captured, *words: str) -> dict:
    assert main(["train", "--epochs", "2", "--backbone", "lab_vit_12x128.random", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_vtab_by_its_place_on_test(tmp_path: Path, capsys: Captured) -> None:
    make_vtab(tmp_path / "data" / "vtab-1k", "dtd", train=20, val=5, test=9)
    told = trained(capsys, "--task", "dtd", "--protocol", "test")
    assert told["status"] == "finished"
    assert told["test_accuracy"] is not None
    assert told["badge"]["data"] == "not VTAB-1k: its layout with 20/5/9 images"
    assert told["best_epoch_optimistic"]["accuracy"] >= told["test_accuracy"]
    assert len(told["weights_fingerprint"]) == 12


def test_fgvc_by_a_named_folder_with_random_crops(tmp_path: Path, capsys: Captured) -> None:
    folder = make_fgvc(tmp_path / "elsewhere", "cub", train=20, val=5, test=9)
    told = trained(capsys, "--task", "cub", "--data", str(folder))
    assert told["status"] == "finished"
    assert "fgvc-rrc" in told["badge"]["preprocessing"]
    again = trained(capsys, "--task", "cub", "--data", str(folder))
    assert again["accuracy_by_epoch"] == told["accuracy_by_epoch"], "crops are drawn from the seed"


def test_own_class_folders(tmp_path: Path, capsys: Captured) -> None:
    make_own(tmp_path / "my birds", {"amsel": 12, "star": 12})
    told = trained(capsys, "--task", "own", "--data", str(tmp_path / "my birds"), "--normalisation", "imagenet")
    assert told["task"] == "own:my birds"
    assert told["badge"]["data"].startswith("own images, ")
    assert "ImageNet" in told["badge"]["preprocessing"]


def test_a_swin_learns_on_its_own_canvas(tmp_path: Path, capsys: Captured) -> None:
    make_own(tmp_path / "data" / "own" / "b", {"amsel": 6, "star": 6})
    words = ["train", "--task", "own:b", "--epochs", "1", "--backbone", "swin_tiny_patch4_window7_224.random", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["status"] == "finished"
    assert told["expert_parameters"] == 141_408


def test_a_broken_image_fails_the_run_by_its_name(tmp_path: Path, capsys: Captured) -> None:
    folder = make_vtab(tmp_path / "data" / "vtab-1k", "dtd", train=20, val=5, test=9)
    victim = sorted((folder / "images" / "val200").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:80])
    assert main(["train", "--task", "dtd", "--backbone", "lab_vit_12x128.random", "--json"]) == 1
    out, err = capsys.readouterr()
    assert victim.name in json.loads(out.splitlines()[-1])["reason"]
    assert "Traceback" not in err.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task", "cub", "--data", "/nowhere/at/all"], "/nowhere/at/all is not a folder"),
        (["--task", "own:birds"], "has no folder for own:birds"),
        (["--task", "digits", "--weights", "/no/file.npz"], "/no/file.npz is not a file"),
        (["--task", "digits", "--preprocessing", "fgvc-rrc"], "too small to crop"),
        (["--task", "digits", "--backbone", "vit_base_patch16_224_in21k"], "legacy alias of augreg"),
        (["--task", "digits", "--mask", "m1_24x8_ff*24_0*24"], "blocks.12.attn.qkv is not a linear layer"),
    ],
)
def test_a_wrong_request_is_one_sentence(words: list[str], sentence: str, capsys: Captured, tmp_path: Path) -> None:
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "store").exists()
