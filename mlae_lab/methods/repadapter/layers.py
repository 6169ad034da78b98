"""RepAdapter's layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, Batches, Dropout, linears_of
from mlae_lab.methods.branches import Projection, uniform_
from mlae_lab.methods.repadapter import RepAdapter
from mlae_lab.model.experts import stream


class GroupedAdapter(nn.Module):
    """h + s (B dropout(A h + b_A) + b_B): (..., D) -> (..., D).

    A starts Xavier-uniform, everything else at 0.

    Args:
        width: D.
        method: Bottleneck d, groups G and scale s.
        dropout: Of the hidden elements.
        generator: Of the initial values.
    """

    def __init__(self, width: int, method: RepAdapter, dropout: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.groups, self.scale, self.dropout = method.groups, method.scale, dropout
        self.down = Projection(width, method.bottleneck)
        uniform_(self.down.weight, math.sqrt(6 / (width + method.bottleneck)), generator)
        self.up = nn.Parameter(torch.zeros(method.groups, width // method.groups, method.bottleneck // method.groups))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.dropout(self.down(x)).unflatten(-1, (self.groups, -1))
        rise = torch.einsum("...gi,goi->...go", hidden, self.up.to(hidden.dtype)).flatten(-2)
        return x + self.scale * (rise + self.bias.to(x.dtype))

    def dense(self) -> torch.Tensor:
        """B as a matrix (D, d)."""
        return torch.block_diag(*self.up)


class AdaptedLinear(nn.Module):
    """A frozen linear layer of an adapted input."""

    def __init__(self, base: nn.Linear, own: GroupedAdapter) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(self.own(x))


class Reparameterised(Adapter):
    """Adapter with a linear bottleneck before each of the chosen linear layers."""

    def __init__(self, model: nn.Module, method: RepAdapter, seed: int) -> None:
        super().__init__(model, seed)
        for name, base in list(linears_of(model, method.kinds)):
            own = GroupedAdapter(
                base.in_features, method, Dropout(self.noise, method.dropout), stream(seed, "repadapter", name)
            )
            self.add(name, own.to(base.weight.device))
            self.replace(name, AdaptedLinear(base, own))

    @torch.no_grad()
    def merge(self) -> None:
        """W' = W (I + s B A), b' = b + s W (B b_A + b_B)."""
        for name, replaced in self._replaced:
            base: Any = replaced
            own: Any = self._modules[name]
            weight = own.scale * base.weight.float()
            through = weight @ own.dense()
            shift = through @ own.down.bias + weight @ own.bias
            base.weight.add_((through @ own.down.weight).to(base.weight.dtype))
            if base.bias is None:
                base.bias = nn.Parameter(torch.zeros_like(base.weight[:, 0]), requires_grad=False)
            base.bias.add_(shift.to(base.bias.dtype))
        self.remove()


def attach(model: nn.Module, method: RepAdapter, seed: int, batches: Batches | None = None) -> Reparameterised:
    """Put a linear bottleneck before linear layers of a vision transformer."""
    return Reparameterised(model, method, seed)
