"""`activation`, `attention` and `predict` on the command line, asked of a real run."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlae_lab.cli import main
from mlae_lab.data.bundled import load_bundled
from mlae_lab.runs.store import RunStore
from tests.lab import end_probe, finished_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    store, run = finished_run(tmp_path_factory.mktemp("maps"))
    yield store, run
    end_probe(store, run)


@pytest.fixture
def lab(trained: tuple[RunStore, str], capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the run; gives exit status, standard output and standard error."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        store, run_id = trained
        status = main([name, run_id, *map(str, words), "--store", str(store.folder)])
        return status, *capsys.readouterr()

    return run


def test_activation_prints_the_grid_and_answers_as_json(lab: Callable, trained: tuple[RunStore, str]) -> None:
    status, text, _ = lab("activation")
    assert status == 0
    assert "mean over 200 images" in text
    assert "layer 12" in text
    assert "–" in text
    found = json.loads(lab("activation", "--by", "class", "--images", 50, "--json")[1].splitlines()[-1])
    assert found["run"] == trained[1]
    assert sum(found["counts"]) == 50
    assert np.shape(found["values"]) == (10, 12, 3)
    assert "image 100, " in lab("activation", "--by", "image", "--images", 2)[1]


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


def test_predict_takes_places_and_files(lab: Callable, tmp_path: Path) -> None:
    Image.fromarray(load_bundled("digits").val.images[5]).save(tmp_path / "five.png")
    found = json.loads(lab("predict", 5, tmp_path / "five.png", "--json")[1].splitlines()[-1])["images"]
    assert found[0]["top"] == found[1]["top"]
    assert found[0]["nearest"] == found[1]["nearest"]
    assert found[0]["truth"] is not None
    assert found[1]["truth"] is None
    assert "private" not in found[1]
    text = lab("predict", 5)[1]
    assert text.startswith("5: ")
    assert "nearest: " in text
    assert "flips without the experts of: " in text
    without, told = lab("predict", 5, "--off", "L12,L11", "--json")[1].splitlines()[-1], "  with 0 experts on: "
    what = json.loads(without)["images"][0]["what_if"]
    assert what["off"] == "L12,L11"
    assert len(what["now"]) == 10
    assert sum(what["now"]) == pytest.approx(1, abs=1e-4)
    assert told in lab("predict", 5, "--off", "L12,L11")[1]
    assert told not in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("attention", "--image", "0", "--layer", "3"), "layer 3 keeps no expert: choose one of 11, 12"),
        (("attention", "--image", "0", "--out", "maps.pdf"), "its name must end in .png, .svg, .json"),
        (("attention", "--image", "no-such.png"), "no-such.png cannot be read (No such file or directory)"),
        (("attention", "--image", "0", "--out", "/no/such/folder/maps.png"), "cannot be written"),
        (("activation", "--images", "0"), "choose at least one"),
        (("predict", "5", "--off", "L13"), "layers 1 to 12"),
        (("predict", "5000"), "image 5000 does not exist: the evaluation images are 0 to 199"),
    ],
)
def test_a_wrong_request_is_one_sentence(words: tuple[str, ...], why: str, lab: Callable) -> None:
    status, text, error = lab(*words)
    assert status == 2
    assert text == ""
    assert why in error
    assert error.count("\n") == 1


def test_a_large_file_is_not_read(lab: Callable, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(5 * 2**20 + 1))
    assert "larger than 5 MB" in lab("predict", tmp_path / "large.png")[2]


def test_a_file_of_ones_own_leaves_no_answer_behind(
    lab: Callable, trained: tuple[RunStore, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept answers are those that took over two seconds: here the limit is put at nothing, in this process's own probe."""
    from mlae_lab.runs import probe_worker
    from mlae_lab.training.loaded_run import load_run
    from mlae_lab.training.queries import queries

    store, run = trained
    monkeypatch.setattr(probe_worker, "KEEP_SECONDS", 0.0)
    asked = probe_worker.Probe(store, run)
    asked.known = queries()
    asked.loaded = load_run(store.run(run).config, store.paths(run).adapter)
    held = io.BytesIO()
    Image.fromarray(load_bundled("digits").val.images[5]).save(held, "PNG")
    for argument, kept in (({"file": base64.b64encode(held.getvalue()).decode()}, 0), (5, 1)):
        asked._answer(probe_worker.Job("predict", {"image": argument}))
        answers = store.paths(run).answers
        assert len(list(answers.glob("*.json")) if answers.exists() else []) == kept
