"""LoRA: its formula, its parts, its dropouts; DoRA; layer-wise ranks; equality with MLAE."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import with_texts
from mlae_lab.core.patterns import FIXED_COUNTS, dense
from mlae_lab.methods.adapter import Noise, attach
from mlae_lab.methods.dora import DoRA
from mlae_lab.methods.dora.layers import DecomposedUpdate
from mlae_lab.methods.layerwise import LayerWise
from mlae_lab.methods.lora import LoRA
from mlae_lab.methods.lora.layers import LowRankAdapter, LowRankUpdate
from mlae_lab.methods.mlae import MLAE
from tests.methods.test_contract import images, network, train


def layer(d_in: int = 6, d_out: int = 9) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(d_in, d_out).requires_grad_(False)


def filled(own: LowRankUpdate) -> LowRankUpdate:
    """With random factors."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        own.b.normal_(generator=generator)
    return own


def adapter_of(method: LoRA | DoRA | LayerWise) -> tuple[nn.Module, LowRankAdapter]:
    model = network()
    adapter = attach(model, method)
    model.get_submodule("head").requires_grad_(True)
    assert isinstance(adapter, LowRankAdapter)
    return model, adapter


def test_the_formula() -> None:
    base, x = layer(), torch.randn(2, 5, 6)
    own = filled(LowRankUpdate(base, 4, 0.5, 0, "l")).eval()
    expected = torch.einsum("oi,nti->nto", base.weight + 0.5 * torch.einsum("or,ri->oi", own.b, own.a), x) + base.bias
    assert torch.allclose(own(x, base), expected, atol=1e-6)
    assert own.norm(base) == pytest.approx(own.delta(base).norm().item(), rel=1e-6)


def test_q_and_v_are_two_updates_and_k_stays() -> None:
    base, x = layer(6, 9), torch.randn(5, 6)
    own = filled(LowRankUpdate(base, 2, 1.0, 0, "l", ((0, 3), (6, 9)))).eval()
    change = own(x, base) - base(x)
    assert torch.allclose(change[:, :3], x @ own.a[:2].t() @ own.b[:3].t(), atol=1e-6)
    assert torch.equal(change[:, 3:6], torch.zeros(5, 3))
    assert torch.allclose(change[:, 6:], x @ own.a[2:].t() @ own.b[3:].t(), atol=1e-6)


def test_alpha_is_rank_unless_given() -> None:
    assert (LoRA(rank=4).scale, LoRA(rank=4, alpha=8.0).scale) == (1, 2)


@pytest.mark.parametrize("place", ["input", "update", "token", "sample"])
def test_dropout_acts_where_it_says_and_keeps_the_mean(place: str) -> None:
    base, noise = layer(), Noise(0)
    own = filled(LowRankUpdate(base, 3, 1.0, 0, "l", noise=noise, dropout=0.5, dropout_on=place))
    x = torch.randn(1, 1, 6).expand(2, 4, 6).contiguous()  # equal tokens and images
    own.train()
    with torch.no_grad():
        samples = []
        for step in range(400):
            noise.start(step)
            samples.append(own(x, base))
        out = samples[0]
        own.eval()
        expected = own(x, base)
    assert not torch.allclose(out, expected)
    assert torch.allclose(torch.stack(samples).mean((0, 1, 2)), expected[0, 0], atol=0.5)
    tokens_equal, images_equal = torch.allclose(out[0, 0], out[0, 1]), torch.allclose(out[0], out[1])
    assert (tokens_equal, images_equal) == {"update": (True, True), "sample": (True, False)}.get(place, (False, False))


def test_the_same_step_samples_the_same_dropout() -> None:
    base, noise, x = layer(), Noise(0), torch.randn(3, 4, 6)
    own = filled(LowRankUpdate(base, 3, 1.0, 0, "l", noise=noise, dropout=0.5)).train()
    noise.start(7)
    first = own(x, base)
    noise.start(7)
    assert torch.equal(own(x, base), first)


