"""FacT, GLoRA, MoLA, SPT and NOAH in other networks of timm than the bundled one."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import Method, Trait
from mlae_lab.methods.adapter import attach
from mlae_lab.methods.fact import FactTK, FactTT
from mlae_lab.methods.glora import GLoRA
from mlae_lab.methods.mola import MoLA
from mlae_lab.methods.noah import NOAH
from mlae_lab.methods.spt import SPTAdapter, SPTLoRA

METHODS: list[Method] = [
    FactTT(rank=4), FactTK(rank=4), GLoRA(), MoLA(), SPTLoRA(budget=3000, rank=2), SPTAdapter(budget=3000, rank=2),
    NOAH(prompt=3, lora=2, adapter=4),
]  # fmt: skip
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIP: a norm in front of the blocks, no bias of the patches": (
        "vit_base_patch32_clip_224", {"img_size": 64}
    ),
    "DINOv2: LayerScale and registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 28, "init_values": 0.5}),
    "average pooling without class token, norms of q and k, no bias of qkv": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "qk_norm": True, "qkv_bias": False, "global_pool": "avg", "class_token": False},
    ),
}  # fmt: skip


def network(kind: str) -> tuple[Any, torch.Tensor]:
    """A network with random weights and biases, and images for it."""
    name, changes = NETWORKS[kind]
    model = timm.create_model(name, **SMALL, **changes).eval()
    for index, value in enumerate(model.parameters()):
        nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(index))
    size = changes["img_size"]
    return model, torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_starts_learns_merges_and_goes(method: Method, kind: str) -> None:
    model, images = network(kind)
    with torch.no_grad():
        frozen = model(images)
    modules = {name: type(module) for name, module in model.named_modules()}
    adapter = attach(model, method, 0, lambda: [(images, torch.arange(4))])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    adapter.train(False)
    with torch.no_grad():
        assert torch.equal(model(images), frozen) == (Trait.IDENTITY_AT_INIT in method.traits)
    optimizer = torch.optim.AdamW(adapter.parameters().values(), lr=1e-2)
    adapter.train(True)
    for step in range(3):
        adapter.before_step(step, 0.0)
        F.cross_entropy(model(images), torch.arange(4)).backward()
        optimizer.step()
        optimizer.zero_grad()
    adapter.train(False)
    trained = {id(value) for value in adapter.parameters().values()}
    assert all(
        torch.equal(value, before[name])
        for name, value in model.named_parameters()
        if name in before and id(value) not in trained
    )
    with torch.no_grad():
        output = model(images)
        assert not torch.allclose(output, frozen, atol=1e-4)
        if Trait.MERGEABLE in method.traits:
            adapter.merge()
            assert torch.allclose(model(images), output, atol=1e-4)
        else:
            adapter.remove()
    assert {name: type(module) for name, module in model.named_modules()} == modules
