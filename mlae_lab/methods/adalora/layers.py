"""AdaLoRA's updates in the form of singular values, their importance and their allocation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

from mlae_lab.core.events import StatisticValue
from mlae_lab.methods.adalora import AdaLoRA
from mlae_lab.methods.adapter import Batches, Noise
from mlae_lab.methods.lora import TARGETS
from mlae_lab.methods.lora.layers import LowRankAdapter, LowRankUpdate
from mlae_lab.model.experts import stream

DEVIATION = 0.02  # of the initial P and Q


class SingularValueUpdate(LowRankUpdate):
    """ΔW = s · P diag(λ) Q.

    Parameters: a is Q (r, d_in), b is P (d_out, r), e is λ (r,). Buffer kept (r,): whether the last allocation kept λ.

    Args:
        base: The layer.
        rank: r.
        scale: s.
        seed: Of the initial values.
        name: Of the layer.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, seed: int, name: str) -> None:
        super().__init__(base, rank, scale, seed, name)
        generator = stream(seed, "adalora", name)
        with torch.no_grad():
            self.a.copy_(DEVIATION * torch.randn(self.a.shape, generator=generator))
            self.b.copy_(DEVIATION * torch.randn(self.b.shape, generator=generator))
        self.e = nn.Parameter(torch.zeros_like(self.scales))
        self.kept: torch.Tensor
        self.register_buffer("kept", torch.ones_like(self.scales, dtype=torch.bool))

    def factor(self) -> torch.Tensor:
        if self.training:
            return self.e * self.scales
        return self.e * self.scales * self.kept  # an average of e is not 0 where the budget pruned it

    def used(self) -> torch.Tensor:
        return self.kept

    def terms(self) -> torch.Tensor:
        """Which terms are in use, for the penalty: (r,), 0 or 1."""
        return torch.ones_like(self.scales)


def orthogonality(updates: Iterable[SingularValueUpdate]) -> torch.Tensor:
    """Mean of ‖Q Qᵀ − I‖_F and ‖Pᵀ P − I‖_F over all layers, among the terms in use."""
    distances = []
    for own in updates:
        used = own.terms()
        for gram in (own.a @ own.a.t(), own.b.t() @ own.b):
            unit = torch.eye(len(gram), device=gram.device)
            distances.append(torch.linalg.matrix_norm((gram - unit) * torch.outer(used, used)))
    return torch.stack(distances).mean()


Singular = TypeVar("Singular", bound=SingularValueUpdate)


class AdaptiveRanks(LowRankAdapter[Singular]):
    """Adapter with a penalty that keeps terms apart, and with the rank of each layer among its statistics.

    Attributes:
        penalty_weight: γ.
    """

    penalty_weight: float

    def penalty(self) -> torch.Tensor | None:
        return self.penalty_weight * orthogonality(self.updates.values()) if self.penalty_weight else None

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        ranks = tuple(float(own.used().sum()) for own in self.updates.values())
        return super().statistics() | {"rank": ("Rank", ranks)}


class AllocatedRanks(AdaptiveRanks[SingularValueUpdate]):
    """Adapter whose ranks fall to a budget."""

    unused = "Crossed out: pruned by the last allocation."

    def __init__(self, model: nn.Module, method: AdaLoRA, seed: int) -> None:
        self.method, self.penalty_weight = method, method.orthogonality

        def make(noise: Noise, name: str, base: nn.Linear) -> SingularValueUpdate:
            return SingularValueUpdate(base, method.start_rank, method.scale, seed, name)

        super().__init__(model, seed, TARGETS[method.targets], make)
        self._importance = {name: torch.zeros_like(p, requires_grad=False) for name, p in self.parameters().items()}
        self._deviation = {name: torch.zeros_like(value) for name, value in self._importance.items()}
        self._allocations = torch.zeros(2, dtype=torch.int64)  # number of the last interval; whether ranks are final

    @torch.no_grad()
    def after_backward(self, step: int, progress: float) -> None:
        if self._allocations[1]:
            return
        for name, parameter in self.parameters().items():
            if parameter.grad is not None:
                importance, deviation = self._importance[name], self._deviation[name]
                now = (parameter * parameter.grad).abs()
                importance.lerp_(now, 1 - self.method.smoothing)
                deviation.lerp_((now - importance).abs(), 1 - self.method.deviation_smoothing)

    @torch.no_grad()
    def after_step(self, step: int, progress: float) -> None:
        method = self.method
        if self._allocations[1]:
            self._clear()
        elif progress >= 1 - method.final:
            self._allocations[1] = 1
            self._allocate(method.budget(progress, len(self.updates)))
        elif progress > method.warmup:
            number = int(progress / method.interval + 1e-6) if method.interval else step + 1
            if number > self._allocations[0]:
                self._allocations[0] = number
                self._allocate(method.budget(progress, len(self.updates)))

    def scores(self) -> dict[str, torch.Tensor]:
        """Importance of each term, by layer: (r,) each."""

        def of(name: str) -> torch.Tensor:
            return self._importance[name] * self._deviation[name]

        return {name: of(f"{name}.e") + of(f"{name}.a").mean(1) + of(f"{name}.b").mean(0) for name in self.updates}

    def _allocate(self, budget: int) -> None:
        """Keep the most important terms of all layers together."""
        scores = self.scores()
        order = torch.cat(list(scores.values())).argsort(descending=True, stable=True)
        kept = torch.zeros_like(order, dtype=torch.bool)
        kept[order[:budget]] = True
        for own, chosen in zip(self.updates.values(), kept.split([len(s) for s in scores.values()]), strict=True):
            own.kept.copy_(chosen)
        self._clear()

    def _clear(self) -> None:
        for own in self.updates.values():
            own.e.masked_fill_(~own.kept, 0.0)

    def running(self) -> dict[str, torch.Tensor]:
        sums = {f"importance.{name}": value for name, value in self._importance.items()}
        sums |= {f"deviation.{name}": value for name, value in self._deviation.items()}
        return sums | {"allocations": self._allocations}


def attach(model: nn.Module, method: AdaLoRA, seed: int, batches: Batches | None = None) -> AllocatedRanks:
    """Put AdaLoRA's updates into a network."""
    return AllocatedRanks(model, method, seed)
