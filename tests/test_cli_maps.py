"""`activation`, `attention` and `predict` on the command line, on a trained run."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlae_lab.cli import main
from mlae_lab.core.plan import MaskPlan
from mlae_lab.data.bundled import load_bundled
from mlae_lab.runs.store import RunStore
from tests.lab import end_probe, finished, finished_run, small_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    store, run = finished_run(tmp_path_factory.mktemp("maps"))
    yield store, run
    end_probe(store, run)


@pytest.fixture
def lab(trained: tuple[RunStore, str], capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Executes a command on the run; returns exit status, standard output and standard error."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        store, run_id = trained
        status = main([name, run_id, *map(str, words), "--store", str(store.folder)])
        return status, *capsys.readouterr()

    return run


def test_activation_as_text_and_as_json(lab: Callable, trained: tuple[RunStore, str]) -> None:
    status, text, _ = lab("activation")
    assert status == 0
    assert "mean over 200 images" in text
    assert "layer 12" in text
    assert "–" in text
    answer = json.loads(lab("activation", "--by", "class", "--images", 50, "--json")[1].splitlines()[-1])
    assert answer["run"] == trained[1]
    assert sum(answer["counts"]) == 50
    assert np.shape(answer["values"]) == (10, 12, 3)
    assert "image 100, " in lab("activation", "--by", "image", "--images", 2)[1]


def test_layers_are_named_by_their_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mask on two kinds of layers: their rows are numbered for each kind."""
    plan = MaskPlan(
        keep=((True,),) * 4, drop_rate=((0.0,),) * 4,
        targets=("blocks.10.attn.qkv", "blocks.11.attn.qkv", "blocks.10.mlp.fc1", "blocks.11.mlp.fc1"),
    )  # fmt: skip
    store = RunStore(tmp_path / "lab")
    run = finished(store, replace(small_config(), plan=plan))

    def printed(*words: str) -> str:
        assert main([words[0], run, *words[1:], "--store", str(store.folder)]) == 0
        return capsys.readouterr().out

    try:
        lines = printed("activation", "--images", "8").splitlines()
        assert [line[:12].split() for line in lines[1:]] == [["layer", *label.split()] for label in plan.row_labels]
        by_class = printed("activation", "--by", "class", "--images", "50")
        assert re.search(r"largest in layer [12] (qkv|fc1), expert 1", by_class)
        for words in (("--layer", "2.fc1"), ("--layer", "2 fc1"), ("--layer", "4"), ()):
            assert printed("attention", "--image", "0", *words).startswith("layer 2 fc1, blocks.11.mlp.fc1, ")
        assert main(["attention", run, "--image", "0", "--layer", "3.fc1", "--store", str(store.folder)]) == 2
        assert "this run has layers 1 to 4 (L1.qkv to L2.fc1)" in capsys.readouterr().err
    finally:
        end_probe(store, run)


@pytest.mark.parametrize("kind", ["png", "svg", "json"])
def test_attention_writes_a_sheet(kind: str, lab: Callable, tmp_path: Path) -> None:
    out = tmp_path / f"maps.{kind}"
    status, text, _ = lab("attention", "--image", 0, 3, "--layer", 11, "--out", out)
    assert status == 0
    assert "layer 11, blocks.10.attn.qkv, 3 experts, patches [6, 6]" in text
    assert "expert 3: largest at" in text
    if kind == "png":
        with Image.open(out) as sheet:
            assert sheet.size == (120 + 6 * 138, 34 + 2 * 138)  # the image, two rollouts, three experts
    elif kind == "svg":
        assert out.read_text().count("<image") == 12
    else:
        assert len(json.loads(out.read_text())["images"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_predict_takes_indices_and_files(lab: Callable, tmp_path: Path) -> None:
    Image.fromarray(load_bundled("digits").val.images[5]).save(tmp_path / "five.png")
    answer = json.loads(lab("predict", 5, tmp_path / "five.png", "--json")[1].splitlines()[-1])["images"]
    assert answer[0]["top"] == answer[1]["top"]
    assert answer[0]["nearest"] == answer[1]["nearest"]
    assert answer[0]["truth"] is not None
    assert answer[1]["truth"] is None
    assert "private" not in answer[1]
    text = lab("predict", 5)[1]
    assert text.startswith("5: ")
    assert "nearest: " in text
    assert "flips without the experts of: " in text
    what_if = json.loads(lab("predict", 5, "--off", "L12,L11", "--json")[1].splitlines()[-1])["images"][0]["what_if"]
    line = "  with 0 experts on: "
    assert what_if["off"] == "L12,L11"
    assert len(what_if["now"]) == 10
    assert sum(what_if["now"]) == pytest.approx(1, abs=1e-4)
    assert line in lab("predict", 5, "--off", "L12,L11")[1]
    assert line not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("attention", "--image", "0", "--layer", "3"), "layer 3 keeps no expert: choose one of 11, 12"),
        (("attention", "--image", "0", "--out", "maps.pdf"), "its name must end in .png, .svg, .json"),
        (("attention", "--image", "no-such.png"), "no-such.png cannot be read (No such file or directory)"),
        (("predict", "9" * 5000), "cannot be read (File name too long)"),
        (("attention", "--image", "0", "--out", "/no/such/folder/maps.png"), "cannot be written"),
        (("activation", "--images", "0"), "choose at least one"),
        (("predict", "5", "--off", "L13"), "layers 1 to 12"),
        (("predict", "5000"), "image 5000 does not exist: the evaluation images are 0 to 199"),
    ],
)
def test_an_invalid_request_is_one_sentence(words: tuple[str, ...], message: str, lab: Callable) -> None:
    status, text, error = lab(*words)
    assert status == 2
    assert text == ""
    assert message in error
    assert error.count("\n") == 1


def test_a_large_file_is_not_read(lab: Callable, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(5 * 2**20 + 1))
    assert "larger than 5 MB" in lab("predict", tmp_path / "large.png")[2]


def test_no_answer_about_a_users_file_is_kept(
    lab: Callable, trained: tuple[RunStore, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that took over two seconds are kept; here the limit is 0, in a probe in this process."""
    from mlae_lab.runs import probe_worker
    from mlae_lab.training.loaded_run import load_run
    from mlae_lab.training.queries import queries

    store, run = trained
    monkeypatch.setattr(probe_worker, "KEEP_SECONDS", 0.0)
    probe = probe_worker.Probe(store, run)
    probe.known = queries()
    probe.loaded = load_run(store.run(run).config, store.paths(run).adapter)
    png = io.BytesIO()
    Image.fromarray(load_bundled("digits").val.images[5]).save(png, "PNG")
    answers = store.paths(run).answers
    shutil.rmtree(answers, ignore_errors=True)  # on a slow machine the other tests' answers took over two seconds
    for argument, kept in (({"file": base64.b64encode(png.getvalue()).decode()}, 0), (5, 1)):
        probe._answer(probe_worker.Job("predict", {"image": argument}))
        assert len(list(answers.glob("*.json")) if answers.exists() else []) == kept