def test_lora_is_mlae_with_p_0_and_lambda_1_step_for_step() -> None:
    """Equal seed, equal A, equal numbers in every step, bit for bit."""
    plan = replace(dense(12, 8), train_coefficients=False)
    masked, lora = network(), network()
    experts, updates = attach(masked, MLAE(plan), 3), attach(lora, LoRA(rank=8), 3)
    for model in (masked, lora):
        model.get_submodule("head").requires_grad_(True)
    a = {name.removesuffix(".a"): p for name, p in experts.parameters().items() if name.endswith(".a")}
    for name, p in a.items():
        assert torch.equal(p, updates.parameters()[f"{name}.a"])
    train(masked, experts, range(4))
    train(lora, updates, range(4))
    for name, p in updates.parameters().items():
        assert torch.equal(p, experts.parameters()[name]), name
    assert torch.equal(masked(images()), lora(images()))


def test_no_dropout_of_the_frozen_layer() -> None:
    """Input dropout acts on the update only: with B = 0 the output stays that of the frozen layer in training."""
    base, noise, x = layer(), Noise(0), torch.randn(3, 6)
    for own in (
        LowRankUpdate(base, 3, 1.0, 0, "l", noise=noise, dropout=0.5),
        DecomposedUpdate(base, DoRA(dropout=0.5), 0, "l", noise),
    ):
        noise.start(0)
        assert torch.equal(own.train()(x, base), base(x))


# ---------------------------------------------------------------- DoRA


def test_doras_formula_and_its_row_norms() -> None:
    base, x = layer(), torch.randn(5, 6)
    own = DecomposedUpdate(base, DoRA(rank=3, alpha=6.0), 0, "l", Noise(0))
    filled(own)
    with torch.no_grad():
        own.magnitude.mul_(1.5)
    direction = base.weight + 2 * own.b @ own.a
    weight = own.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    assert torch.allclose(own.eval()(x, base), F.linear(x, weight, base.bias), atol=1e-5)
    assert torch.allclose((base.weight + own.delta(base)).norm(dim=1), own.magnitude, atol=1e-5)


def test_no_gradient_flows_through_doras_norm() -> None:
    """d y / d B with the norm as a constant (the paper's section 4.3)."""
    base, x = layer(), torch.randn(5, 6)
    own = DecomposedUpdate(base, DoRA(rank=3), 0, "l", Noise(0))
    filled(own)
    own(x, base).square().sum().backward()
    assert own.b.grad is not None
    b = own.b.detach().requires_grad_(True)
    direction = base.weight + b @ own.a.detach()
    ratio = (own.magnitude / direction.norm(dim=1)).detach()
    F.linear(x, ratio[:, None] * direction, base.bias).square().sum().backward()
    assert b.grad is not None
    assert torch.allclose(own.b.grad, b.grad, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- layer-wise ranks


def test_ranks_by_depth() -> None:
    assert LayerWise().ranks(12) == (2, 2, 2, 4, 4, 4, 6, 6, 6, 8, 8, 8)
    assert LayerWise(pattern="8228", expert_rank=2).ranks(4) == (16, 4, 4, 16)
    assert LayerWise(pattern="incremental").ranks(12) == FIXED_COUNTS["incremental"]
    assert [LayerWise(pattern="incremental").ranks(24)[i] for i in (0, 1, 22, 23)] == [2, 2, 14, 14]
    assert sum(LayerWise(pattern="incremental").ranks(12)) == 96


def test_layers_have_the_ranks_of_the_pattern() -> None:
    _, adapter = adapter_of(LayerWise(pattern="decremental"))
    assert adapter.statistics()["rank"][1] == tuple(map(float, FIXED_COUNTS["decremental"]))


def test_layerwise_of_one_rank_is_lora() -> None:
    """The row of block 0 in 2882 has rank 2: its update starts as LoRA's of rank 2 there."""
    _, adapter = adapter_of(LayerWise(pattern="2882"))
    _, lora = adapter_of(LoRA(rank=2))
    assert torch.equal(adapter.updates["blocks.0.attn.qkv"].a, lora.updates["blocks.0.attn.qkv"].a)


def test_settings_from_texts() -> None:
    method = with_texts(LoRA, ["rank=4", "targets=q+v", "dropout=0.1", "dropout_on=token"])
    assert method == LoRA(rank=4, targets="q+v", dropout=0.1, dropout_on="token")
