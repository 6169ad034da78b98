"""Adapter, Adapter+ and AdaptFormer: the formulas written out, initial values, and the adapter that does not learn."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import ResPostBlock

from mlae_lab.core.method import method, settings_of
from mlae_lab.methods.branches import _RECORDED
from tests.methods.small import WIDTH, images, put, small, steps

Tensors = dict[str, torch.Tensor]


def bottleneck(x: torch.Tensor, tensors: Tensors, name: str, activation: Any) -> torch.Tensor:
    """W_u act(W_d x + b_d) + b_u."""
    hidden = torch.einsum("ntd,hd->nth", x, tensors[f"{name}.down.weight"]) + tensors[f"{name}.down.bias"]
    return torch.einsum("nth,dh->ntd", activation(hidden), tensors[f"{name}.up.weight"]) + tensors[f"{name}.up.bias"]


def start_of(model: Any) -> torch.Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(images())))


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize("place", ["after_mlp", "houlsby"])
@torch.no_grad()
def test_adapter_takes_the_output_of_the_branch_behind_layer_scale(place: str) -> None:
    model = small(init_values=0.5)
    frozen = deepcopy(model)
    tensors = put(model, "adapter", f"place={place}").state()
    x = start_of(frozen)
    for i, block in enumerate(frozen.blocks):
        h = block.ls1(block.attn(block.norm1(x)))
        x = x + h + (bottleneck(h, tensors, f"blocks.{i}.attn", quick_gelu) if place == "houlsby" else 0)
        h = block.ls2(block.mlp(block.norm2(x)))
        x = x + h + bottleneck(h, tensors, f"blocks.{i}.mlp", quick_gelu)
    expected = frozen.forward_head(frozen.norm(x))
    assert torch.allclose(model(images()), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_adapter_plus_takes_the_output_of_the_block() -> None:
    model = small(init_values=0.5)
    frozen = deepcopy(model)
    tensors = put(model, "adapter_plus").state()
    x = start_of(frozen)
    for i, block in enumerate(frozen.blocks):
        x = block(x)
        own = {name.replace(".bottleneck", ""): value for name, value in tensors.items()}
        x = x + tensors[f"blocks.{i}.scale"] * bottleneck(x, own, f"blocks.{i}", F.gelu)
    expected = frozen.forward_head(frozen.norm(x))
    assert torch.allclose(model(images()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"init_values": 0.5}, {"block_fn": ResPostBlock}], ids=str)
@torch.no_grad()
def test_adaptformer_takes_the_residual_stream(options: dict[str, Any]) -> None:
    model = small(**options)
    frozen = deepcopy(model)
    tensors = put(model, "adaptformer", "scale=0.7").state()
    x = start_of(frozen)
    for i, block in enumerate(frozen.blocks):
        if "block_fn" in options:
            x = x + block.norm1(block.attn(x))
            branch = block.norm2(block.mlp(x))
        else:
            x = x + block.ls1(block.attn(block.norm1(x)))
            branch = block.ls2(block.mlp(block.norm2(x)))
        x = x + branch + 0.7 * bottleneck(x, tensors, f"blocks.{i}.mlp", F.relu)
    expected = frozen.forward_head(frozen.norm(x))
    assert torch.allclose(model(images()), expected, rtol=1e-5, atol=1e-5)
    assert _RECORDED.get() is None


def test_initial_values() -> None:
    values = put(small(embed_dim=64), "adapter", "bottleneck=32", fill=False).state()
    down, bias = values["blocks.0.mlp.down.weight"].detach(), values["blocks.0.mlp.up.bias"].detach()
    assert float(down.std()) == pytest.approx((2 / (64 + 32)) ** 0.5, rel=0.05)
    assert 0 < float(bias.abs().max()) < 1e-5
    values = put(small(embed_dim=64), "adapter_plus", "bottleneck=32", fill=False).state()
    up = values["blocks.0.bottleneck.up.weight"].detach()
    assert float(up.abs().max()) <= 0.02
    assert float(up.std()) == pytest.approx(0.0088, rel=0.05)  # of a normal distribution cut off at two deviations
    assert torch.equal(values["blocks.0.scale"], torch.ones(64))
    assert not values["blocks.0.bottleneck.down.bias"].detach().any()


def test_both_projections_at_zero_do_not_learn_and_the_recipe_of_fgvc_does() -> None:
    names = {entry.name: entry for entry in settings_of(method("adapter"))}
    values = method("adapter").recipes["fgvc"].values
    settings = [f"{name}={names[name].to_text(value)}" for name, value in values.items() if name in names]
    assert {"bottleneck=12", "initialisation=zero_up", "activation=gelu"} <= set(settings)

    model = small()
    frozen = deepcopy(model)
    adapter = put(model, "adapter", *settings, fill=False)
    assert torch.equal(model(images()), frozen(images()))
    assert steps(model, adapter) == set(adapter.parameters())

    released = put(small(), "adapter", *settings, fill=False)
    with torch.no_grad():
        for parameter in released.parameters().values():
            parameter.zero_()
    assert steps(released.model, released) == {"blocks.0.mlp.up.bias", "blocks.1.mlp.up.bias"}


@torch.no_grad()
def test_drop_path_of_adapter_plus_drops_whole_images() -> None:
    model = small()
    adapter = put(model, "adapter_plus", "drop_path=0.5")
    own = model.blocks[0].own
    x = torch.randn(64, 5, WIDTH)
    still = own(x)
    adapter.train(True)
    adapter.before_step(0, 0.0)
    change = own(x) - x
    kept = change.abs().sum((1, 2)) > 0
    assert 16 < int(kept.sum()) < 48
    assert torch.allclose(change[kept], 2 * (still - x)[kept], atol=1e-5)
