"""FacT's shared factors and the layers that use them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import KINDS
from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, Noise, blocks_of, linears_of
from mlae_lab.methods.branches import uniform
from mlae_lab.methods.fact import FactTK, FactTT, fits, slices
from mlae_lab.model.experts import stream


class Factors(nn.Module):
    """U (r, D) and V (D, r), and for Tucker C (r, r, r) and P (r, matrices of the network).

    V = 0. U is uniform in ±1/sqrt(D), as of a new linear layer; C and P are Xavier-uniform, as in the authors' code.

    Args:
        width: D.
        rank: r.
        columns: Number of D×D matrices of the network for Tucker, 0 for tensor train.
        rate: Of the dropout in front of V.
        noise: Of the dropout.
        generator: Of the initial values.
    """

    def __init__(self, width: int, rank: int, columns: int, rate: float, noise: Noise, generator: torch.Generator):
        super().__init__()
        self.u = uniform((rank, width), width**-0.5, generator)
        self.v = nn.Parameter(torch.zeros(width, rank))
        if columns:
            self.c = uniform((rank, rank, rank), 3**0.5 / rank, generator)
            self.p = uniform((rank, columns), (6 / (rank + columns)) ** 0.5, generator)
        self.drop = Dropout(noise, rate)


class OwnSigma(nn.Module):
    """Σ of one layer of a tensor train, (out r, in r): an r×r matrix for each part of its output or input.

    Uniform in ±1/sqrt(in r), as of a new linear layer.
    """

    def __init__(self, parts_out: int, parts_in: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sigma = uniform((parts_out * rank, parts_in * rank), (parts_in * rank) ** -0.5, generator)

    def forward(self) -> torch.Tensor:
        return self.sigma


class TuckerSigma(nn.Module):
    """Σ of one layer by Tucker: matrix j is C ×₃ P[:, j], transposed where it is applied to a layer's output parts.

    The authors' code reshapes the matrices of fc1 and fc2 from (r, r, 4) to (r, 4 r), which mixes their entries with j;
    here each part has its own matrix, as in the paper's formula.

    Args:
        factors: C and P.
        first: Column of P of the layer's first matrix.
        parts_out: Number of D-wide parts of the layer's output.
        parts_in: The same of its input; one of the two is 1.
    """

    def __init__(self, factors: Factors, first: int, parts_out: int, parts_in: int) -> None:
        super().__init__()
        self.factors, self.first, self.parts_out, self.parts_in = factors, first, parts_out, parts_in

    def forward(self) -> torch.Tensor:
        columns = self.factors.p[:, self.first : self.first + self.parts_out * self.parts_in]
        if self.parts_in == 1:  # z @ Σ_j in the authors' code
            return torch.einsum("abc,cj->jba", self.factors.c, columns).flatten(0, 1)
        return torch.einsum("abc,cj->ajb", self.factors.c, columns).flatten(1)


class FactLinear(nn.Module):
    """y = f(x) + s V drop(Σ U x) with f frozen; x and y in parts of width D. (..., d_in) -> (..., d_out).

    A layer with a wide output (qkv, fc1) has one Σ_j for each part of it: y_j += s V Σ_j U x. One with a wide input
    (fc2) uses U on each part of it: y += s V Σ_j (S_j U x_j).
    """

    def __init__(self, base: nn.Linear, factors: Factors, sigma: nn.Module, scale: float) -> None:
        super().__init__()
        self.base, self.factors, self.sigma, self.scale = base, factors, sigma, scale
        self.width, self.rank = factors.v.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v, sigma = self.factors.u.to(x.dtype), self.factors.v.to(x.dtype), self.sigma().to(x.dtype)
        z = F.linear(x.unflatten(-1, (-1, self.width)), u).flatten(-2)
        z = self.factors.drop(F.linear(z, sigma)).unflatten(-1, (-1, self.rank))
        return self.base(x) + self.scale * F.linear(z, v.to(z.dtype)).flatten(-2)

    def update(self) -> torch.Tensor:
        """ΔW, (d_out, d_in)."""
        u, v, sigma = self.factors.u, self.factors.v, self.sigma()
        parts = sigma.unflatten(0, (-1, self.rank)).unflatten(2, (-1, self.rank))  # (out, r, in, r)
        return self.scale * torch.einsum("dr,orit,te->odie", v, parts, u).flatten(2).flatten(0, 1)


class FactorTuning(Adapter):
    """Adapter with the shared factors, and for a tensor train the Σ of each layer."""

    def __init__(self, model: nn.Module, method: FactTT | FactTK, seed: int) -> None:
        super().__init__(model, seed)
        layers = dict(linears_of(model))
        fc2 = layers["blocks.0.mlp.fc2"]
        width, hidden, device = fc2.out_features, fc2.in_features, fc2.weight.device
        for block, _ in blocks_of(model):
            bases = {kind: layers[f"{block}.{kind}"] for kind in KINDS}
            if not fits({kind: (base.in_features, base.out_features) for kind, base in bases.items()}, width):
                raise AttachError(f"layers of {block} cannot be cut into {width} x {width}: choose a plain ViT")
        tucker = isinstance(method, FactTK)
        columns = slices(width, hidden) * len(blocks_of(model)) if tucker else 0
        generator = stream(seed, method.name)
        factors = Factors(width, method.rank, columns, method.dropout, self.noise, generator).to(device)
        self.add("fact", factors)
        self.layers: dict[str, FactLinear] = {}
        first = 0
        for name, base in layers.items():
            parts_out, parts_in = base.out_features // width, base.in_features // width
            if tucker:
                sigma: nn.Module = TuckerSigma(factors, first, parts_out, parts_in)
            else:
                sigma = self.add(name, OwnSigma(parts_out, parts_in, method.rank, generator).to(device))
            first += parts_out * parts_in
            self.layers[name] = FactLinear(base, factors, sigma, method.scale)
            self.replace(name, self.layers[name])

    @torch.no_grad()
    def merge(self) -> None:
        for layer in self.layers.values():
            layer.base.weight.add_(layer.update())
        self.remove()


def attach(model: nn.Module, method: FactTT | FactTK, seed: int, batches: Batches | None = None) -> FactorTuning:
    """Put FacT into the linear layers of all blocks."""
    return FactorTuning(model, method, seed)
