"""`export`: what it refuses before anything starts, folders and zip files, and an upload to a Hub on the loopback."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlae_lab.cli import main
from mlae_lab.locations import use_store
from mlae_lab.runs import exporting
from mlae_lab.runs.store import RunStore
from tests.data.hub_server import HubServer, hub_server
from tests.lab import finished_run

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    """A store with a finished run; exports are written in the process of the tests."""
    from mlae_lab.exports import worker

    def here(module: str, arguments: list[str], log: Path, folder: Path, lock: int, environment: Any) -> None:
        handler = signal.getsignal(signal.SIGINT)
        inherited = os.dup(lock)
        worker.main([*arguments, str(inherited)])
        os.close(inherited)
        signal.signal(signal.SIGINT, handler)
        use_store(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.supervisor, "spawn", here)
        yield finished_run(tmp_path_factory.mktemp("export") / "lab")


def refused(capsys: Captured, *words: str) -> str:
    assert main(["export", *words]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()[-1].removeprefix("mlae_lab: ")


def test_wrong_requests(lab: tuple[RunStore, str], tmp_path: Path, capsys: Captured) -> None:
    store, run = lab
    place = ("--store", str(store.folder))
    (tmp_path / "there").mkdir()
    for words, error in (
        ([run], "`export` needs DEST, a file or folder to write, or --push USER/NAME"),
        ([run, "a.mlae", "--public"], "--public is of an upload: add --push USER/NAME or leave it out"),
        ([run, "--push", "ada/birds"], "an archive is not for the Hub: add --to peft, timm, safetensors, onnx, torch, "
         "bundle"),
        ([run, "--to", "peft", "--push", "birds"], "'birds' is not a repository of the Hub: write USER/NAME"),
        ([run, str(tmp_path / "there"), "--to", "peft", "--force"],
         f"{tmp_path / 'there'} exists: name a new folder, or a file that ends in .zip"),
        ([run, str(store.folder / "x"), "--to", "peft"],
         f"{store.folder / 'x'} is in the store: name a folder elsewhere"),
        ([run, str(tmp_path / "x"), "--to", "timm"], "timm has no name for the convolutional stem of the bundled "
         "backbone: use peft, safetensors, onnx or torch"),
    ):  # fmt: skip
        assert refused(capsys, *words, *place) == error
    assert "--to: invalid choice: 'jax'" in refused(capsys, run, "x", "--to", "jax", *place)
    assert not (tmp_path / "x").exists()


def test_a_folder_and_a_zip(lab: tuple[RunStore, str], tmp_path: Path, capsys: Captured) -> None:
    store, run = lab
    words = ["export", run, str(tmp_path / "out"), "--to", "safetensors", "--store", str(store.folder), "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["format"], printed["file"]) == ("safetensors", str(tmp_path / "out"))
    inside = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert inside == {name.partition("/")[2] for name in printed["files"]}
    assert {"model.safetensors", "adapter.safetensors", "classify.py", "README.md", "mask.svg"} <= inside
    assert main([*words[:2], str(tmp_path / "out.zip"), *words[3:]]) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as packed:
        assert len(packed.namelist()) == len(inside)
    capsys.readouterr()
    assert "exists: name another file, or add --force" in refused(capsys, run, str(tmp_path / "out.zip"), *words[3:7])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.zip"]


def is_private(request: dict) -> bool:
    """Of a request for a new repository, from any version of the Hub's library."""
    return request["visibility"] == "private" if "visibility" in request else request["private"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server speaks LFS, not Xet
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
        yield server


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
def test_an_upload_is_listed_confirmed_and_private(
    lab: tuple[RunStore, str], hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    store, run = lab
    words = [run, "--to", "safetensors", "--push", "ada/digits", "--store", str(store.folder)]
    assert refused(capsys, *words) == ("nothing was sent: no terminal can ask for a confirmation, add --yes to upload")
    monkeypatch.setattr(sys, "stdin", _Terminal("no\n"))
    assert refused(capsys, *words) == "Upload? [y/N] mlae_lab: nothing was sent: the upload was not confirmed"
    assert hub.requests == []

    assert main(["export", *words, "--yes"]) == 0
    output = capsys.readouterr()
    assert "To ada/digits (private, if it is new):" in output.err
    assert "model.safetensors" in output.err
    assert f"uploaded to {hub.url}/ada/digits" in output.out
    assert [(entry["name"], is_private(entry)) for entry in hub.created] == [("digits", True)]
    with zipfile.ZipFile(exporting.zip_file(store.paths(run).exports, "safetensors")) as packed:
        sent = {name.partition("/")[2]: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    assert hub.uploaded == sent
    assert run in hub.commits[0]["summary"]
    assert {headers.get("authorization") for headers in hub.requested("POST")} <= {"Bearer hf_secretsecret", None}
    logs = (file.read_bytes() for file in store.folder.rglob("*") if file.is_file())
    assert not any(b"hf_secretsecret" in content for content in logs)
    assert "hf_secretsecret" not in output.out + output.err

    assert main(["export", *words, "--yes", "--public"]) == 0
    assert not is_private(hub.created[-1])
    hub.status = 403
    capsys.readouterr()
    assert "the Hub refuses the upload to ada/digits (status 403): set HF_TOKEN or run" in refused(
        capsys, *words, "--yes"
    )
