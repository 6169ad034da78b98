"""Convpass: the bypass with torch's convolution layers, its place, its start."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from mlae_lab.methods.adapter import AttachError
from tests.methods.small import WIDTH, images, put, small, steps


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def bypass(h: torch.Tensor, own: dict[str, torch.Tensor], prefix: int, size: int) -> torch.Tensor:
    """Three convolution layers over the map of patches, and over each prefix token as a map of 1 x 1."""
    down, middle, up = nn.Conv2d(WIDTH, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, WIDTH, 1)
    for layer, weight, bias in ((down, "down.weight", "down.bias"), (middle, "kernel", "bias"),
                                (up, "up.weight", "up.bias")):  # fmt: skip
        layer.weight.copy_(own[weight].reshape(layer.weight.shape))
        assert layer.bias is not None
        layer.bias.copy_(own[bias])

    def mapped(tokens: torch.Tensor, side: int) -> torch.Tensor:
        image = tokens.mT.reshape(len(tokens), WIDTH, side, side)
        return up(quick_gelu(middle(quick_gelu(down(image))))).flatten(2).mT

    start = [mapped(h[:, i : i + 1], 1) for i in range(prefix)]
    return torch.cat([*start, mapped(h[:, prefix:], size)], 1)


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 4), ({"class_token": False, "global_pool": "avg", "img_size": 40}, 5),
     ({"reg_tokens": 2, "init_values": 0.5}, 4)],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_bypasses_are_parallel_to_attention_and_mlp(options: dict[str, Any], size: int) -> None:
    model = small(**options)
    frozen = deepcopy(model)
    tensors = put(model, "convpass", "scale=0.5").state()
    x = frozen._pos_embed(frozen.patch_embed(images(8 * size)))
    for i, block in enumerate(frozen.blocks):
        for norm, branch, scale in ((block.norm1, "attn", block.ls1), (block.norm2, "mlp", block.ls2)):
            name, h = f"blocks.{i}.{branch}.", norm(x)
            own = {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}
            x = x + scale(block.get_submodule(branch)(h)) + 0.5 * bypass(h, own, frozen.num_prefix_tokens, size)
    expected = frozen.forward_head(frozen.norm(x))
    assert torch.allclose(model(images(8 * size)), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_convolution_starts_as_the_identity() -> None:
    own: Any = put(small(), "convpass", fill=False)._modules["blocks.0.attn"]
    x = torch.randn(2, 17, 8)
    assert torch.allclose(own.convolved(x), x)
    other: Any = put(small(), "convpass", "initialisation=xavier", fill=False)._modules["blocks.0.attn"]
    assert float(other.kernel.std()) == pytest.approx((2 / (2 * 9 * 8)) ** 0.5, rel=0.1)
    assert not any(part.any() for part in (own.up.weight, own.up.bias, own.down.bias, own.bias))


def test_attention_only() -> None:
    model = small()
    adapter = put(model, "convpass", "place=attention", fill=False)
    assert {name.split(".")[2] for name in adapter.parameters()} == {"attn"}
    assert steps(model, adapter) == set(adapter.parameters())


def test_a_map_that_is_not_square_is_refused() -> None:
    with pytest.raises(AttachError, match="no square map of tokens"):
        put(small(img_size=(32, 48)), "convpass")
