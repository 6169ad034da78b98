"""Predictions for an image, compared with plain computations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.analysis.predict import nearest, read_by_head, without_each_layer
from mlae_lab.core.patterns import allocation
from mlae_lab.model.inject import inject


def test_head_input_gives_the_logits(small_vit: Callable[..., VisionTransformer]) -> None:
    model, x = small_vit(), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits, read = read_by_head(model, model.head, x)
    assert read.shape == (3, 32)
    assert torch.equal(logits, model(x))
    assert torch.allclose(model.head(read), logits)
    assert not model.head._forward_pre_hooks


def test_nearest_is_the_largest_cosine() -> None:
    rng = torch.Generator().manual_seed(0)
    query, rows = torch.randn(7, generator=rng), torch.randn(20, 7, generator=rng)
    truth = [float(row @ query / row.norm() / query.norm()) for row in rows]
    order = sorted(range(20), key=lambda i: -truth[i])[:4]
    cosines, indices = nearest(query, rows, 4)
    assert indices.tolist() == order
    assert cosines.tolist() == pytest.approx([truth[i] for i in order], abs=1e-6)
    assert float(nearest(3 * rows[5], rows, 1)[0]) == pytest.approx(1, abs=1e-6)
    assert len(nearest(query, rows[:2], 6)[1]) == 2


@torch.no_grad()
def test_layer_without_experts_equals_a_network_without_them(
    small_vit: Callable[..., VisionTransformer],
) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    values = torch.randn(96, 2, generator=torch.Generator().manual_seed(1))

    def build(kept: tuple[int, ...]):
        model = small_vit()
        experts = inject(model, allocation(kept))
        for layer in experts.layers.values():
            layer.eval().b.copy_(values[:, : len(layer.columns)])
        return model.eval(), experts

    model, experts = build((2, 1, 2))
    plain = model(x)
    for target, probability in without_each_layer(model, experts.layers, x):
        kept = tuple(0 if name == target else n for name, n in zip(experts.plan.targets, (2, 1, 2), strict=True))
        assert torch.allclose(probability, build(kept)[0](x).softmax(1), atol=1e-6)
        assert torch.equal(model(x), plain)
