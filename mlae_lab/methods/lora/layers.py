"""Low-rank updates of linear layers, shared by LoRA, DoRA, AdaLoRA, IncreLoRA and the layer-wise allocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.core.plan import row_labels
from mlae_lab.methods.adapter import Adapter, Batches, Factors, Noise, linears_of
from mlae_lab.methods.lora import TARGETS, LoRA, parts
from mlae_lab.model.experts import MaskedLinear, stream

Parts = tuple[tuple[int, int], ...]
MAX_COLUMNS = 32  # of the grid of components: a wider one cannot be read


class LowRankUpdate(nn.Module):
    """ΔW = Σ_p rows_p(s · B_p A_p) of a frozen linear layer, a product of rank r for each part p of its outputs.

    Parameters: a (P r, d_in), the A of all parts one below the other; b (Σ d_p, r), the B of all parts likewise.

    A starts uniform in ±1/sqrt(d_in): with equal seed and layer it is that of MLAE's experts of rank 1. B starts at 0.

    Args:
        base: The layer, (d_in -> d_out); only its shape and device are used.
        rank: r.
        scale: s.
        seed: Of the initial A.
        name: Of the layer.
        outputs: First and last output (exclusive) of each part, in order; by default one part with all.
        noise: Randomness of the dropout.
        dropout: Its rate.
        dropout_on: As LoRA's setting.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        scale: float,
        seed: int,
        name: str,
        outputs: Parts = (),
        noise: Noise | None = None,
        dropout: float = 0.0,
        dropout_on: str = "input",
    ) -> None:
        super().__init__()
        device = base.weight.device
        self.outputs = outputs or ((0, base.out_features),)
        self.noise, self.dropout, self.dropout_on = noise, dropout, dropout_on
        bound = base.in_features**-0.5
        rows = [
            torch.rand(1, base.in_features, generator=stream(seed, "a", name, row)) * 2 * bound - bound
            for row in range(len(self.outputs) * rank)
        ]
        self.a = nn.Parameter(torch.cat(rows).to(device))
        self.b = nn.Parameter(torch.zeros(sum(last - first for first, last in self.outputs), rank, device=device))
        self.scale = scale
        self.scales: torch.Tensor
        self.register_buffer("scales", torch.full((len(self.a),), float(scale), device=device), persistent=False)

    def factor(self) -> torch.Tensor:
        """Factor of each rank-1 term, (P r,)."""
        return self.scales

    def wide_b(self, d_out: int) -> torch.Tensor:
        """B of all parts side by side, (d_out, P r), with zeros where a part has no output."""
        if self.outputs == ((0, d_out),):
            return self.b
        columns, row = [], 0
        for first, last in self.outputs:
            columns.append(F.pad(self.b[row : row + last - first], (0, 0, first, d_out - last)))
            row += last - first
        return torch.cat(columns, 1)

    def delta(self, base: nn.Linear) -> torch.Tensor:
        """ΔW as it is added to the frozen weight, (d_out, d_in)."""
        return (self.wide_b(base.out_features) * self.factor()) @ self.a

    @torch.no_grad()
    def norm(self, base: nn.Linear) -> float:
        """‖ΔW‖_F, without building ΔW: ‖ΔW‖² = Σ (s BᵀB s) ∘ (A Aᵀ)."""
        a, b = self.a.double(), (self.wide_b(base.out_features) * self.factor()).double()
        return float(((b.t() @ b) * (a @ a.t())).sum().clamp_min(0).sqrt())

    def used(self) -> torch.Tensor:
        """Which rank-1 components are in use: (P r,), bool."""
        return torch.ones_like(self.scales, dtype=torch.bool)

    @torch.no_grad()
    def component_norms(self, base: nn.Linear) -> tuple[float | None, ...]:
        """‖s_i b_i a_iᵀ‖_F = |s_i| ‖b_i‖ ‖a_i‖ of each rank-1 component, None for one that is not in use."""
        norms = self.wide_b(base.out_features).norm(dim=0) * self.a.norm(dim=1) * self.factor().abs()
        return tuple(v if used else None for v, used in zip(norms.tolist(), self.used().tolist(), strict=True))

    def forward(self, x: torch.Tensor, base: nn.Linear) -> torch.Tensor:
        b = self.wide_b(base.out_features)
        if self.training and self.dropout:
            return base(x) + self._noisy(x, b)
        if _is_float32(x, base):
            return MaskedLinear.apply(x, base.weight, base.bias, self.a, b, self.factor())
        # In 16 bits W + ΔW would round small updates away, so they are computed separately.
        return base(x) + low_rank(x, self.a, b, self.factor())

    def _noisy(self, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """ΔW x with dropout: (..., d_in) -> (..., d_out). Its expected value is ΔW x."""
        assert self.noise is not None
        rate, device = self.dropout, x.device
        if self.dropout_on == "update":
            delta = (b * self.factor()) @ self.a
            return F.linear(x, (delta * self.noise.kept(delta.shape, rate, device)).to(x.dtype))
        if self.dropout_on == "input":
            x = x * self.noise.kept(x.shape, rate, device).to(x.dtype)
            return low_rank(x, self.a, b, self.factor())
        places = x.shape[:-1] if self.dropout_on == "token" else (len(x), *(1 for _ in x.shape[1:-1]))
        return low_rank(x, self.a, b, self.factor() * self.noise.kept((*places, len(self.a)), rate, device))

    def extra_repr(self) -> str:
        return f"rank={self.b.shape[1]}, outputs={self.outputs}, scale={self.scale:g}"


def low_rank(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """B (factor ∘ (A x)), in the precision of x. (..., d_in) -> (..., d_out)."""
    low = F.linear(x, a.to(x.dtype)) * factor.to(x.dtype)
    return F.linear(low, b.to(low.dtype))


def _is_float32(x: torch.Tensor, base: nn.Linear) -> bool:
    if torch.is_autocast_enabled(x.device.type):
        return False
    return x.dtype is torch.float32 and base.weight.dtype is torch.float32


Update = TypeVar("Update", bound=LowRankUpdate)


class Updated(nn.Module):
    """A frozen linear layer with an update."""

    def __init__(self, base: nn.Linear, own: LowRankUpdate) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(x, self.base)


class LowRankAdapter(Adapter, Generic[Update]):
    """Adapter with an update for each chosen linear layer.

    Attributes:
        updates: Name of the layer to its update, in the order of the forward pass.
        bases: Name of the layer to the frozen layer.
        unused: Why a component is not in use, a sentence.
    """

    unused: ClassVar[str] = "Crossed out: the layer has a lower rank."

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        kinds: Sequence[str],
        make: Callable[[Noise, str, nn.Linear], Update],
    ) -> None:
        """make: (noise, name, layer) to the layer's update."""
        super().__init__(model, seed)
        self.updates: dict[str, Update] = {}
        self.bases: dict[str, nn.Linear] = {}
        for name, base in list(linears_of(model, kinds)):
            own = make(self.noise, name, base)
            self.updates[name], self.bases[name] = own, base
            self.add(name, own, own.state_dict())
            self.replace(name, Updated(base, own))

    @torch.no_grad()
    def merge(self) -> None:
        for name, own in self.updates.items():
            self.bases[name].weight.add_(own.delta(self.bases[name]))
        self.remove()

    @torch.no_grad()
    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        norms = tuple(own.norm(self.bases[name]) for name, own in self.updates.items())
        statistics: dict[str, tuple[str, StatisticValue]] = {"update_norm": ("Norm of ΔW, Frobenius", norms)}
        if self._width <= MAX_COLUMNS:
            lines = [own.component_norms(self.bases[name]) for name, own in self.updates.items()]
            canvas = tuple(line + (None,) * (self._width - len(line)) for line in lines)
            statistics["components"] = ("Rank-1 components of ΔW", canvas)
        return statistics

    @torch.no_grad()
    def factors(self) -> dict[str, Factors]:
        """The rank-1 components in use, with B scaled as in ΔW."""
        layers = {}
        for name, own in self.updates.items():
            used = own.used()
            b = (own.wide_b(self.bases[name].out_features) * own.factor())[:, used].cpu()
            layers[name] = Factors(own.a[used].cpu(), b, torch.ones(int(used.sum())), 1)
        return layers

    def grids(self) -> dict[str, Grid]:
        is_full = all(int(own.used().sum()) == self._width for own in self.updates.values())
        note = f"Norm of each rank-1 component of ΔW, |s| ‖b‖ ‖a‖.{'' if is_full else ' ' + self.unused}"
        columns = tuple(str(number) for number in range(1, self._width + 1))
        return {"components": Grid(row_labels([*self.updates]), columns, "rank", note)}

    @property
    def _width(self) -> int:
        """Components of the layer that has most."""
        return max(len(own.a) for own in self.updates.values())


def attach(model: nn.Module, method: LoRA, seed: int, batches: Batches | None = None) -> LowRankAdapter:
    """Put LoRA's updates into a network."""

    def make(noise: Noise, name: str, base: nn.Linear) -> LowRankUpdate:
        outputs = parts(method.targets, name.split(".", 2)[2], base.out_features)
        return LowRankUpdate(
            base, method.rank, method.scale, seed, name, outputs, noise, method.dropout, method.dropout_on
        )

    return LowRankAdapter(model, seed, TARGETS[method.targets], make)
