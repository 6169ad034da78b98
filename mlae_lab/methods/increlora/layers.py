"""IncreLoRA's growing updates."""

from __future__ import annotations

import math

import torch
from torch import nn

from mlae_lab.methods.adalora.layers import AdaptiveRanks, SingularValueUpdate
from mlae_lab.methods.adapter import Batches, Noise
from mlae_lab.methods.increlora import IncreLoRA
from mlae_lab.methods.lora import TARGETS

RESERVE = 1e-5  # λ of a term in reserve


class GrowingUpdate(SingularValueUpdate):
    """ΔW = α/r · Σ λ_i p_i q_iᵀ over the r active terms, and with λ_i = 1e-5 over those in reserve.

    Parameters: as SingularValueUpdate's with r = max_rank. Buffers kept and reserve (max_rank,): flags of the terms.
    """

    def __init__(self, base: nn.Linear, method: IncreLoRA, seed: int, name: str) -> None:
        super().__init__(base, method.max_rank, method.alpha or method.rank, seed, name)
        self.growth = method.growth
        places = torch.arange(method.max_rank, device=base.weight.device)
        with torch.no_grad():
            self.e[1:] = RESERVE
        self.kept.copy_(places < 1)
        self.reserve: torch.Tensor
        self.register_buffer("reserve", (places >= 1) & (places <= method.growth))

    @property
    def active(self) -> int:
        """Number of active terms r."""
        return int(self.kept.sum())

    def factor(self) -> torch.Tensor:
        return (self.e * self.kept + RESERVE * self.reserve) * (self.scales / self.kept.sum())

    def terms(self) -> torch.Tensor:
        return (self.kept | self.reserve).float()

    def grow(self, most: int) -> None:
        """Activate the reserve, at most `most` terms, and take the next terms into it."""
        places = torch.arange(len(self.kept), device=self.kept.device)
        size = self.active + min(most, int(self.reserve.sum()))
        self.kept.copy_(places < size)
        self.reserve.copy_((places >= size) & (places < size + self.growth))


class GrowingRanks(AdaptiveRanks[GrowingUpdate]):
    """Adapter whose ranks grow to a budget."""

    unused = "Crossed out: not active yet."

    def __init__(self, model: nn.Module, method: IncreLoRA, seed: int) -> None:
        self.method, self.penalty_weight = method, method.orthogonality

        def make(noise: Noise, name: str, base: nn.Linear) -> GrowingUpdate:
            return GrowingUpdate(base, method, seed, name)

        super().__init__(model, seed, TARGETS[method.targets], make)
        self._score = torch.zeros(len(self.updates))
        self._deviation = torch.zeros(len(self.updates))
        self._rounds = torch.zeros(1, dtype=torch.int64)  # that are over

    @property
    def missing(self) -> int:
        """Ranks that are still to be added."""
        return self.method.rank * len(self.updates) - sum(own.active for own in self.updates.values())

    @torch.no_grad()
    def after_backward(self, step: int, progress: float) -> None:
        if self._rounds >= self.method.rounds(len(self.updates)):
            return
        now = torch.zeros(len(self.updates))
        for row, (own, base) in enumerate(zip(self.updates.values(), self.bases.values(), strict=True)):
            if own.e.grad is not None:
                now[row] = (own.e * own.e.grad * own.kept).sum().abs() / math.sqrt(base.weight.numel())
        self._score.lerp_(now, 1 - self.method.smoothing)
        self._deviation.lerp_((now - self._score).abs(), 1 - self.method.deviation_smoothing)

    @torch.no_grad()
    def after_step(self, step: int, progress: float) -> None:
        for _ in range(self.method.rounds_due(progress, len(self.updates)) - int(self._rounds)):
            self._round()

    def _round(self) -> None:
        """The layers with the highest scores grow."""
        self._rounds += 1
        missing, chosen = self.missing, 0
        for row in (self._score * self._deviation).argsort(descending=True, stable=True).tolist():
            own = list(self.updates.values())[row]
            if not missing or chosen == self.method.layers_per_round:
                break
            before = own.active
            own.grow(missing)
            missing -= own.active - before
            chosen += own.active > before
        if not missing or self._rounds >= self.method.rounds(len(self.updates)):
            for own in self.updates.values():
                own.reserve.zero_()

    def running(self) -> dict[str, torch.Tensor]:
        return {"score": self._score, "deviation": self._deviation, "rounds": self._rounds}


def attach(model: nn.Module, method: IncreLoRA, seed: int, batches: Batches | None = None) -> GrowingRanks:
    """Put IncreLoRA's updates into a network."""
    return GrowingRanks(model, method, seed)
