"""The split before the first expert: both parts in sequence equal the whole network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.core import catalog
from mlae_lab.core.patterns import allocation, dense
from mlae_lab.core.plan import MaskPlan, block_targets, first_block
from mlae_lab.model.backbones import bundled_network
from mlae_lab.model.frozen_prefix import depth, pieces, split
from mlae_lab.model.inject import inject

Build = Callable[..., VisionTransformer]


@pytest.mark.parametrize("block", range(4))
@torch.no_grad()
def test_both_parts_in_sequence_equal_the_network(small_vit: Build, block: int) -> None:
    model = small_vit()
    before, behind = split(model, block)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = before(x)
    assert tokens.shape == (3, 17, 32)
    assert torch.equal(behind(tokens), model(x))


@torch.no_grad()
def test_bundled_network_is_split_like_any_other() -> None:
    model = bundled_network(10).eval()
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for block in (0, 7, 12):
        before, behind = split(model, block)
        assert torch.equal(behind(before(x)), model(x))


@torch.no_grad()
def test_experts_are_in_the_second_part(small_vit: Build) -> None:
    """The output of the first part does not change when the experts are trained."""
    model = small_vit()
    plan = allocation((0, 2, 1))
    experts = inject(model, plan)
    before, behind = split(model.eval(), first_block(plan, 3))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens, logits = before(x), model(x)
    for layer in experts.layers.values():
        layer.b.fill_(0.1)
    assert torch.equal(before(x), tokens)
    assert not torch.allclose(behind(tokens), logits)
    assert torch.equal(behind(tokens), model(x))


@pytest.mark.parametrize(
    ("plan", "block"),
    [
        (None, 12),
        (dense(), 0),
        (allocation((0, 0, 3)), 2),
        (allocation((0,) * 12), 12),
        (MaskPlan(((1,), (1,)), ((0,), (0,)), ("blocks.11.attn.qkv", "blocks.10.mlp.fc2")), 10),
        (MaskPlan(((0,), (1,)), ((0,), (0,)), ("blocks.1.attn.qkv", "blocks.9.attn.qkv")), 9),
        (MaskPlan(((1,), (1,)), ((0,), (0,)), ("head", "blocks.9.attn.qkv")), 0),  # unknown position: keep nothing
        (MaskPlan(((1,),) * 12, ((0,),) * 12, block_targets(12, "mlp.fc1")), 0),
    ],
)
def test_first_block_with_an_expert(plan: MaskPlan | None, block: int) -> None:
    assert first_block(plan, 12) == block


# ---------------------------------------------------------------- other architectures


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


RELPOS = {"model_name": "vit_relpos_small_patch16_224", "depth": 3, "embed_dim": 48, "num_heads": 2, "init_values": 1}
MIXER = {"model_name": "mixer_s32_224"}


@pytest.mark.parametrize(
    ("arguments", "cached"),
    [
        ({"model_name": "test_vit", "img_size": 48}, True),
        ({"model_name": "test_vit", "dynamic_img_size": True}, True),
        ({"model_name": "vit_tiny_patch16_224", "depth": 3, "reg_tokens": 2, "no_embed_class": True}, True),
        ({"model_name": "vit_tiny_patch16_224", "depth": 3, "pre_norm": True, "global_pool": "avg"}, True),
        ({"model_name": "vit_tiny_patch16_224", "depth": 3, "global_pool": "map", "class_token": False}, True),
        ({"model_name": "vit_small_patch14_reg4_dinov2", "depth": 3, "img_size": 56}, True),
        ({"model_name": "deit3_small_patch16_224", "depth": 3}, True),
        (MIXER, True),
        (RELPOS, False),
        ({"model_name": "swin_tiny_patch4_window7_224", "embed_dim": 24}, False),
        ({"model_name": "convnext_tiny", "dims": (8, 16, 24, 32)}, False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@torch.no_grad()
def test_every_split_of_every_architecture_equals_the_network(arguments: dict, cached: bool) -> None:
    model = timm.create_model(**arguments, num_classes=4).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    usual = 64 if "dynamic_img_size" in arguments else model.pretrained_cfg["input_size"][-1]
    x = images(arguments.get("img_size", usual))
    logits = model(x)
    last = depth(model)
    for block in (0, 1, last - 1, last):
        before, behind = split(model, block)
        entering = before(x)
        assert torch.equal(behind(entering), logits)
        assert (entering is x) == (not cached and block < last), block


@pytest.mark.parametrize("arguments", [RELPOS, MIXER], ids=["relpos", "mixer"])
@torch.no_grad()
def test_no_architecture_has_experts_in_the_first_part(arguments: dict) -> None:
    model = timm.create_model(**arguments, num_classes=4).eval()
    torch.nn.init.normal_(model.get_classifier().weight)
    last = catalog.backbone(arguments["model_name"]).module
    last = f"blocks.{len(model.blocks) - 1}.{last}"
    plan = MaskPlan(((1,),), ((0,),), (last,))
    experts = inject(model, plan)
    before, behind = split(model.eval(), first_block(plan, depth(model)))
    x = images(224)
    entering, logits = before(x), model(x)
    experts.layers[last].b.normal_()
    assert torch.equal(before(x), entering)
    assert not torch.allclose(behind(entering), logits)
    assert torch.equal(behind(entering), model(x))


@torch.no_grad()
def test_linear_probe_is_split_before_the_head_in_every_architecture() -> None:
    model = timm.create_model("convnext_tiny", dims=(8, 16, 24, 32), num_classes=4).eval()
    before, behind = split(model, first_block(None, depth(model)))
    x = images(64)
    assert before(x).shape == (2, 32, 2, 2)
    assert torch.equal(behind(before(x)), model(x))


@torch.no_grad()
def test_pieces_in_sequence_equal_the_second_part(small_vit: Build) -> None:
    model = small_vit()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for block in range(4):
        before, behind = split(model, block)
        tokens = before(x)
        expected = behind(tokens)
        parts = pieces(model, block)
        assert len(parts) == 4 - block
        for part in parts:
            tokens = part(tokens)
        assert torch.equal(tokens, expected)


@torch.no_grad()
def test_network_that_cannot_be_split_is_one_piece() -> None:
    model = timm.create_model("resnet10t", num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (whole,) = pieces(model, 0)
    (head,) = pieces(model, depth(model))
    assert torch.equal(whole(x), model(x))
    assert torch.equal(head(model.forward_features(x)), model(x))
