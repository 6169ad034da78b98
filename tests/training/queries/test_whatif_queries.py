"""The queries about experts that are off, on a small trained run."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlae_lab.core.config import RunConfig
from mlae_lab.core.expert_state import Factors, all_on, existing, off_text, read_off, scaled, with_cells
from mlae_lab.core.patterns import allocation
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.adapter_file import load_adapter, read_adapter, save_adapter
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import LoadedRun, QueryError, load_run
from mlae_lab.training.queries import queries
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

PLAN = allocation((0,) * 8 + (3, 0, 2, 4), drop_rate=0.5)
CONFIG = RunConfig(
    "digits", PLAN, backbone="lab_vit_12x128.random", epochs=1, device="cpu", precision="float32", learning_rate=5e-3
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedRun]:
    """A run of one epoch, its experts enlarged so that they change predictions."""
    setup = prepare(CONFIG)
    list(fit(setup))
    with torch.no_grad():
        for layer in setup.experts.layers.values():
            layer.b.mul_(20)
    file = tmp_path_factory.mktemp("run") / "adapter.safetensors"
    save_adapter(file, setup.experts, setup.head, CONFIG.backbone, CONFIG.task)
    before = file.read_bytes()
    loaded = load_run(CONFIG, file, "abcdefgh", "cpu")
    yield loaded
    assert file.read_bytes() == before


def ask(loaded: LoadedRun, name: str, on_progress=lambda done, total: None, **arguments) -> dict:
    """The answer to a query, after JSON."""
    answer = queries()[name](loaded, arguments, on_progress)
    return json.loads(json.dumps(answer, allow_nan=False))


def evaluated_with(loaded: LoadedRun, factors: Factors) -> tuple[float, float]:
    """Accuracy and loss of the network with λ f in its layers."""
    setup = loaded.setup
    coefficients = {target: layer.coefficient.clone() for target, layer in setup.experts.layers.items()}
    with torch.no_grad():
        for target, row in zip(PLAN.targets, factors, strict=True):
            if target in coefficients:
                setup.experts.layers[target].coefficient.mul_(torch.tensor([v for v in row if v is not None]))
        evaluation = evaluate(setup)
        for target, layer in setup.experts.layers.items():
            layer.coefficient.copy_(coefficients[target])
    return evaluation.accuracy, evaluation.loss


def test_without_a_change_the_accuracy_is_that_of_the_run(loaded: LoadedRun) -> None:
    answer, evaluation = ask(loaded, "whatif"), evaluate(loaded.setup)
    assert answer["images"] == answer["of"] == 200
    assert answer["before"]["accuracy"] == answer["now"]["accuracy"] == evaluation.accuracy
    assert answer["before"]["loss"] == pytest.approx(evaluation.loss, rel=1e-5)
    assert (answer["flipped"], answer["flips"], answer["off"], answer["experts"]) == (0, [], "", 9)


@pytest.mark.parametrize("arguments", [
    {"off": "L9E2,L12"}, {"off": [[9, 2], [12]]}, {"off": "L9E2,L12", "scale": 0.5},
    {"scale": -1.0}, {"mask": allocation((0,) * 8 + (1, 1, 1, 2)).code},
])  # fmt: skip
def test_a_state_equals_a_network_with_these_coefficients(loaded: LoadedRun, arguments: dict) -> None:
    answer = ask(loaded, "whatif", **arguments)
    factors = all_on(PLAN)
    if "mask" in arguments:
        factors = with_cells(factors, read_off(PLAN, "L9E2,L9E3,L11E2,L12E3,L12E4"), 0.0)
        assert answer["ignored"] == ["layer 10, expert 1"]
    if "off" in arguments:
        factors = with_cells(factors, read_off(PLAN, "L9E2,L12"), 0.0)
        assert answer["off"] == "L9E2,L12"
        assert answer["experts"] == 4
    factors = scaled(factors, arguments.get("scale", 1.0))
    assert answer["factors"] == [list(row) for row in factors]
    accuracy, loss = evaluated_with(loaded, factors)
    assert answer["now"]["accuracy"] == accuracy
    assert answer["now"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert ask(loaded, "whatif", factors=answer["factors"])["now"] == answer["now"]
    unchanged = ask(loaded, "whatif")
    assert unchanged["now"] == answer["before"]


def test_images_that_flip_are_those_whose_class_changes(loaded: LoadedRun) -> None:
    plain, answer = ask(loaded, "whatif"), ask(loaded, "whatif", scale=0.0)
    flips = [i for i, (a, b) in enumerate(zip(plain["predicted"], answer["predicted"], strict=True)) if a != b]
    assert answer["flipped"] == len(flips) > 0
    assert {flip["index"] for flip in answer["flips"]} <= set(flips)
    for flip in answer["flips"]:
        assert flip["before"] == plain["predicted"][flip["index"]] != flip["now"]
        assert flip["image"].startswith("data:image/")
    was_correct = [flip["before"] == flip["truth"] for flip in answer["flips"]]
    assert was_correct == sorted(was_correct, reverse=True)  # newly wrong images come first
    per_class = answer["now"]["class_accuracy"]
    assert sum(a * n for a, n in zip(per_class, answer["class_images"], strict=True) if n) / 200 == pytest.approx(
        answer["now"]["accuracy"]
    )


def test_fewer_images_are_spread_over_the_split(loaded: LoadedRun) -> None:
    answer = ask(loaded, "whatif", images=20)
    assert (answer["images"], answer["of"]) == (20, 200)
    assert answer["predicted"] == ask(loaded, "whatif")["predicted"][::10]


def test_importance_equals_what_if_for_each_expert(loaded: LoadedRun) -> None:
    reports: list[tuple[int, int]] = []
    answer = ask(loaded, "importance", lambda done, total: reports.append((done, total)), images=40)
    assert reports[-1] == (11, 12)  # nine experts and three layers
    plain = ask(loaded, "whatif", images=40)
    for row, column in existing(PLAN):
        off = ask(loaded, "whatif", off=[[row + 1, column + 1]], images=40)["now"]
        assert answer["experts"]["loss"][row][column] == pytest.approx(off["loss"] - plain["now"]["loss"], abs=1e-5)
        assert answer["experts"]["accuracy"][row][column] == pytest.approx(off["accuracy"] - plain["now"]["accuracy"])
    for row in (8, 10, 11):
        off = ask(loaded, "whatif", off=[[row + 1]], images=40)["now"]
        assert answer["layers"]["loss"][row] == pytest.approx(off["loss"] - plain["now"]["loss"], abs=1e-5)
        assert answer["layers"]["estimate"][row] == pytest.approx(
            sum(v for v in answer["experts"]["estimate"][row] if v is not None), abs=1e-5
        )
    assert answer["layers"]["loss"][0] is None
    assert answer["experts"]["loss"][0] == [None] * 4
    assert -1 <= answer["experts"]["pearson"] <= 1
    assert -1 <= answer["experts"]["spearman"] <= 1


@pytest.mark.parametrize("direction", ["removal", "addition", "estimate"])
def test_every_point_of_a_greedy_curve_equals_what_if(loaded: LoadedRun, direction: str) -> None:
    answer = ask(loaded, "greedy", direction=direction, images=20)
    assert [step["kept"] for step in answer["steps"]] == (
        list(range(10)) if direction == "addition" else list(range(9, -1, -1))
    )
    assert (answer["agreement"] is not None) is (direction == "removal")
    off = [] if direction != "addition" else [[r + 1, c + 1] for r, c in existing(PLAN)]
    for step in answer["steps"]:
        if step["cell"] is not None:
            off = [*off, step["cell"]] if direction != "addition" else [cell for cell in off if cell != step["cell"]]
        state = ask(loaded, "whatif", off=off, images=20)["now"]
        assert (state["accuracy"], state["loss"]) == (step["accuracy"], pytest.approx(step["loss"], rel=1e-5))


def test_importance_for_one_image(loaded: LoadedRun) -> None:
    answer = ask(loaded, "image_importance", image=7)
    assert answer["truth"] == int(loaded.setup.evaluation.labels[7])
    for row, column in existing(PLAN):
        off = ask(loaded, "whatif", off=[[row + 1, column + 1]])
        assert answer["instead"][row][column] == off["predicted"][7]
        flips = answer["margin"] + answer["change"][row][column] < 0
        assert flips is (off["predicted"][7] != answer["predicted"])
    assert answer["change"][0] == [None] * 4
    buffer = io.BytesIO()
    Image.fromarray(np.array(loaded.setup.evaluation.part.images[7])).save(buffer, "PNG")
    uploaded = ask(loaded, "image_importance", image={"file": base64.b64encode(buffer.getvalue()).decode()})
    assert uploaded["private"] is True
    assert uploaded["truth"] is None
    assert "private" not in answer
    assert (uploaded["predicted"], uploaded["margin"], uploaded["change"]) == (
        answer["predicted"],
        answer["margin"],
        answer["change"],
    )


def test_robustness_is_reproducible_and_full_at_rate_0(loaded: LoadedRun) -> None:
    first, again = (ask(loaded, "robustness", rate=0.5, samples=6, images=30) for _ in range(2))
    assert first == again
    assert len(first["accuracies"]) == 6
    assert first["lowest"] == min(first["accuracies"])
    assert first["mean"] == pytest.approx(sum(first["accuracies"]) / 6)
    undropped = ask(loaded, "robustness", rate=0.0, samples=2, images=30)
    assert undropped["accuracies"] == [undropped["trained"]["accuracy"]] * 2


def test_a_pruned_adapter_equals_the_state(loaded: LoadedRun, tmp_path: Path) -> None:
    state = {"off": "L9E1,L11,L12E4", "scale": 0.5}
    answer = ask(loaded, "pruned", **state)
    file = tmp_path / "smaller.safetensors"
    file.write_bytes(base64.b64decode(answer["file"]))
    smaller = read_adapter(file)
    assert smaller.plan == MaskPlan.from_code(answer["plan"])
    assert smaller.plan.kept == (0,) * 8 + (2, 0, 0, 3)
    assert answer["bytes"] == file.stat().st_size < loaded.adapter.stat().st_size
    assert answer["experts"] == 5
    setup = prepare(replace(CONFIG, plan=smaller.plan))
    load_adapter(smaller, setup.experts, setup.head)
    setup.model.eval()
    ask(loaded, "whatif", **state)
    whatif = loaded.kept["whatif"]
    factors = scaled(with_cells(all_on(PLAN), read_off(PLAN, state["off"]), 0.0), 0.5)
    with torch.no_grad():
        logits = setup.behind(setup.evaluation.take(torch.arange(200)))
    assert torch.allclose(logits, whatif.outcome(factors).logits, atol=1e-6 * float(logits.abs().max().clamp_min(1)))


def test_a_pruned_adapter_without_experts_has_only_the_head(loaded: LoadedRun, tmp_path: Path) -> None:
    answer = ask(loaded, "pruned", off=off_text(PLAN, existing(PLAN)))
    file = tmp_path / "none.safetensors"
    file.write_bytes(base64.b64decode(answer["file"]))
    assert set(read_adapter(file).tensors) == {"head.weight", "head.bias"}
    assert answer["experts"] == 0


@pytest.mark.parametrize(("name", "arguments", "message"), [
    ("whatif", {"off": "L13"}, "layers 1 to 12"), ("whatif", {"off": [[9, 4]]}, "layer 9 has 1, 2, 3"),
    ("whatif", {"off": [["9"]]}, "write \\[layer, expert\\]"), ("whatif", {"off": 3}, "write \\[layer, expert\\]"),
    ("whatif", {"scale": "2"}, "scale is '2'"), ("whatif", {"scale": float("nan")}, "scale is nan"),
    ("whatif", {"mask": "x"}, "not a mask code"), ("whatif", {"mask": 3}, "mask is 3"),
    ("whatif", {"factors": [[1]]}, "12 rows"), ("whatif", {"factors": [], "off": ""}, "factors describes the whole"),
    ("whatif", {"images": 0}, "images is 0"), ("whatif", {"rate": 0.5}, "'rate' is not an argument"),
    ("importance", {"images": 5000}, "1 to 2000"), ("greedy", {"direction": "up"}, "removal, addition or estimate"),
    ("image_importance", {"image": 200}, "0 to 199"), ("robustness", {"rate": 1.0}, "below 1"),
    ("robustness", {"samples": 1001}, "1 to 1000"), ("robustness", {"seed": 0.5}, "seed is 0.5"),
    ("robustness", {"rescaled": 1}, "true or false"), ("pruned", {"images": 3}, "'images' is not an argument"),
])  # fmt: skip
def test_an_invalid_query_is_an_error(loaded: LoadedRun, name: str, arguments: dict, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        ask(loaded, name, **arguments)


def test_a_linear_probe_has_no_experts_to_switch_off() -> None:
    setup = prepare(RunConfig("digits", method="linear", backbone="lab_vit_12x128.random", device="cpu"))
    for name in ("whatif", "importance", "greedy", "image_importance", "robustness", "pruned"):
        with pytest.raises(QueryError, match="has no experts"):
            ask(LoadedRun(setup, Path("none")), name)
