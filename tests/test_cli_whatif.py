"""`whatif`, `importance` and `robustness` on a trained run through its probe: output and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlae_lab.cli import main
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import allocation
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.adapter_file import read_adapter
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.lab import end_probe, finished

Captured = pytest.CaptureFixture[str]
PLAN = allocation((0,) * 10 + (1, 2), drop_rate=0.5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    """A store with a finished run and one on another protocol; the probe ends with the tests."""
    store = RunStore(tmp_path_factory.mktemp("whatif"))
    config = RunConfig("digits", PLAN, backbone="lab_vit_12x128.random", epochs=1, device="cpu", learning_rate=5e-3)
    run = finished(store, config)
    other = store.enqueue(RunConfig("digits", PLAN, protocol="test", device="cpu"), device="cpu")
    store.move(other.id, Status.STOPPED)
    yield store
    end_probe(store, run)


def command_output(store: RunStore, capsys: Captured, *words: str, status: int = 0) -> tuple[str, str]:
    assert main([*words, "--store", str(store.folder)]) == status
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def finished_id(store: RunStore) -> str:
    return store.runs()[-1].id


def test_whatif_prints_accuracy_and_writes_the_remaining_experts(
    store: RunStore, capsys: Captured, tmp_path: Path
) -> None:
    before = store.paths(finished_id(store)).adapter.read_bytes()
    file = tmp_path / "smaller.safetensors"
    options = ["--off", "L12E1", "--scale", "0.5", "--save-plan", "what is left", "--export", str(file), "--json"]
    out, _ = command_output(store, capsys, "whatif", finished_id(store), *options)
    result = json.loads(out.splitlines()[-1])
    assert result["before"]["accuracy"] == store.last(finished_id(store), Evaluation).accuracy
    assert result["experts"] == 2
    assert result["off"] == "L12E1"
    small = read_adapter(file)
    assert small.plan.kept == (0,) * 10 + (1, 1)
    assert result["export"]["bytes"] == file.stat().st_size
    assert [entry.name for entry in store.plans()] == ["what is left"]
    assert store.plans()[0].plan == small.plan
    assert MaskPlan.from_code(result["saved_plan"]["code"]) == small.plan
    assert store.paths(finished_id(store)).adapter.read_bytes() == before
    _, err = command_output(store, capsys, "whatif", finished_id(store), "--export", str(file), status=2)
    assert "exists: name another file, or add --force" in err
    _, err = command_output(store, capsys, "whatif", finished_id(store), "--save-plan", "What is left", status=2)
    assert "already: choose another name" in err


def test_whatif_with_another_mask_as_text(store: RunStore, capsys: Captured) -> None:
    out, _ = command_output(
        store, capsys, "whatif", finished_id(store), "--mask", allocation((0,) * 9 + (1, 1, 1)).code
    )
    assert "% with 2 of 3 experts, " in out
    assert "ignored, as this run does not have them: layer 10, expert 1" in out


def test_importance(store: RunStore, capsys: Captured) -> None:
    out, _ = command_output(store, capsys, "importance", finished_id(store), "--images", "40")
    assert "without a layer" in out
    assert "layer 12" in out
    assert "Pearson" in out
    out, _ = command_output(
        store, capsys, "importance", finished_id(store), "--greedy", "addition", "--images", "40", "--json"
    )
    assert [step["kept"] for step in json.loads(out.splitlines()[-1])["steps"]] == [0, 1, 2, 3]
    out, _ = command_output(store, capsys, "importance", finished_id(store), "--greedy", "removal", "--images", "40")
    assert "Spearman correlation of this order with the first-order estimates" in out


def test_importance_for_one_image(store: RunStore, capsys: Captured) -> None:
    out, _ = command_output(store, capsys, "importance", finished_id(store), "--image", "3")
    assert out.startswith("predicted ")
    assert out.count("without layer") == 3
    assert "label: " in out
    out, _ = command_output(store, capsys, "importance", finished_id(store), "--image", "3", "--json")
    answer = json.loads(out.splitlines()[-1])
    assert answer["index"] == 3
    assert "image" not in answer
    assert answer["change"][0] == [None] * 2
    command_output(store, capsys, "importance", finished_id(store), "--image", "nothing.png", status=2)


def test_robustness_of_two_runs(store: RunStore, capsys: Captured) -> None:
    out, _ = command_output(
        store,
        capsys,
        "robustness",
        finished_id(store),
        finished_id(store),
        "--samples",
        "5",
        "--drop-rate",
        "0.4",
        "--images",
        "40",
    )
    assert out.count("on average over 5 random masks at p = 0.4") == 2
    assert "neither is significantly more robust" in out
    assert "one seed per run on 40 images" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["whatif", "RUN", "--off", "L13"], "layers 1 to 12"),
        (["whatif", "RUN", "--kind", "mixed"], "--kind needs --mask"),
        (["whatif", "RUN", "--off", "everything"], "names no expert"),
        (["whatif", "RUN", "--mask", "nonsense"], "is neither a pattern"),
        (["importance", "RUN", "--greedy", "removal", "--image", "3"], "exclude each other"),
        (["importance", "RUN", "--greedy", "up"], "removal, addition or estimate"),
        (["robustness", "RUN", "--drop-rate", "1"], "below 1"),
        (["robustness", "RUN", "OTHER"], "have different badges"),
        (["whatif", "OTHER"], "no adapter"),
        (["whatif", "aaaaaaaa"], "is not in"),
    ],
)
def test_an_invalid_request_is_one_sentence(store: RunStore, capsys: Captured, words: list[str], message: str) -> None:
    known = {"RUN": finished_id(store), "OTHER": store.runs()[0].id}
    out, err = command_output(store, capsys, *(known.get(word, word) for word in words), status=2)
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
