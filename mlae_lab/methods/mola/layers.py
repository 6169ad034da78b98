"""MoLA's routed experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.core.plan import row_labels
from mlae_lab.methods.adapter import Adapter, Batches, Dropout, Factors, Noise, linears_of
from mlae_lab.methods.branches import Parallel, uniform
from mlae_lab.methods.mola import ACTIVE, MoLA, experts
from mlae_lab.model.experts import stream


class RoutedExperts(nn.Module):
    """The experts and the router of one layer. (..., d_in) -> (..., d_out).

    a (n r, d_in) and router (n, d_in) are uniform in ±1/sqrt(d_in), b (d_out, n r) = 0.

    Attributes:
        shares: Of the last training step: share of the token's places that each expert got, (n,); None before it.
        balance: Of the same step: n Σ f p, with a gradient through p.
    """

    def __init__(self, base: nn.Linear, number: int, method: MoLA, noise: Noise, generator: torch.Generator) -> None:
        super().__init__()
        d_in, d_out, self.rank = base.in_features, base.out_features, method.rank
        self.scale = method.alpha / method.rank

        self.router = uniform((number, d_in), d_in**-0.5, generator)
        self.a = uniform((number * self.rank, d_in), d_in**-0.5, generator)
        self.b = nn.Parameter(torch.zeros(d_out, number * self.rank))
        self.drop = Dropout(noise, method.dropout)
        self.shares: torch.Tensor | None = None
        self.balance: torch.Tensor | None = None

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """Weights of the experts for each token, (..., n) float32: 0 outside its top two, together 1."""
        probabilities = F.linear(x, self.router.to(x.dtype)).float().softmax(-1)
        top = probabilities.topk(ACTIVE, -1)
        active = torch.zeros_like(probabilities).scatter(-1, top.indices, 1.0)
        if self.training:
            number = probabilities.shape[-1]
            share = active.flatten(0, -2).mean(0) / ACTIVE
            self.shares = share.detach()
            self.balance = number * (share * probabilities.flatten(0, -2).mean(0)).sum()
        return probabilities * active / top.values.sum(-1, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = F.linear(self.drop(x), self.a.to(x.dtype)).unflatten(-1, (-1, self.rank))
        low = low * self.gates(x).to(low.dtype).unsqueeze(-1) * self.scale
        return F.linear(low.flatten(-2), self.b.to(low.dtype))


class MixtureOfLoRA(Adapter):
    """Adapter with experts and a router in the qkv layer of each block."""

    def __init__(self, model: nn.Module, method: MoLA, seed: int) -> None:
        super().__init__(model, seed)
        self._balance = method.balance
        self.layers: dict[str, RoutedExperts] = {}
        generator = stream(seed, "mola")
        layers = dict(linears_of(model, ("attn.qkv",)))
        for (name, base), number in zip(layers.items(), experts(method.pattern, len(layers)), strict=True):
            own = RoutedExperts(base, number, method, self.noise, generator).to(base.weight.device)
            self.layers[name] = own
            self.add(name, own)
            self.replace(name, Parallel(base, own))

    def penalty(self) -> torch.Tensor | None:
        """The mean over the layers of n Σ f p, times its weight."""
        terms = [layer.balance for layer in self.layers.values() if layer.balance is not None]
        return self._balance * torch.stack(terms).mean() if self._balance and terms else None

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        shares = [layer.shares.tolist() for layer in self.layers.values() if layer.shares is not None]
        if len(shares) < len(self.layers):
            return {}
        lines = tuple(tuple(share) + (None,) * (self._most - len(share)) for share in shares)
        return {
            "shares": ("Share of the tokens of each expert", lines),
            "largest_share": ("Largest share of tokens of an expert", tuple(map(max, shares))),
        }

    def factors(self) -> dict[str, Factors]:
        """The experts, each with a gate of 1."""
        return {
            name: Factors(
                layer.a.detach().cpu(), layer.scale * layer.b.detach().cpu(), torch.ones(len(layer.router)), layer.rank
            )
            for name, layer in self.layers.items()
        }

    def grids(self) -> dict[str, Grid]:
        note = (
            "Share of a layer's places for tokens that the router gave to the expert in the last training step. "
            "Crossed out: the pattern has no such expert."
        )
        columns = tuple(str(number) for number in range(1, self._most + 1))
        return {"shares": Grid(row_labels([*self.layers]), columns, "expert", note)}

    @property
    def _most(self) -> int:
        """Experts of the layer that has most."""
        return max(len(layer.router) for layer in self.layers.values())


def attach(model: nn.Module, method: MoLA, seed: int, batches: Batches | None = None) -> MixtureOfLoRA:
    """Put routed experts into the qkv layer of each block."""
    return MixtureOfLoRA(model, method, seed)
