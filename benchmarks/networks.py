"""Networks with experts, and variants of their layer, for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from mlae_lab.core import catalog
from mlae_lab.core.backbones import Backbone
from mlae_lab.core.memory import attention_is_fused
from mlae_lab.core.patterns import fitted, uniform
from mlae_lab.model.backbones import build, set_fused_attention
from mlae_lab.model.experts import MLAELinear
from mlae_lab.model.frozen_prefix import depth, split
from mlae_lab.model.inject import Experts, inject

Forward = Callable[[MLAELinear, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Network:
    """A backbone with 8 experts of drop probability 0.5 on each default target, in eval mode.

    Attributes:
        entry: its row in the catalog.
        model: the timm network; Any, because timm's networks have no common type.
        experts: inside the model.
        device: where its tensors are.
        precision: float32 or bfloat16 (autocast).
    """

    entry: Backbone
    model: Any
    experts: Experts
    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """The context of every forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def images(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Random input images, (count, 3, size, size)."""
        return torch.randn(count, 3, self.entry.image_size, self.entry.image_size, generator=generator).to(self.device)


def network(name: str, classes: int, device: torch.device, precision: torch.dtype) -> Network:
    """Build a network of the catalog with experts.

    Args:
        name: of a backbone; one that ends in `.random` needs no weights file.
        classes: outputs of the head.
        device: where it goes.
        precision: of the forward passes.
    """
    entry = catalog.backbone(name)
    model = build(name, classes, 0)
    experts = inject(model, fitted(uniform(0.5), entry.default_targets), 0)
    model.to(device)
    if device.type == "cpu":
        set_fused_attention(model, attention_is_fused(entry, device.type))  # as in training
    return Network(entry, model, experts, device, precision)


# ---------------------------------------------------------------- training steps


def expert_step(net: Network, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A function that makes one training step of experts and head.

    The step: sample masks, forward, cross-entropy, backward, AdamW, and reading the loss, which synchronises.
    """
    head = net.model.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW([*net.experts.parameters(), *head.parameters()], lr=5e-4, fused=True)
    for layer in net.experts.layers.values():
        layer.train()

    def step() -> None:
        net.experts.sample()
        with net.autocast():
            loss = F.cross_entropy(net.model(images).float(), labels)
        _update(loss, optimizer)

    return step


def probe_step(net: Network, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A function that makes one training step of the head alone, the frozen backbone's forward pass included."""
    head = net.model.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, fused=True)
    before, behind = split(net.model, depth(net.model))

    def step() -> None:
        with net.autocast():
            with torch.no_grad():
                features = before(images)
            loss = F.cross_entropy(behind(features).float(), labels)
        _update(loss, optimizer)

    return step


def _update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss.item()


# ---------------------------------------------------------------- variants of the layer


def branch(layer: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    """W x + b (λ m (a x)), all of it left to autograd, as in peft's LoRA and the authors' layer."""
    low = F.linear(x, layer.a.to(x.dtype)) * layer.scale().to(x.dtype)
    return layer.base(x) + F.linear(low, layer.b.to(x.dtype))


def merged_autograd(layer: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    """(W + ΔW) x left to autograd, which builds the full gradient of W."""
    return F.linear(x, layer.base.weight + (layer.b * layer.scale()) @ layer.a, layer.base.bias)


@contextmanager
def layer_forward(forward: Forward | None) -> Iterator[None]:
    """Replace the forward pass of every MLAELinear; None keeps it."""
    original = MLAELinear.forward
    if forward is not None:
        MLAELinear.forward = forward  # pyright: ignore[reportAttributeAccessIssue]  # `self` has another name there
    try:
        yield
    finally:
        MLAELinear.forward = original
