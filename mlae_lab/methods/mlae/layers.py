"""The experts of a MaskPlan as an adapter (`model.experts`, `model.inject`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.core.plan import MaskPlan
from mlae_lab.methods.adapter import Adapter, Batches, Factors, copied
from mlae_lab.methods.mlae import MLAE
from mlae_lab.model.inject import inject, merge, remove

RATE_SPEED = 10.0  # learning rate of log(p/(1-p)) / that of the run: in 200 steps of 5e-3 AdamW moves it by up to 5
DROP_RATE = "drop_rate"  # name of the statistic


class MaskedExperts(Adapter):
    """Adapter with the experts of a plan."""

    def __init__(self, model: nn.Module, method: MLAE, seed: int) -> None:
        super().__init__(model, seed)
        experts = inject(model, method.plan, seed, method.mask_per, method.input_dropout, method.learned_drop_rates)
        self.experts, self._sampler, self.entropy_weight = experts, experts.sampler, method.drop_rate_entropy
        for target, layer in experts.layers.items():
            self.add(target, layer, tensors=("a", "b", "coefficient"))

    @property
    def plan(self) -> MaskPlan:
        """The mask; with learned drop rates it has their present values, which an adapter file keeps this way."""
        assert self.experts is not None
        plan = self.experts.plan
        if not self.experts.drop_logits:
            return plan
        return replace(plan, drop_rate=tuple(map(tuple, self.experts.drop_rates().tolist())))

    def parameters(self) -> dict[str, nn.Parameter]:
        assert self.experts is not None
        logits = {f"{target}.drop_logit": logit for target, logit in self.experts.drop_logits.items()}
        return super().parameters() | logits

    def rate_factors(self) -> dict[str, float]:
        assert self.experts is not None
        return {f"{target}.drop_logit": RATE_SPEED for target in self.experts.drop_logits}

    def penalty(self) -> torch.Tensor | None:
        assert self.experts is not None
        if not self.experts.drop_logits or not self.entropy_weight:
            return None
        return -self.entropy_weight / self.images * self.experts.entropy()

    def after_step(self, step: int, progress: float) -> None:
        assert self.experts is not None
        self.experts.bound_rates()

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        assert self.experts is not None
        if not self.experts.drop_logits:
            return {}
        rates = self.experts.drop_rates().tolist()
        kept = self.experts.plan.keep
        canvas = tuple(
            tuple(rate if keep else None for rate, keep in zip(*row, strict=True))
            for row in zip(rates, kept, strict=True)
        )
        return {DROP_RATE: ("Drop rate", canvas)}

    def grids(self) -> dict[str, Grid]:
        assert self.experts is not None
        plan, columns = self.experts.plan, tuple(str(n) for n in range(1, self.experts.plan.columns + 1))
        note = "Learned drop rate p of the expert. Crossed out: no expert."
        return {DROP_RATE: Grid(plan.row_labels, columns, "expert", note)} if self.experts.drop_logits else {}

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
