"""The questions about experts that are off: on a real run, as a page or a command asks them."""

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
    """A run of one epoch, its experts made larger so that they matter."""
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
    found = queries()[name](loaded, arguments, on_progress)
    return json.loads(json.dumps(found, allow_nan=False))


def by_hand(loaded: LoadedRun, factors: Factors) -> tuple[float, float]:
    """Accuracy and loss of a network that has λ f in its layers."""
    setup = loaded.setup
    kept = {target: layer.coefficient.clone() for target, layer in setup.experts.layers.items()}
    with torch.no_grad():
        for target, row in zip(PLAN.targets, factors, strict=False):
            if target in kept:
                setup.experts.layers[target].coefficient.mul_(torch.tensor([v for v in row if v is not None]))
        found = evaluate(setup)
        for target, layer in setup.experts.layers.items():
            layer.coefficient.copy_(kept[target])
    return found.accuracy, found.loss


def test_nothing_changed_is_the_number_that_the_run_ended_with(loaded: LoadedRun) -> None:
    found, whole = ask(loaded, "whatif"), evaluate(loaded.setup)
    assert found["images"] == found["of"] == 200
    assert found["before"]["accuracy"] == found["now"]["accuracy"] == whole.accuracy
    assert found["before"]["loss"] == pytest.approx(whole.loss, rel=1e-5)
    assert (found["flipped"], found["flips"], found["off"], found["experts"]) == (0, [], "", 9)


