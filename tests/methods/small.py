"""Small networks of timm for tests of methods."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core.method import method, with_texts
from mlae_lab.methods.adapter import Adapter, attach

WIDTH = 16


def small(**options: Any) -> Any:
    """A vision transformer of two blocks with random values also where timm starts with 0 or 1."""
    defaults: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 3,
    }
    return shuffled(VisionTransformer(**defaults | options))


def shuffled(model: nn.Module, seed: int = 7) -> Any:
    """Add N(0, 0.2²) to every parameter; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            parameter.add_(1.0 if parameter.dim() == 1 else 0.0)
    return model.eval().requires_grad_(False)


def images(size: int = 32, number: int = 2) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


def put(model: nn.Module, name: str, *settings: str, fill: bool = True) -> Adapter:
    """Attach a method in eval mode. fill: with random values in what it trains, in place of its initial values."""
    adapter = attach(model, with_texts(method(name), settings), seed=2)
    generator = torch.Generator().manual_seed(3)
    if fill:
        with torch.no_grad():
            for parameter in adapter.parameters().values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    adapter.train(False)
    return adapter


def steps(model: nn.Module, adapter: Adapter, count: int = 3) -> set[str]:
    """Train for a few steps. Returns the names of the parameters that changed."""
    before = {name: value.detach().clone() for name, value in adapter.parameters().items()}
    optimizer = torch.optim.AdamW(adapter.parameters().values(), lr=1e-2, weight_decay=0.0)
    adapter.train(True)
    for step in range(count):
        adapter.before_step(step, step / count)
        F.cross_entropy(model(images()), torch.tensor([0, 1])).backward()
        optimizer.step()
        optimizer.zero_grad()
    adapter.train(False)
    return {name for name, value in adapter.parameters().items() if not torch.equal(value, before[name])}
