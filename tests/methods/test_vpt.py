"""Prompts: place, pooling, initial values, and networks that cannot take them."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from timm.layers.pos_embed_sincos import apply_rot_embed_cat

from mlae_lab.methods.adapter import AttachError
from mlae_lab.methods.vpt.layers import unrotated
from tests.methods.small import WIDTH, images, put, small

POOLING: list[dict[str, Any]] = [
    {"global_pool": "token"},
    {"global_pool": "avg", "class_token": False},
    {"global_pool": "avg", "reg_tokens": 3},
    {"global_pool": "token", "reg_tokens": 2, "pre_norm": True},
]


@pytest.mark.parametrize("name", ["vpt_shallow", "vpt_deep"])
@pytest.mark.parametrize("options", POOLING, ids=lambda options: "-".join(map(str, options)))
@torch.no_grad()
def test_prompts_come_after_the_prefix_and_are_removed_before_pooling(name: str, options: dict[str, Any]) -> None:
    model = small(**options)
    frozen = deepcopy(model)
    tensors = put(model, name, "prompts=5").state()
    prefix, count = frozen.num_prefix_tokens, 5
    x = frozen.norm_pre(frozen._pos_embed(frozen.patch_embed(images())))
    start, patches, prompts = x[:, :prefix], x[:, prefix:], x.new_zeros(2, 0, WIDTH)
    for i, block in enumerate(frozen.blocks):
        if f"blocks.{i}.tokens" in tensors:
            prompts = tensors[f"blocks.{i}.tokens"].expand(2, -1, -1)
        start, prompts, patches = block(torch.cat([start, prompts, patches], 1)).split([prefix, count, 16], 1)
    expected = frozen.forward_head(frozen.norm(torch.cat([start, patches], 1)))
    assert torch.equal(model(images()), expected)
    assert list(tensors) == [f"blocks.{i}.tokens" for i in range(1 if name == "vpt_shallow" else 2)]


def test_initial_values() -> None:
    tokens = put(small(), "vpt_deep", "prompts=200", fill=False).state()["blocks.1.tokens"].detach()
    bound = math.sqrt(6 / (3 * 8 * 8 + WIDTH))
    assert float(tokens.abs().max()) <= bound
    assert float(tokens.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_dropout_acts_on_prompts_only_and_by_image() -> None:
    model = small(global_pool="avg", class_token=False)
    adapter = put(model, "vpt_shallow", "prompts=40", "dropout=0.5")
    block = model.blocks[0]
    inputs: list[torch.Tensor] = []
    block.base.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model(images())
    adapter.train(True)
    adapter.before_step(0, 0.0)
    model(images())
    still, dropped = inputs
    assert torch.equal(still[:, 40:], dropped[:, 40:])
    kept = dropped[:, :40] != 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    assert torch.allclose(dropped[:, :40][kept], 2 * still[:, :40][kept])
    assert not torch.equal(kept[0], kept[1])


@torch.no_grad()
def test_rotary_embedding_turns_patches_and_no_prompt() -> None:
    rope, tokens = torch.randn(7, 8), torch.randn(1, 2, 10, 4)
    turned = apply_rot_embed_cat(tokens, unrotated(rope, 3))
    assert torch.equal(turned[:, :, :3], tokens[:, :, :3])
    assert torch.equal(turned[:, :, 3:], apply_rot_embed_cat(tokens[:, :, 3:], rope))


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "vit_relpos_small_patch16_224", "samvit_base_patch16"])
def test_networks_with_a_bias_for_each_pair_of_positions_are_refused(name: str) -> None:
    model = timm.create_model(name, num_classes=3, embed_dim=32, num_heads=2, depth=2)
    with pytest.raises(AttachError, match="cannot take prompts: choose a ViT"):
        put(model, "vpt_deep")
