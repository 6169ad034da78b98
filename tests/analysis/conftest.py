"""A small network with trained experts, and images for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from timm.models.vision_transformer import VisionTransformer

    from mlae_lab.analysis.whatif import Outcome, WhatIf
    from mlae_lab.core.expert_state import Factors
    from mlae_lab.core.plan import MaskPlan
    from mlae_lab.model.inject import Experts


@pytest.fixture
def adapted(small_vit: Callable[..., VisionTransformer]) -> Callable[..., tuple[VisionTransformer, Experts]]:
    """Build a small transformer with a plan's experts, none of them zero, in eval mode and with a trainable head."""
    import torch

    from mlae_lab.model.inject import inject

    def build(plan: MaskPlan, seed: int = 0, size: float = 0.3) -> tuple[VisionTransformer, Experts]:
        model = small_vit(depth=plan.rows, seed=seed)
        experts = inject(model, plan, seed)
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in experts.layers.values():
                layer.b.copy_(torch.randn(layer.b.shape, generator=rng) * size)
                layer.coefficient.copy_(torch.rand(layer.coefficient.shape, generator=rng) * 2 - 0.5)
        model.get_classifier().requires_grad_(True)
        return model.eval(), experts

    return build


@pytest.fixture
def images() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Sample (images, labels) for the small network."""
    import torch

    def sample(count: int, classes: int = 5, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        own = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, 32, 32, generator=own), torch.randint(classes, (count,), generator=own)

    return sample


def full_pass(whatif: WhatIf, factors: Factors) -> Outcome:
    """The outcome of a state from all pieces and images: the reference for outcomes from kept inputs."""
    outcome = whatif._run(factors, [whatif.inputs], keep=False).outcome
    assert outcome is not None
    return outcome
