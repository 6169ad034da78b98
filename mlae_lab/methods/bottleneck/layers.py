"""Adapter, Adapter+ and AdaptFormer as modules."""

from __future__ import annotations

import math

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, Batches, Dropout, DropPath, blocks_of
from mlae_lab.methods.bottleneck import AdapterPlus, AdaptFormer, BottleneckAdapter
from mlae_lab.methods.branches import (
    BRANCHES,
    Behind,
    Projection,
    QuickGELU,
    after,
    device_of,
    parallel,
    uniform_,
    width_of,
)
from mlae_lab.model.experts import stream

ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU, "relu": nn.ReLU}
DEVIATION = 0.01  # of Houlsby et al.'s initial values


class Bottleneck(nn.Module):
    """W_u dropout(act(W_d x + b_d)) + b_u: (..., D) -> (..., D).

    Args:
        width: D.
        bottleneck: d.
        activation: A name in `ACTIVATIONS`.
        dropout: Of the hidden elements.
        initialisation: "xavier": both projections Xavier-uniform, biases N(0, 1e-6²). "zero_up": W_d Kaiming-uniform
            with a = √5, that is U(±1/√D), and the rest 0. "normal": both projections N(0, 0.01²) cut off at two
            deviations, biases 0.
        generator: Of the initial values.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        activation: str,
        dropout: Dropout,
        initialisation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.down, self.up = Projection(width, bottleneck), Projection(bottleneck, width)
        self.activation, self.dropout = ACTIVATIONS[activation](), dropout
        if initialisation == "zero_up":
            uniform_(self.down.weight, 1 / math.sqrt(width), generator)
            return
        for projection in (self.down, self.up):
            if initialisation == "xavier":
                uniform_(projection.weight, math.sqrt(6 / (width + bottleneck)), generator)
                nn.init.normal_(projection.bias, std=1e-6, generator=generator)
            else:
                low, high = -2 * DEVIATION, 2 * DEVIATION
                nn.init.trunc_normal_(projection.weight, std=DEVIATION, a=low, b=high, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.dropout(self.activation(self.down(x))))


class Residual(Bottleneck):
    """x + bottleneck(x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


class Scaled(Bottleneck):
    """s bottleneck(x) with a fixed s."""

    scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


class ChannelScaled(nn.Module):
    """x + s ∘ drop_path(bottleneck(x)) with a trained s (D,), which starts at 1."""

    def __init__(self, width: int, own: Bottleneck, drop_path: DropPath) -> None:
        super().__init__()
        self.bottleneck, self.drop_path = own, drop_path
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(self.bottleneck(x)) * self.scale.to(x.dtype)


def attach(
    model: nn.Module,
    method: BottleneckAdapter | AdapterPlus | AdaptFormer,
    seed: int,
    batches: Batches | None = None,
) -> Adapter:
    """Put a bottleneck into every block of a vision transformer."""
    adapter = Adapter(model, seed)
    for name, block in blocks_of(model):
        width, device = width_of(name, block), device_of(block)
        generator = stream(seed, method.name, name)
        if isinstance(method, BottleneckAdapter):
            for branch in BRANCHES if method.place == "houlsby" else ("mlp",):
                dropout = Dropout(adapter.noise, method.dropout)
                own = Residual(width, method.bottleneck, method.activation, dropout, method.initialisation, generator)
                after(adapter, name, block, branch, own.to(device))
        elif isinstance(method, AdaptFormer):
            dropout = Dropout(adapter.noise, method.dropout)
            own = Scaled(width, method.bottleneck, "relu", dropout, "zero_up", generator).to(device)
            own.scale = method.scale
            parallel(adapter, name, block, "mlp", own, normed=False)
        else:
            inner = Bottleneck(width, method.bottleneck, "gelu", Dropout(adapter.noise, 0.0), "normal", generator)
            whole = ChannelScaled(width, inner, DropPath(adapter.noise, method.drop_path)).to(device)
            adapter.add(name, whole)
            adapter.replace(name, Behind(block, whole))
    return adapter