@pytest.mark.parametrize("arguments", [
    {"off": "L9E2,L12"}, {"off": [[9, 2], [12]]}, {"off": "L9E2,L12", "scale": 0.5},
    {"scale": -1.0}, {"mask": allocation((0,) * 8 + (1, 1, 1, 2)).code},
])  # fmt: skip
def test_a_state_equals_a_network_that_is_in_it(loaded: LoadedRun, arguments: dict) -> None:
    found = ask(loaded, "whatif", **arguments)
    factors = all_on(PLAN)
    if "mask" in arguments:
        factors = with_cells(factors, read_off(PLAN, "L9E2,L9E3,L11E2,L12E3,L12E4"), 0.0)
        assert found["ignored"] == ["layer 10, expert 1"]
    if "off" in arguments:
        factors = with_cells(factors, read_off(PLAN, "L9E2,L12"), 0.0)
        assert found["off"] == "L9E2,L12"
        assert found["experts"] == 4
    factors = scaled(factors, arguments.get("scale", 1.0))
    assert found["factors"] == [list(row) for row in factors]
    accuracy, loss = by_hand(loaded, factors)
    assert found["now"]["accuracy"] == accuracy
    assert found["now"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert ask(loaded, "whatif", factors=found["factors"])["now"] == found["now"]
    again = ask(loaded, "whatif")
    assert again["now"] == found["before"]


def test_images_that_flip_are_those_whose_class_changes(loaded: LoadedRun) -> None:
    plain, found = ask(loaded, "whatif"), ask(loaded, "whatif", scale=0.0)
    flips = [i for i, (a, b) in enumerate(zip(plain["predicted"], found["predicted"], strict=False)) if a != b]
    assert found["flipped"] == len(flips) > 0
    assert {flip["index"] for flip in found["flips"]} <= set(flips)
    for flip in found["flips"]:
        assert flip["before"] == plain["predicted"][flip["index"]] != flip["now"]
        assert flip["image"].startswith("data:image/")
    right = [flip["before"] == flip["truth"] for flip in found["flips"]]
    assert right == sorted(right, reverse=True)  # what was right and is lost stands first
    per_class = found["now"]["class_accuracy"]
    assert sum(a * n for a, n in zip(per_class, found["class_images"], strict=False) if n) / 200 == pytest.approx(
        found["now"]["accuracy"]
    )


def test_fewer_images_are_spread_over_the_split(loaded: LoadedRun) -> None:
    found = ask(loaded, "whatif", images=20)
    assert (found["images"], found["of"]) == (20, 200)
    assert found["predicted"] == ask(loaded, "whatif")["predicted"][::10]


def test_who_matters_equals_what_if_one_by_one(loaded: LoadedRun) -> None:
    told: list[tuple[int, int]] = []
    found = ask(loaded, "importance", lambda done, total: told.append((done, total)), images=40)
    assert told[-1] == (11, 12)  # nine experts and three layers
    plain = ask(loaded, "whatif", images=40)
    for row, column in existing(PLAN):
        off = ask(loaded, "whatif", off=[[row + 1, column + 1]], images=40)["now"]
        assert found["experts"]["loss"][row][column] == pytest.approx(off["loss"] - plain["now"]["loss"], abs=1e-5)
        assert found["experts"]["accuracy"][row][column] == pytest.approx(off["accuracy"] - plain["now"]["accuracy"])
    for row in (8, 10, 11):
        off = ask(loaded, "whatif", off=[[row + 1]], images=40)["now"]
        assert found["layers"]["loss"][row] == pytest.approx(off["loss"] - plain["now"]["loss"], abs=1e-5)
        assert found["layers"]["estimate"][row] == pytest.approx(
            sum(v for v in found["experts"]["estimate"][row] if v is not None), abs=1e-5
        )
    assert found["layers"]["loss"][0] is None
    assert found["experts"]["loss"][0] == [None] * 4
    assert -1 <= found["experts"]["pearson"] <= 1
    assert -1 <= found["experts"]["spearman"] <= 1


@pytest.mark.parametrize("direction", ["removal", "addition", "estimate"])
def test_every_point_of_a_greedy_curve_is_a_state(loaded: LoadedRun, direction: str) -> None:
    found = ask(loaded, "greedy", direction=direction, images=20)
    assert [step["kept"] for step in found["steps"]] == (
        list(range(10)) if direction == "addition" else list(range(9, -1, -1))
    )
    assert (found["agreement"] is not None) is (direction == "removal")
    out = [] if direction != "addition" else [[r + 1, c + 1] for r, c in existing(PLAN)]
    for step in found["steps"]:
        if step["cell"] is not None:
            out = [*out, step["cell"]] if direction != "addition" else [cell for cell in out if cell != step["cell"]]
        state = ask(loaded, "whatif", off=out, images=20)["now"]
        assert (state["accuracy"], state["loss"]) == (step["accuracy"], pytest.approx(step["loss"], rel=1e-5))


def test_who_decides_an_image(loaded: LoadedRun) -> None:
    found = ask(loaded, "image_importance", image=7)
    assert found["truth"] == int(loaded.setup.evaluation.labels[7])
    for row, column in existing(PLAN):
        off = ask(loaded, "whatif", off=[[row + 1, column + 1]])
        assert found["instead"][row][column] == off["predicted"][7]
        flips = found["margin"] + found["change"][row][column] < 0
        assert flips is (off["predicted"][7] != found["predicted"])
    assert found["change"][0] == [None] * 4
    held = io.BytesIO()
    Image.fromarray(np.array(loaded.setup.evaluation.part.images[7])).save(held, "PNG")
    own = ask(loaded, "image_importance", image={"file": base64.b64encode(held.getvalue()).decode()})
    assert own["private"] is True
    assert own["truth"] is None
    assert "private" not in found
    assert (own["predicted"], own["margin"], own["change"]) == (found["predicted"], found["margin"], found["change"])


def test_robustness_is_the_same_each_time_and_falls_with_the_rate(loaded: LoadedRun) -> None:
    one, again = (ask(loaded, "robustness", rate=0.5, samples=6, images=30) for _ in range(2))
    assert one == again
    assert len(one["accuracies"]) == 6
    assert one["lowest"] == min(one["accuracies"])
    assert one["mean"] == pytest.approx(sum(one["accuracies"]) / 6)
    none = ask(loaded, "robustness", rate=0.0, samples=2, images=30)
    assert none["accuracies"] == [none["trained"]["accuracy"]] * 2


def test_a_pruned_file_says_what_the_state_says(loaded: LoadedRun, tmp_path: Path) -> None:
    state = {"off": "L9E1,L11,L12E4", "scale": 0.5}
    answer = ask(loaded, "pruned", **state)
    file = tmp_path / "smaller.safetensors"
    file.write_bytes(base64.b64decode(answer["file"]))
    small = read_adapter(file)
    assert small.plan == MaskPlan.from_code(answer["plan"])
    assert small.plan.kept == (0,) * 8 + (2, 0, 0, 3)
    assert answer["bytes"] == file.stat().st_size < loaded.adapter.stat().st_size
    assert answer["experts"] == 5
    other = prepare(replace(CONFIG, plan=small.plan))
    load_adapter(small, other.experts, other.head)
    other.model.eval()
    ask(loaded, "whatif", **state)
    lab = loaded.kept["whatif"]
    factors = scaled(with_cells(all_on(PLAN), read_off(PLAN, state["off"]), 0.0), 0.5)
    with torch.no_grad():
        logits = other.behind(other.evaluation.take(torch.arange(200)))
    assert torch.allclose(logits, lab.ask(factors).logits, atol=1e-6 * float(logits.abs().max().clamp_min(1)))


def test_with_nothing_left_the_file_is_the_head(loaded: LoadedRun, tmp_path: Path) -> None:
    answer = ask(loaded, "pruned", off=off_text(PLAN, existing(PLAN)))
    file = tmp_path / "none.safetensors"
    file.write_bytes(base64.b64decode(answer["file"]))
    assert set(read_adapter(file).tensors) == {"head.weight", "head.bias"}
    assert answer["experts"] == 0


@pytest.mark.parametrize(("name", "arguments", "says"), [
    ("whatif", {"off": "L13"}, "layers 1 to 12"), ("whatif", {"off": [[9, 4]]}, "layer 9 has 1, 2, 3"),
    ("whatif", {"off": [["9"]]}, "write \\[layer, expert\\]"), ("whatif", {"off": 3}, "write \\[layer, expert\\]"),
    ("whatif", {"scale": "2"}, "scale is '2'"), ("whatif", {"scale": float("nan")}, "scale is nan"),
    ("whatif", {"mask": "x"}, "not a mask code"), ("whatif", {"mask": 3}, "mask is 3"),
    ("whatif", {"factors": [[1]]}, "12 rows"), ("whatif", {"factors": [], "off": ""}, "factors describes the whole"),
    ("whatif", {"images": 0}, "images is 0"), ("whatif", {"rate": 0.5}, "'rate' is no argument"),
    ("importance", {"images": 5000}, "1 to 2000"), ("greedy", {"direction": "up"}, "removal, addition or estimate"),
    ("image_importance", {"image": 200}, "0 to 199"), ("robustness", {"rate": 1.0}, "below 1"), ("robustness", {"samples": 1001}, "1 to 1000"),
    ("robustness", {"seed": 0.5}, "seed is 0.5"), ("robustness", {"rescaled": 1}, "true or false"),
    ("pruned", {"images": 3}, "'images' is no argument"),
])  # fmt: skip
def test_a_wrong_question_is_one_sentence(loaded: LoadedRun, name: str, arguments: dict, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        ask(loaded, name, **arguments)


def test_a_linear_probe_has_nothing_to_switch_off() -> None:
    setup = prepare(RunConfig("digits", method="linear", backbone="lab_vit_12x128.random", device="cpu"))
    for name in ("whatif", "importance", "greedy", "image_importance", "robustness", "pruned"):
        with pytest.raises(QueryError, match="has no experts"):
            ask(LoadedRun(setup, Path("none")), name)
