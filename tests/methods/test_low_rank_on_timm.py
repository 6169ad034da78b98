"""Methods with low-rank updates and own parameters on timm's variants of the vision transformer."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import Trait, method, with_texts
from mlae_lab.methods.adapter import Adapter, attach

SMALL: dict[str, Any] = {"num_classes": 5, "depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
VARIANTS = {
    "vit_tiny_patch16_224": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL | {"init_values": 0.5},  # LayerScale, registers
    "vit_base_patch32_clip_224": SMALL,  # a norm before the blocks
    "vit_medium_patch16_gap_240": SMALL | {"init_values": 0.5},  # average pooling, no bias of qkv
    "vit_base_patch16_siglip_224": SMALL,  # pooling by attention
    "vit_tiny_patch16_224.qk_norm": SMALL | {"qk_norm": True, "qkv_bias": False},
}
METHODS = {
    "full": (),
    "bitfit": (),
    "lora": ("rank=2", "targets=q+v", "dropout=0.1", "dropout_on=token"),
    "lora all": ("rank=2", "targets=all", "dropout=0.1"),
    "dora": ("rank=2", "targets=all"),
    "adalora": ("rank=2", "start_rank=3", "targets=all"),
    "increlora": ("rank=2", "max_rank=3", "targets=all"),
    "layerwise": ("pattern=2468",),
}


def network(variant: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(variant.partition(".")[0], **VARIANTS[variant]).eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", METHODS)
def test_start_training_step_and_merge(name: str, variant: str) -> None:
    described = with_texts(method(name.split()[0]), METHODS[name])
    model, x = network(variant), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = model(x).detach()
    types = {key: type(module) for key, module in model.named_modules()}
    adapter: Adapter = attach(model, described, 0)
    adapter.train(False)
    exact = Trait.IDENTITY_AT_INIT in described.traits
    assert torch.equal(model(x), expected) if exact else torch.allclose(model(x), expected, atol=1e-5)

    optimizer = torch.optim.AdamW(adapter.parameters().values(), lr=5e-2)
    adapter.train(True)
    for step in range(2):
        adapter.before_step(step, step / 2)
        penalty = adapter.penalty()
        loss = F.cross_entropy(model(x), torch.tensor([0, 1]))
        (loss if penalty is None else loss + penalty).backward()
        adapter.after_backward(step, step / 2)
        optimizer.step()
        optimizer.zero_grad()
        adapter.after_step(step, step / 2)
    adapter.train(False)
    with torch.no_grad():
        trained = model(x)
        assert not torch.allclose(trained, expected, atol=1e-6, rtol=0)
        adapter.merge()
        assert {key: type(module) for key, module in model.named_modules()} == types
        assert torch.allclose(model(x), trained, rtol=1e-4, atol=1e-5)
