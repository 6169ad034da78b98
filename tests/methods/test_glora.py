"""GLoRA: every configuration against the formula, sampling, and the search."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from mlae_lab.core.search import Search
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adapter import attach
from mlae_lab.methods.evolution import Evolution
from mlae_lab.methods.glora import CHOICES, GLoRA
from mlae_lab.methods.glora.layers import CONFIGURATIONS, FULL, GeneralLoRA, Support, configuration

NONE = tuple(len(names) - 1 for names in CHOICES.values())


def attached(**settings: Any) -> tuple[nn.Module, GeneralLoRA]:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2, embed_dim=24, num_heads=3)
    adapter = attach(model.eval(), GLoRA(**settings))
    assert isinstance(adapter, GeneralLoRA)
    return model, adapter


def filled(adapter: GeneralLoRA) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(adapter.parameters().values()):
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(index))


def test_432_configurations() -> None:
    rows = [configuration(number) for number in range(CONFIGURATIONS)]
    assert len(set(rows)) == CONFIGURATIONS == 432
    assert (rows[0], rows[-1]) == (FULL, NONE)


@torch.no_grad()
def test_every_configuration_is_the_formula() -> None:
    """y = (W + W∘A + B) x + W C + b + D∘b + E, element by element."""
    support = Support(3, 4, 2, torch.Generator().manual_seed(0))
    for index, parameter in enumerate(support.parameters()):
        parameter.normal_(generator=torch.Generator().manual_seed(index))
    weight, bias, x = torch.randn(4, 3), torch.randn(4), torch.randn(3)

    def entry(key: str, form: str, o: int, i: int) -> float:
        down, up = support.get_parameter(f"{key}_down"), support.get_parameter(f"{key}_up")
        low_rank = sum(float(down[o, k] * up[k, i]) for k in range(2))
        return {"low rank": low_rank, "vector": float(down[o, 0]), "scalar": float(down[0, 0]), "none": 0.0}[form]

    def element(value: torch.Tensor, form: str, o: int) -> float:
        return {"vector": float(value[o]), "scalar": float(value[0]), "none": 0.0}[form]

    for number in range(CONFIGURATIONS):
        chosen = configuration(number)
        form = {key: names[choice] for (key, names), choice in zip(CHOICES.items(), chosen, strict=True)}
        expected = [
            sum(
                (weight[o, i] * (1 + entry("a", form["A"], o, i)) + entry("b", form["B"], o, i)) * x[i]
                + weight[o, i] * entry("c", form["C"], i, 0)
                for i in range(3)
            )
            + bias[o] * (1 + element(support.d, form["D"], o))
            + element(support.e, form["E"], o)
            for o in range(4)
        ]
        of_weight, of_bias = support.update(weight, bias, chosen)
        y = (weight if of_weight is None else weight + of_weight) @ x + (bias if of_bias is None else bias + of_bias)
        assert torch.allclose(y, torch.stack([torch.as_tensor(value) for value in expected]), atol=1e-5), form


def test_each_step_samples_each_layer_and_evaluation_does_not() -> None:
    adapter = attached()[1]
    adapter.train(True)
    adapter.before_step(3, 0.0)
    first = [layer.configuration() for layer in adapter.layers.values()]
    adapter.before_step(4, 0.0)
    assert len(set(first)) > 4
    assert [layer.configuration() for layer in adapter.layers.values()] != first
    adapter.before_step(3, 0.0)
    assert [layer.configuration() for layer in adapter.layers.values()] == first
    adapter.train(False)
    assert {layer.configuration() for layer in adapter.layers.values()} == {FULL}


@pytest.mark.parametrize(("sampling", "steps"), [(False, 2), (True, 25)])
def test_every_tensor_gets_a_gradient(sampling: bool, steps: int) -> None:
    """Without sampling within two steps, as the down factors start at zero; with it once a path has sampled it."""
    model, adapter = attached(sampling=sampling)
    for name, value in model.named_parameters():
        if name.endswith("bias"):  # a new network's are zero, and D multiplies them
            nn.init.normal_(value, generator=torch.Generator().manual_seed(len(name)))
    head = model.get_submodule("head").requires_grad_(True)
    optimizer = torch.optim.SGD([*adapter.parameters().values(), *head.parameters()], lr=0.5)
    moved: set[str] = set()
    adapter.train(True)
    for step in range(steps):
        adapter.before_step(step, 0.0)
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
        moved |= {name for name, p in adapter.parameters().items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert moved == set(adapter.parameters())


@torch.no_grad()
def test_the_chosen_configuration_is_saved_and_merged() -> None:
    model, adapter = attached()
    filled(adapter)
    adapter.train(False)
    images = torch.randn(2, 3, 32, 32)
    numbers = torch.randint(CONFIGURATIONS, (8,), generator=torch.Generator().manual_seed(1)).tolist()
    adapter.choose([configuration(number) for number in numbers])
    assert adapter.state()["configuration.chosen"].tolist() == [list(configuration(number)) for number in numbers]
    expected = model(images)
    adapter.choose([NONE] * 8)
    frozen = model(images)
    assert not torch.allclose(frozen, expected)
    adapter.choose([configuration(number) for number in numbers])
    adapter.merge()
    assert torch.allclose(model(images), expected, atol=1e-4)


def test_a_wrong_choice_is_refused() -> None:
    adapter = attached()[1]
    with pytest.raises(ValueError, match="8 positions in CHOICES are needed"):
        adapter.choose([FULL] * 7)
    with pytest.raises(ValueError, match="8 positions in CHOICES are needed"):
        adapter.choose([(0, 0, 3, 0, 0)] * 8)


def test_the_full_configuration_uses_every_parameter() -> None:
    adapter = attached(rank=2)[1]
    assert adapter.count([FULL] * 8) == sum(p.numel() for p in adapter.parameters().values())
    assert adapter.count([NONE] * 8) == 0
    assert adapter.count([(3, 1, 2, 2, 1)] + [NONE] * 7) == 72 + 1  # a vector B and a scalar E of qkv


def test_the_search_finds_a_better_configuration_within_its_limit() -> None:
    """Objective: the share of tensors in vector form; random candidates have 0.28 on average, the bound leaves few."""
    adapter = attached()[1]
    evolution = Evolution(Search(8, 20, most_parameters=3000), adapter.space, seed=0)
    while (candidate := evolution.next()) is not None:
        adapter.space.choose(candidate)
        entries = [CHOICES[key][choice] for row in adapter.chosen for key, choice in zip(CHOICES, row, strict=True)]
        evolution.record(100 * entries.count("vector") / len(entries))
    adapter.space.settle(evolution.best.candidate)
    assert evolution.best.accuracy > 1.5 * evolution.mean(1)
    assert adapter.count(adapter.chosen) == evolution.best.parameters <= 3000
    adapter.train(True)
    adapter.before_step(0, 0.0)
    assert [layer.configuration() for layer in adapter.layers.values()] == list(adapter.chosen)  # nothing is sampled
    adapter.space.settle(None)
    adapter.before_step(0, 0.0)
    assert adapter.chosen == (FULL,) * 8
    assert len({layer.configuration() for layer in adapter.layers.values()}) > 4


def test_the_grid_names_the_forms_of_each_layer() -> None:
    adapter = attached()[1]
    adapter.choose([(3, 1, 2, 2, 1), *[FULL] * 7])
    grid = adapter.space.grid(tuple(choice for row in adapter.chosen for choice in row))
    assert len(grid) == 4 * 5
    assert grid["qkv A"] == [("none", 0.0), ("low rank", 1.0)]
    assert grid["qkv E"] == [("scalar", 0.5), ("vector", 1.0)]
    assert grid["fc2 C"] == [("low rank", 1.0), ("low rank", 1.0)]


def test_a_search_needs_sampled_paths() -> None:
    assert GLoRA().search is None
    assert GLoRA(search_generations=3).search == Search(3, 50)
    with pytest.raises(ConfigError, match="choose sampling=on or search_generations=0"):
        GLoRA(search_generations=3, sampling=False)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_configuration_that_does_not_exist_is_refused_when_it_is_loaded(number: int) -> None:
    _, adapter = attached()
    adapter.require_valid()
    adapter.state()["configuration.chosen"][1, 2] = number if number < 0 else len(CHOICES["C"])
    with pytest.raises(ValueError, match="no position in CHOICES"):
        adapter.require_valid()
