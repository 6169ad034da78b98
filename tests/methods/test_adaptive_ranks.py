"""AdaLoRA and IncreLoRA: penalty, importance, schedule and allocation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adalora import AdaLoRA
from mlae_lab.methods.adalora.layers import AllocatedRanks, SingularValueUpdate, orthogonality
from mlae_lab.methods.adapter import attach
from mlae_lab.methods.increlora import IncreLoRA
from mlae_lab.methods.increlora.layers import RESERVE, GrowingRanks
from tests.methods.test_contract import VIT_B16, images, network, train


def step_of(adapter: AllocatedRanks | GrowingRanks, progress: float, gradients: bool = True, step: int = 0) -> None:
    """One step without an optimizer: random gradients of the trained tensors."""
    generator = torch.Generator().manual_seed(int(progress * 1000))
    for p in adapter.parameters().values():
        p.grad = torch.randn(p.shape, generator=generator) if gradients else torch.zeros_like(p)
    adapter.after_backward(step, progress)
    adapter.after_step(step, progress)


def pruned_adapter(method: AdaLoRA) -> AllocatedRanks:
    adapter = attach(network(), method)
    assert isinstance(adapter, AllocatedRanks)
    with torch.no_grad():
        for own in adapter.updates.values():
            own.e.fill_(1.0)
    return adapter


# ---------------------------------------------------------------- AdaLoRA


def test_the_published_budget_is_mlaes() -> None:
    assert AdaLoRA().parameters(VIT_B16) == 442_512
    assert AdaLoRA().final_parameters(VIT_B16) == 295_008


def test_singular_values_by_hand() -> None:
    base = nn.Linear(6, 9).requires_grad_(False)
    own = SingularValueUpdate(base, 3, 0.5, 0, "l").eval()
    with torch.no_grad():
        own.e.copy_(torch.tensor([1.0, -2.0, 3.0]))
    x = torch.randn(4, 6)
    expected = x @ (base.weight + 0.5 * own.b @ torch.diag(own.e) @ own.a).t() + base.bias
    assert torch.allclose(own(x, base), expected, atol=1e-6)


def test_the_penalty_by_hand() -> None:
    base = nn.Linear(6, 9)
    updates = [SingularValueUpdate(base, 3, 1.0, seed, "l") for seed in (0, 1)]
    norms = []
    for own in updates:
        norms += [(own.a @ own.a.t() - torch.eye(3)).norm(), (own.b.t() @ own.b - torch.eye(3)).norm()]
    assert torch.allclose(orthogonality(updates), torch.stack(norms).mean())


def test_the_budget_falls_by_a_cubic_curve() -> None:
    method = AdaLoRA(warmup=0.1, final=0.3)
    assert [method.budget(p, 12) for p in (0.0, 0.1, 0.4, 0.7, 0.99)] == [144, 144, 96 + 48 // 8, 96, 96]
    budgets = [method.budget(p / 100, 12) for p in range(100)]
    assert budgets == sorted(budgets, reverse=True)


def test_the_least_important_terms_become_zero_and_may_return_until_ranks_are_final() -> None:
    adapter = pruned_adapter(AdaLoRA(interval=0.1, final=0.25))
    step_of(adapter, 0.05)
    assert all(own.kept.all() for own in adapter.updates.values())
    step_of(adapter, 0.55)
    scores, kept = torch.cat(list(adapter.scores().values())), torch.cat([own.kept for own in adapter.updates.values()])
    assert int(kept.sum()) == adapter.method.budget(0.55, 12) < 144
    assert scores[kept].min() >= scores[~kept].max()
    e = torch.cat([own.e for own in adapter.updates.values()])
    assert torch.equal(e != 0, kept)
    with torch.no_grad():
        for own in adapter.updates.values():
            own.e.fill_(1.0)
    step_of(adapter, 0.58)  # within the interval: a zeroed λ learns on
    assert all((own.e != 0).all() for own in adapter.updates.values())
    step_of(adapter, 0.76)
    assert sum(int(own.kept.sum()) for own in adapter.updates.values()) == 96
    final = [own.kept.clone() for own in adapter.updates.values()]
    with torch.no_grad():
        for own in adapter.updates.values():
            own.e.fill_(1.0)
    step_of(adapter, 0.9)
    for own, kept in zip(adapter.updates.values(), final, strict=True):
        assert torch.equal(own.kept, kept)
        assert torch.equal(own.e != 0, kept)
    ranks = adapter.statistics()["rank"][1]
    assert isinstance(ranks, tuple)
    assert ranks == tuple(float(kept.sum()) for kept in final)


def test_importance_by_hand() -> None:
    """Ī = 0.85 Ī + 0.15 |w g|, Ū = 0.85 Ū + 0.15 ||w g| − Ī|; score = Ī Ū of λ, and the mean of it over q and p."""
    adapter = pruned_adapter(AdaLoRA())
    importance, deviation = {}, {}
    for progress in (0.01, 0.02):
        step_of(adapter, progress)
        for name, p in adapter.parameters().items():
            assert p.grad is not None
            now = (p * p.grad).abs()
            importance[name] = 0.85 * importance.get(name, 0) + 0.15 * now
            deviation[name] = 0.85 * deviation.get(name, 0) + 0.15 * (now - importance[name]).abs()
    name = "blocks.3.attn.qkv"
    s = {part: importance[f"{name}.{part}"] * deviation[f"{name}.{part}"] for part in "eab"}
    assert torch.allclose(adapter.scores()[name], s["e"] + s["a"].mean(1) + s["b"].mean(0), rtol=1e-4)


def test_ranks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not be larger"):
        AdaLoRA(rank=16)
    with pytest.raises(ConfigError, match="below 1"):
        AdaLoRA(warmup=0.5, final=0.5)
    with pytest.raises(ConfigError, match="must not be larger"):
        IncreLoRA(rank=32)
    with pytest.raises(ConfigError, match="later than it begins"):
        IncreLoRA(warmup=0.7)


# ---------------------------------------------------------------- IncreLoRA


def growing(method: IncreLoRA) -> GrowingRanks:
    adapter = attach(network(), method)
    assert isinstance(adapter, GrowingRanks)
    return adapter


def test_ranks_grow_to_the_budget_and_shapes_stay() -> None:
    adapter = growing(IncreLoRA())
    shapes = {name: p.shape for name, p in adapter.parameters().items()}
    totals = []
    for percent in range(0, 100, 5):
        step_of(adapter, percent / 100)
        totals.append(sum(own.active for own in adapter.updates.values()))
    assert totals[0] == 12
    assert totals == sorted(totals)
    assert totals[-1] == 96
    assert totals[12] == 96  # at 60 %
    assert len({own.active for own in adapter.updates.values()}) > 1  # the scores decide
    assert {name: p.shape for name, p in adapter.parameters().items()} == shapes
    assert not any(own.reserve.any() for own in adapter.updates.values())
    assert IncreLoRA().final_parameters(VIT_B16) == 295_008


def test_a_layer_stops_at_its_largest_rank() -> None:
    adapter = growing(IncreLoRA(rank=3, max_rank=3, growth=2))
    for percent in range(0, 100, 10):
        step_of(adapter, percent / 100)
    assert [own.active for own in adapter.updates.values()] == [3] * 12


def test_the_layers_with_the_highest_scores_grow_first() -> None:
    adapter = growing(IncreLoRA(layers_per_round=1))
    chosen = "blocks.5.attn.qkv"
    with torch.no_grad():
        adapter.updates[chosen].e[0] = 1.0
    for p in adapter.parameters().values():
        p.grad = torch.ones_like(p)
    adapter.after_backward(0, 0.11)
    adapter.after_step(0, 0.11)
    assert {name: own.active for name, own in adapter.updates.items() if own.active > 1} == {chosen: 2}


def test_only_active_terms_and_the_reserve_act() -> None:
    adapter = growing(IncreLoRA(growth=2))
    own, base = adapter.updates["blocks.0.attn.qkv"], adapter.bases["blocks.0.attn.qkv"]
    with torch.no_grad():
        own.e.fill_(0.5)
    own.grow(2)
    delta = own.delta(base)
    active = own.b[:, :3] @ torch.diag(own.e[:3]) @ own.a[:3]
    reserve = RESERVE * own.b[:, 3:5] @ own.a[3:5]
    assert torch.allclose(delta, 8 / 3 * (active + reserve), atol=1e-8)


def test_the_reserve_learns_while_its_lambda_is_held() -> None:
    model = network()
    adapter = attach(model, IncreLoRA(orthogonality=0.0))
    model.get_submodule("head").requires_grad_(True)
    assert isinstance(adapter, GrowingRanks)
    own = adapter.updates["blocks.0.attn.qkv"]
    before = {part: getattr(own, part).detach().clone() for part in ("a", "b", "e")}
    train(model, adapter, range(1))
    moved = [(getattr(own, part) != before[part]) for part in ("a", "b", "e")]
    assert moved[0][1].any()
    assert moved[1][:, 1].any()
    assert moved[2][0]
    assert torch.allclose(own.e[1:], before["e"][1:], rtol=1e-3)


def test_a_loaded_adapter_has_its_ranks() -> None:
    """Which terms are active is part of the state, as it decides the output."""
    first, second = growing(IncreLoRA()), growing(IncreLoRA())
    with torch.no_grad():
        for own in first.updates.values():
            own.e.fill_(0.1)
    for percent in range(0, 60, 5):
        step_of(first, percent / 100)
    with torch.no_grad():
        for name, value in second.state().items():
            value.copy_(first.state()[name])
        assert torch.equal(second.model(images()), first.model(images()))
    assert first.method.parameters(catalog.backbone("lab_vit_12x128")) == 16 * 12 * (128 + 384 + 1)
