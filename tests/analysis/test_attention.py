"""Maps of experts and attention, compared with explicit matrices per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlae_lab.analysis import attention
from mlae_lab.core.patterns import allocation, fitted, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.experts import experts_off
from mlae_lab.model.inject import Experts, inject

TOKENS = 17  # of small_vit: a class token and 4 x 4 patches


def trained(model: nn.Module, plan: MaskPlan, seed: int = 0) -> Experts:
    """Experts with random b and λ."""
    experts = inject(model, plan)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in experts.layers.values():
            layer.eval()
            layer.b.copy_(torch.randn(layer.b.shape, generator=rng))
            layer.coefficient.copy_(torch.randn(layer.coefficient.shape, generator=rng))
    model.eval()
    return experts


def images(count: int = 2, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def by_hand(model: VisionTransformer, x: Tensor) -> list[list[Tensor]]:
    """Attention of every block, mean over heads, computed per image and head."""
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    result = []
    for block in model.blocks:
        entering = block.norm1(tokens)
        qkv = block.attn.qkv(entering)
        width, heads = entering.shape[-1], block.attn.num_heads
        size = width // heads
        of_images = []
        for row in qkv:
            total = torch.zeros(len(row), len(row))
            for head in range(heads):
                q = row[:, head * size : (head + 1) * size]
                k = row[:, width + head * size : width + (head + 1) * size]
                total += torch.softmax(q @ k.T / size**0.5, dim=1)
            of_images.append(total / heads)
        result.append(of_images)
        tokens = block(tokens)
    return result


@pytest.fixture
def network(small_vit: Callable[..., VisionTransformer]) -> tuple[VisionTransformer, Experts]:
    model = small_vit()
    return model, trained(model, allocation((3, 0, 2)))


# ---------------------------------------------------------------- feature maps


@pytest.mark.parametrize("rank", [1, 2])
@torch.no_grad()
def test_expert_map_is_what_the_expert_adds_at_each_patch(
    rank: int, small_vit: Callable[..., VisionTransformer]
) -> None:
    model = small_vit()
    experts = trained(model, replace(uniform(0.5, 3, 2), expert_rank=rank))
    model.double()  # float32 sums in another order differ by 1e-4 where the terms cancel
    target, x = "blocks.1.attn.qkv", images().double()
    block_inputs = []
    hook = model.get_submodule(target).register_forward_pre_hook(lambda module, inputs: block_inputs.append(inputs[0]))
    plain = model(x)
    hook.remove()
    result = attention.expert_maps(model, target, x)
    layer = experts.layers[target]
    for p in range(2):
        for i in range(2):
            own = slice(i * rank, (i + 1) * rank)
            matrix = layer.coefficient[i] * layer.b[:, own] @ layer.a[own]
            for patch in range(16):
                vector = matrix @ block_inputs[0][p, 1 + patch]
                assert float(result.added[p, i, patch // 4, patch % 4]) == pytest.approx(float(vector.norm()), rel=1e-9)
                if rank == 1:
                    along = vector @ layer.b[:, i] / layer.b[:, i].norm()
                    assert float(result.signed[p, i, patch // 4, patch % 4]) == pytest.approx(
                        float(along), rel=1e-9, abs=1e-12
                    )
    assert (result.signed is None) == (rank > 1)
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize(
    ("name", "target", "grid"),
    [
        ("mixer_s32_224", "blocks.0.mlp_channels.fc1", (7, 7)),
        ("convnext_tiny", "stages.0.blocks.0.mlp.fc1", (56, 56)),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.mlp.fc1", (56, 56)),
    ],
)
def test_expert_maps_need_patches_not_attention(name: str, target: str, grid: tuple[int, int]) -> None:
    model = timm.create_model(name, num_classes=3).eval()
    trained(model, fitted(uniform(0.5, 1, 2), (target,)))
    result = attention.expert_maps(model, target, images(1, 224))
    assert result.added.shape == (1, 2, *grid)
    assert 0 <= result.added.min() < result.added.max()
    with pytest.raises(attention.NoMap, match="no attention map and no rollout"):
        attention.attention_of(model, images(1, 224))


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("mixer_s32_224", "blocks.0.mlp_tokens.fc1", "mixes the patches of one channel"),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.1.attn.qkv", "works in windows"),
    ],
)
def test_experts_without_a_position_in_the_image_raise(name: str, target: str, why: str) -> None:
    model = timm.create_model(name, num_classes=3).eval()
    trained(model, fitted(uniform(0.5, 1, 2), (target,)))
    with pytest.raises(attention.NoMap, match=why):
        attention.expert_maps(model, target, images(1, 224))


# ---------------------------------------------------------------- attention


@torch.no_grad()
def test_attention_equals_the_formula(network: tuple[VisionTransformer, Experts]) -> None:
    model, _ = network
    x = images()
    for block, truth in zip(attention.attention_of(model, x), by_hand(model, x), strict=True):
        for row, expected in zip(block, truth, strict=True):
            assert torch.allclose(row, expected, atol=1e-6)
            assert torch.allclose(row.sum(1), torch.ones(TOKENS), atol=1e-5)


@torch.no_grad()
def test_rollout_equals_the_row_of_the_full_product(network: tuple[VisionTransformer, Experts]) -> None:
    model, _ = network
    x = images()
    result = attention.rollout(model, attention.attention_of(model, x))
    truth = by_hand(model, x)
    for p in range(2):
        product = torch.eye(TOKENS)
        for block in truth:
            product = (block[p] + torch.eye(TOKENS)) / 2 @ product
        assert torch.allclose(result[p].flatten(), product[0, 1:], atol=1e-6)
        assert torch.allclose(product.sum(1), torch.ones(TOKENS), atol=1e-5)


@torch.no_grad()
def test_registers_are_left_out_and_mean_pooling_reads_all_patches() -> None:
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    registers = VisionTransformer(**shape, reg_tokens=4).eval()
    mean = VisionTransformer(**shape, class_token=False, global_pool="avg", reg_tokens=2).eval()
    x = images()
    for model, first in ((registers, 5), (mean, 2)):
        matrices = attention.attention_of(model, x)
        assert matrices[0].shape == (2, 16 + first, 16 + first)
        product = torch.eye(16 + first)
        for matrix in matrices:
            product = (matrix[0] + torch.eye(16 + first)) / 2 @ product
        rows = product[:1] if model is registers else product[first:]
        expected = rows.mean(0)[first:]
        assert torch.allclose(attention.rollout(model, matrices)[0].flatten(), expected, atol=1e-6)
    assert "class token" in attention.reader_in_words(registers)
    assert "equal weight" in attention.reader_in_words(mean)


@torch.no_grad()
def test_expert_alone_equals_a_block_without_the_other_experts(
    network: tuple[VisionTransformer, Experts], small_vit: Callable[..., VisionTransformer]
) -> None:
    model, experts = network
    x, target = images(), "blocks.2.attn.qkv"
    result = attention.block_attention(model, experts.layers, target, x)
    patches = {name: getattr(result, name).flatten(-2) for name in ("trained", "frozen", "none")}
    assert torch.allclose(patches["trained"][0], by_hand(model, x)[2][0][0, 1:], atol=1e-6)
    assert torch.allclose(patches["frozen"][1], by_hand(small_vit(), x)[2][1][0, 1:], atol=1e-6)
    before = experts.layers[target].coefficient.clone()
    for i in range(2):
        experts.layers[target].coefficient[1 - i] = 0
        assert torch.allclose(result.alone[0, i].flatten(), by_hand(model, x)[2][0][0, 1:], atol=1e-6)
        experts.layers[target].coefficient.copy_(before)
    experts.layers[target].coefficient.zero_()
    assert torch.allclose(patches["none"][0], by_hand(model, x)[2][0][0, 1:], atol=1e-6)
    assert not torch.allclose(result.alone[:, 0], result.alone[:, 1])


@pytest.mark.parametrize("fails", [False, True])
def test_network_is_left_unchanged(fails: bool, network: tuple[VisionTransformer, Experts]) -> None:
    model, experts = network
    for number, block in enumerate(model.blocks):
        block.attn.fused_attn = number != 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = images(2, 40 if fails else 32)  # 40 pixels: the patch embedding refuses in the middle of the pass
    plain = model(images())

    def look() -> None:
        attention.expert_maps(model, "blocks.0.attn.qkv", x)

    def roll() -> None:
        with experts_off(experts.layers):
            attention.rollout(model, attention.attention_of(model, x))

    def block() -> None:
        attention.block_attention(model, experts.layers, "blocks.2.attn.qkv", x)

    for ask in (look, roll, block):
        if fails:
            with pytest.raises(AssertionError):
                ask()
        else:
            ask()
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert [b.attn.fused_attn for b in model.blocks] == [True, False, True]
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
        assert not any(m.training for m in model.modules())
        assert torch.equal(model(images()), plain)


def test_experts_after_the_attention_are_refused(small_vit: Callable[..., VisionTransformer]) -> None:
    model = small_vit()
    target = "blocks.1.mlp.fc1"
    experts = trained(model, fitted(uniform(0.5, 1, 2), (target,)))
    with pytest.raises(attention.NoMap, match="does not make queries and keys"):
        attention.block_attention(model, experts.layers, target, images())
    assert attention.expert_maps(model, target, images()).added.shape == (2, 2, 4, 4)


def test_tokens_that_form_no_grid_are_refused(small_vit: Callable[..., VisionTransformer]) -> None:
    with pytest.raises(attention.NoMap, match="form no grid"):
        attention.grid_of(small_vit(), 12)
    assert attention.grid_of(small_vit(), TOKENS) == (4, 4)
