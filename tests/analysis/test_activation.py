"""Contributions of experts, compared with vectors computed one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlae_lab.analysis.activation import Contribution, by_class, by_image, by_token, on_canvas, recording
from mlae_lab.core.patterns import allocation, uniform
from mlae_lab.model.experts import MLAELinear
from mlae_lab.model.inject import inject


def make_layer(rank: int, bias: bool = True, seed: int = 0) -> MLAELinear:
    rng = torch.Generator().manual_seed(seed)
    layer = MLAELinear(nn.Linear(6, 4, bias=bias), (0, 2, 3), (0.5,) * 3, rank)
    with torch.no_grad():
        for p in (*layer.base.parameters(), layer.b, layer.coefficient):
            p.copy_(torch.randn(p.shape, generator=rng))
    return layer


def by_hand(layer: MLAELinear, tokens: Tensor) -> list[float]:
    """Mean over tokens of ‖λ_i B_i A_i x‖ / ‖W x + bias‖, one token and one matrix at a time, in float64."""
    result = []
    for i in range(3):
        own = slice(i * layer.rank, (i + 1) * layer.rank)
        matrix = layer.coefficient[i].double() * layer.b[:, own].double() @ layer.a[own].double()
        shares = []
        for x in tokens.double():
            y = layer.base.weight.double() @ x
            if layer.base.bias is not None:
                y = y + layer.base.bias.double()
            shares.append(float((matrix @ x).norm() / y.norm()))
        result.append(sum(shares) / len(shares))
    return result


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_contribution_equals_the_formula(rank: int, bias: bool) -> None:
    layer, tokens = make_layer(rank, bias), torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    contribution = Contribution()
    contribution.add("here", layer, tokens)
    assert contribution.means["here"].tolist() == pytest.approx(by_hand(layer, tokens), rel=1e-4)


@torch.no_grad()
def test_batches_of_any_size_and_shape_count_by_their_tokens() -> None:
    layer, tokens = make_layer(2), torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    contribution = Contribution()
    contribution.add("here", layer, tokens[:10].reshape(5, 2, 6))
    contribution.add("here", layer, tokens[10:11])
    contribution.add("here", layer, tokens[11])
    assert contribution.means["here"].tolist() == pytest.approx(by_hand(layer, tokens), rel=1e-4)


@torch.no_grad()
def test_the_mask_of_the_last_step_and_the_sign_of_lambda_do_not_matter() -> None:
    layer, tokens = make_layer(1), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    means = []
    for mask, sign in ((None, 1), (torch.zeros(3), 1), (torch.full((3,), 4.0), -1)):
        layer.mask = mask
        layer.coefficient.mul_(sign)
        contribution = Contribution()
        contribution.add("here", layer, tokens)
        means.append(contribution.means["here"].tolist())
    assert means[0] == means[1] == means[2]


@torch.no_grad()
def test_new_experts_add_nothing() -> None:
    layer = MLAELinear(nn.Linear(6, 4), (0, 1), (0.0, 0.0))
    contribution = Contribution()
    contribution.add("here", layer, torch.randn(3, 6))
    assert contribution.means["here"].tolist() == [0, 0]


# ---------------------------------------------------------------- recording


def test_recording_reads_layer_inputs_and_leaves_the_network_unchanged(
    small_vit: Callable[..., VisionTransformer],
) -> None:
    model = small_vit()
    experts = inject(model, allocation((3, 0, 2)))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in experts.layers.values():
            layer.b.copy_(torch.randn(layer.b.shape, generator=rng))
    model.eval()
    x = torch.randn(2, 3, 32, 32, generator=rng)
    plain = model(x)
    inputs_of = {}
    watch = model.blocks[2].attn.qkv.register_forward_pre_hook(lambda module, inputs: inputs_of.update(x=inputs[0]))
    with recording(experts.layers) as contribution:
        assert torch.equal(model(x), plain)
    watch.remove()
    assert set(contribution.means) == {"blocks.0.attn.qkv", "blocks.2.attn.qkv"}
    assert [len(values) for values in contribution.means.values()] == [3, 2]
    again = Contribution()
    again.add("blocks.2.attn.qkv", experts.layers["blocks.2.attn.qkv"], inputs_of["x"])
    assert torch.equal(again.means["blocks.2.attn.qkv"], contribution.means["blocks.2.attn.qkv"])
    assert not any(module._forward_pre_hooks for module in model.modules())
    model(x)
    assert torch.equal(again.means["blocks.2.attn.qkv"], contribution.means["blocks.2.attn.qkv"])  # recording has ended


def test_hooks_are_removed_if_the_forward_pass_fails(small_vit: Callable[..., VisionTransformer]) -> None:
    model = small_vit()
    experts = inject(model, uniform(0.5, 3, 2))
    model.train()
    with pytest.raises(RuntimeError, match="this step has no mask"), recording(experts.layers):
        model(torch.zeros(1, 3, 32, 32))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_without_experts_there_is_nothing_to_record() -> None:
    with recording({}) as contribution:
        pass
    assert contribution.means == {}


# ---------------------------------------------------------------- by image, by class


@torch.no_grad()
def test_contributions_by_image_and_class_and_live_mean_agree(
    small_vit: Callable[..., VisionTransformer],
) -> None:
    model = small_vit()
    experts = inject(model, allocation((3, 0, 2)))
    rng = torch.Generator().manual_seed(0)
    for layer in experts.layers.values():
        layer.b.copy_(torch.randn(layer.b.shape, generator=rng))
    model.eval()
    x = torch.randn(5, 3, 32, 32, generator=rng)
    labels = torch.tensor([2, 0, 2, 2, 0])
    with recording(experts.layers) as live:
        model(x)
    images = by_image(model, x, experts.layers)
    canvas = on_canvas(experts.plan, experts.layers, images)
    assert canvas.shape == (5, 3, 3)
    assert canvas.isnan().any(0).tolist() == [[False] * 3, [True] * 3, [False, False, True]]
    inputs_of = {}
    watch = model.blocks[2].attn.qkv.register_forward_pre_hook(lambda module, inputs: inputs_of.update(x=inputs[0]))
    model(x)
    watch.remove()
    layer = experts.layers["blocks.2.attn.qkv"]
    for p in range(5):
        contributions = by_token(layer, inputs_of["x"][p])
        assert torch.allclose(canvas[p, 2, :2], contributions.mean(0), rtol=1e-6)
    for target, mean in live.means.items():  # every image has as many tokens
        assert torch.allclose(images[target].mean(0), mean, rtol=1e-6)
        assert torch.equal(images[target], live.images[target])
    classes = by_class(canvas, labels, 4)
    assert torch.allclose(classes[0, 0], (canvas[1, 0] + canvas[4, 0]) / 2)
    assert torch.allclose(classes[2, 2, :2], canvas[[0, 2, 3], 2, :2].mean(0))
    assert classes[[1, 3]].isnan().all()
    assert classes[:, 1].isnan().all()
    assert not any(module._forward_pre_hooks for module in model.modules())
