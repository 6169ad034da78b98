"""The experts of a MaskPlan as an adapter (`model.experts`, `model.inject`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, Batches, Factors, copied
from mlae_lab.methods.mlae import MLAE
from mlae_lab.model.inject import inject, merge, remove


class MaskedExperts(Adapter):
    """Adapter with the experts of a plan."""

    def __init__(self, model: nn.Module, method: MLAE, seed: int) -> None:
        super().__init__(model, seed)
        experts = inject(model, method.plan, seed, method.mask_per, method.input_dropout)
        self.experts, self._sampler = experts, experts.sampler
        for target, layer in experts.layers.items():
            self.add(target, layer, tensors=("a", "b", "coefficient"))

    def before_step(self, step: int, progress: float) -> None:
        super().before_step(step, progress)
        assert self.experts is not None
        self.experts.sample()

    def resample(self) -> None:
        super().resample()
        assert self.experts is not None
        self.experts.resample()

    def running(self) -> dict[str, torch.Tensor]:
        generators = self._sampler.generators
        return {f"generator.mask.{row}": generator.get_state() for row, generator in enumerate(generators)} | {
            "active_steps": self._sampler.active_steps
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for row, generator in enumerate(self._sampler.generators):
            generator.set_state(tensors[f"generator.mask.{row}"])
        copied(self._sampler.active_steps, tensors["active_steps"], "active_steps")

    def factors(self) -> dict[str, Factors]:
        assert self.experts is not None
        return {
            name: Factors(own.a.detach().cpu(), own.b.detach().cpu(), own.coefficient.detach().cpu(), own.rank)
            for name, own in self.experts.layers.items()
        }

    def merge(self) -> None:
        merge(self.model)

    def remove(self) -> None:
        remove(self.model)


def attach(model: nn.Module, method: MLAE, seed: int, batches: Batches | None = None) -> MaskedExperts:
    """Put the plan's experts into a network."""
    return MaskedExperts(model, method, seed)
