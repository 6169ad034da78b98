"""DoRA's decomposed update."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.methods.adapter import Batches, Noise
from mlae_lab.methods.dora import DoRA
from mlae_lab.methods.lora import TARGETS
from mlae_lab.methods.lora.layers import LowRankAdapter, LowRankUpdate, low_rank


class DecomposedUpdate(LowRankUpdate):
    """W' = m ∘ V / ‖V‖ with V = W + s B A; rows have the norms m.

    Parameters: LowRankUpdate's, and magnitude m (d_out,). No gradient flows through ‖V‖ (the paper's section 4.3).
    """

    def __init__(self, base: nn.Linear, method: DoRA, seed: int, name: str, noise: Noise) -> None:
        super().__init__(base, method.rank, method.scale, seed, name, noise=noise, dropout=method.dropout)
        self.magnitude = nn.Parameter(row_norms(base.weight.float()))

    def ratio(self, base: nn.Linear) -> torch.Tensor:
        """m / ‖V‖, (d_out,)."""
        with torch.no_grad():
            norms = row_norms(torch.addmm(base.weight.float(), self.b * self.factor(), self.a))
        return self.magnitude / norms

    def delta(self, base: nn.Linear) -> torch.Tensor:
        ratio = self.ratio(base)[:, None]
        return (ratio - 1) * base.weight + ratio * super().delta(base)

    @torch.no_grad()
    def norm(self, base: nn.Linear) -> float:
        return float(self.delta(base).norm())

    def forward(self, x: torch.Tensor, base: nn.Linear) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):  # the norms need float32
            ratio = self.ratio(base)
        out, dropped = base(x), x
        if self.training and self.dropout:
            assert self.noise is not None
            dropped = x * self.noise.kept(x.shape, self.dropout, x.device).to(x.dtype)
            frozen = F.linear(dropped, base.weight)
        else:
            frozen = out if base.bias is None else out - base.bias.to(out.dtype)
        update = low_rank(dropped, self.a, self.b, self.factor()).to(out.dtype)
        return out + (ratio - 1).to(out.dtype) * frozen + ratio.to(out.dtype) * update


class DecomposedAdapter(LowRankAdapter[DecomposedUpdate]):
    """Adapter with decomposed updates; `factors` are those of V."""

    @torch.no_grad()
    def magnitudes(self) -> dict[str, torch.Tensor]:
        return {name: own.magnitude.detach().cpu() for name, own in self.updates.items()}


def row_norms(weight: torch.Tensor) -> torch.Tensor:
    """‖·‖₂ of each row: (d_out, d_in) -> (d_out,)."""
    return torch.linalg.vector_norm(weight, dim=1).detach()


def attach(model: nn.Module, method: DoRA, seed: int, batches: Batches | None = None) -> DecomposedAdapter:
    """Put DoRA's updates into a network."""

    def make(noise: Noise, name: str, base: nn.Linear) -> DecomposedUpdate:
        return DecomposedUpdate(base, method, seed, name, noise)

    return DecomposedAdapter(model, seed, TARGETS[method.targets], make)
