"""The cut below the first expert: both parts in turn are the whole network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.core.patterns import allocation, dense
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model.backbones import bundled_network
from mlae_lab.model.inject import inject
from mlae_lab.model.prefix import first_block, split

Build = Callable[..., VisionTransformer]


@pytest.mark.parametrize("block", range(4))
@torch.no_grad()
def test_both_parts_in_turn_are_the_network(small_vit: Build, block: int) -> None:
    model = small_vit()
    before, behind = split(model, block)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = before(x)
    assert tokens.shape == (3, 17, 32)
    assert torch.equal(behind(tokens), model(x))


@torch.no_grad()
def test_the_bundled_network_is_cut_like_any_other() -> None:
    model = bundled_network(10).eval()
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for block in (0, 7, 12):
        before, behind = split(model, block)
        assert torch.equal(behind(before(x)), model(x))


@torch.no_grad()
def test_experts_lie_behind_the_cut(small_vit: Build) -> None:
    """What `before` gives does not change when the experts of the plan learn."""
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
        (MaskPlan(((1,), (1,)), ((0,), (0,)), ("head", "blocks.9.attn.qkv")), 0),  # unknown place: keep nothing
        (MaskPlan(((1,),) * 12, ((0,),) * 12, block_targets(12, "mlp.fc1")), 0),
    ],
)
def test_first_block_with_an_expert(plan: MaskPlan | None, block: int) -> None:
    assert first_block(plan, 12) == block
