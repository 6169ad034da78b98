"""Prompts, adapters and bypasses in the kinds of vision transformers that timm has."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from mlae_lab.core.method import Trait, method
from tests.methods.small import images, put, shuffled

METHODS = ("vpt_shallow", "vpt_deep", "adapter", "adapter_plus", "adaptformer", "repadapter", "convpass")
REFUSED = {("beit", name) for name in ("vpt_shallow", "vpt_deep", "repadapter")} | {
    ("relative", name) for name in ("vpt_shallow", "vpt_deep")
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("vit_tiny_patch16_224", {"img_size": 32}),
    "clip": ("vit_base_patch16_clip_224", {"img_size": 32}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 28}),  # and LayerScale
    "average": ("vit_base_patch16_siglip_gap_224", {"img_size": 32, "global_pool": "avg"}),
    "query_norm": ("vit_little_patch16_reg4_gap_256", {"img_size": 32}),
    "rotary": ("vit_small_patch16_dinov3", {"img_size": 32}),
    "rotary_by_block": ("vit_small_patch16_rope_mixed_224", {"img_size": 32}),
    "beit": ("beit_base_patch16_224", {"img_size": 32}),
    "relative": ("vit_relpos_small_patch16_rpn_224", {"img_size": 32}),  # and the norm at the end of a branch
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_vision_transformer(name: str, kind: str) -> None:
    if (kind, name) in REFUSED:
        pytest.skip("refused, as the tests of the method show")
    architecture, options = NETWORKS[kind]
    model: Any = shuffled(timm.create_model(architecture, num_classes=5, depth=2, embed_dim=32, num_heads=2, **options))
    frozen, x = deepcopy(model), images(options["img_size"])
    adapter = put(model, name, fill=False)
    with torch.no_grad():
        same = torch.equal(model(x), frozen(x))
    assert same == (Trait.IDENTITY_AT_INIT in method(name).traits)
    adapter.remove()
    assert torch.equal(model(x), frozen(x))

    adapter = put(model, name)
    adapter.train(True)
    adapter.before_step(0, 0.0)
    output = model(x)
    F.cross_entropy(output, torch.tensor([0, 1])).backward()
    assert output.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in adapter.parameters().values())
    assert not any(module.training for _, module in frozen.named_modules())
    adapter.train(False)
    if Trait.MERGEABLE in method(name).traits:
        with torch.no_grad():
            expected = model(x)
            adapter.merge()
            assert torch.allclose(model(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
