"""GLoRA: every configuration against the formula, sampling, and the search."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from mlae_lab.methods.adapter import attach
from mlae_lab.methods.glora import CHOICES, GLoRA
from mlae_lab.methods.glora.layers import CONFIGURATIONS, FULL, GeneralLoRA, Support, configuration
from mlae_lab.methods.glora.search import search

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
    """Objective: the share of tensors that are absent. Random candidates have 0.28 on average."""
    adapter = attached()[1]
    evaluations = 0

    def absent() -> float:
        nonlocal evaluations
        evaluations += 1
        entries = [choice == none for row in adapter.chosen for choice, none in zip(row, NONE, strict=True)]
        return sum(entries) / len(entries)

    sizes = {"population": 20, "parents": 5, "mutations": 8, "crossovers": 8}
    first = search(adapter, absent, generations=1, **sizes)[0]
    best = search(adapter, absent, generations=12, **sizes)
    assert best[0].accuracy > first.accuracy + 0.1
    assert adapter.chosen == best[0].candidate
    assert len(best) == 5
    assert evaluations <= 13 * 20
    assert search(adapter, absent, generations=12, **sizes) == best  # equal seeds, equal search
    small = search(adapter, absent, generations=3, most_parameters=1500, **sizes)
    assert all(ranked.parameters == adapter.count(ranked.candidate) <= 1500 for ranked in small)
    with pytest.raises(ValueError, match="at most 1 parameters: allow more"):
        search(adapter, absent, generations=1, most_parameters=1, **sizes)
    assert adapter.chosen == small[0].candidate


@pytest.mark.parametrize("number", [-1, 3])
def test_a_configuration_that_does_not_exist_is_refused_when_it_is_loaded(number: int) -> None:
    _, adapter = attached()
    adapter.require_valid()
    adapter.state()["configuration.chosen"][1, 2] = number if number < 0 else len(CHOICES["C"])
    with pytest.raises(ValueError, match="no position in CHOICES"):
        adapter.require_valid()
