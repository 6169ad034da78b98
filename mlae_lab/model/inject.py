"""Add experts to a network, merge them into its weights, remove them: `inject`, `merge`, `remove`.

Works on every `nn.Linear` of every module tree; names are exact, so `blocks.1.attn.qkv` never means
`blocks.10.attn.qkv`. None of this is a side effect of `train()` or `eval()`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError
from mlae_lab.model.experts import LEARNED_RATES, MaskSampler, MLAELinear, relaxed_factors


class InjectError(LabError):
    """A plan that does not fit the network; its text says which names would."""


class Experts:
    """The experts of a network.

    Attributes:
        plan: which experts exist.
        layers: target name to MLAELinear, only for rows that keep an expert.
        sampler: of the masks; `sample` sets every layer's mask for the next training step.
        factors: what `sample` returned last.
        drop_logits: target name to the learned log(p/(1-p)) of its layer; empty where no drop rate is learned.
    """

    def __init__(self, plan: MaskPlan, layers: dict[str, MLAELinear], seed: int, mask_per: str = "step") -> None:
        self.plan = plan
        self.layers = layers
        self.sampler = MaskSampler(plan, seed, mask_per)
        self.factors = torch.zeros(plan.rows, plan.columns)
        logits = {target: layer.drop_logit for target, layer in layers.items()}
        self.drop_logits = {target: logit for target, logit in logits.items() if logit is not None}

    def sample(self) -> torch.Tensor:
        """Sample the masks of one step and set them in all layers.

        Returns:
            (rows, columns) factors m/(1-p); with masks per token 1 for every expert, as each is active in the step.
            Where drop rates are learned, a layer takes relaxed factors in their place (`relaxed_factors`).
        """
        self.factors = self.sampler.sample(self.drop_rates())
        self._set(self.factors)
        return self.factors

    def resample(self) -> None:
        """Set other masks in all layers for a second pass of the same step; `factors` stays."""
        self._set(self.sampler.resample(self.drop_rates()))

    @torch.no_grad()
    def drop_rates(self) -> torch.Tensor:
        """The current drop rates, (rows, columns) float64; 0 where no expert exists."""
        if not self.drop_logits:
            return self.sampler.rates
        rates = torch.zeros_like(self.sampler.rates)
        rates[self.sampler.keep] = self._logits().sigmoid().to(rates)
        return rates

    def entropy(self) -> torch.Tensor:
        """Sum of H(p) = -p log p - (1-p) log(1-p) over all experts, in nats, for learned drop rates."""
        logits = self._logits()
        return (F.softplus(logits) - logits.sigmoid() * logits).sum()

    @torch.no_grad()
    def bound_rates(self) -> None:
        """Put learned drop rates back between LEARNED_RATES."""
        low, high = torch.logit(torch.tensor(LEARNED_RATES)).tolist()
        for logit in self.drop_logits.values():
            logit.clamp_(low, high)

    def _logits(self) -> torch.Tensor:
        """The learned log(p/(1-p)) of all experts, row by row."""
        return torch.cat([own.expand(len(self.layers[target].columns)) for target, own in self.drop_logits.items()])

    def _set(self, factors: torch.Tensor) -> None:
        for row, target in enumerate(self.plan.targets):
            layer = self.layers.get(target)
            if layer is not None:
                layer.mask = factors[row, list(layer.columns)].to(layer.a.device)
                layer.active = layer.mask > 0
                layer.noise = self.sampler.noise[row]
        if self.drop_logits and not self.sampler.by_token:
            relaxed = relaxed_factors(self.sampler.uniform[self.sampler.keep], self._logits())
            sizes = [len(layer.columns) for layer in self.layers.values()]
            for layer, mask in zip(self.layers.values(), relaxed.split(sizes), strict=True):
                layer.mask = mask

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors of the experts, `<target>.a|b|coefficient`."""
        return {
            f"{target}.{part}": getattr(layer, part)
            for target, layer in self.layers.items()
            for part in ("a", "b", "coefficient")
        }

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters: a, b, unless frozen the coefficients, and learned drop rates."""
        own = [p for layer in self.layers.values() for p in (layer.a, layer.b, layer.coefficient) if p.requires_grad]
        return [*own, *self.drop_logits.values()]


def inject(
    model: nn.Module,
    plan: MaskPlan,
    seed: int = 0,
    mask_per: str = "step",
    input_dropout: float = 0.0,
    learned_rates: str = "off",
) -> Experts:
    """Freeze a network and add the plan's experts. Its output stays the same bit for bit.

    Args:
        model: changed in place; all its parameters are frozen, and the caller unfreezes the head.
        plan: a row without experts leaves its layer unchanged.
        seed: of the initial values of a and of the masks.
        mask_per: see RunConfig.
        input_dropout: see RunConfig.
        learned_rates: RunConfig's learned_drop_rates.

    Raises:
        InjectError: a target is not a linear layer of this network, or it has experts already; the network is then
            unchanged.
    """
    modules = dict(model.named_modules())
    if any(isinstance(module, MLAELinear) for module in modules.values()):
        raise InjectError("the network already has experts: remove or merge them first")
    linears = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    for target in plan.targets:
        if target not in linears:
            names = [n for n in linears if n.endswith(target.rsplit(".", 1)[-1])] or list(linears)
            choice = f"{len(names)} such as {names[0]} … {names[-1]}" if names else "none"
            raise InjectError(f"{target!r} is not a linear layer of this network: it has {choice}")
    model.requires_grad_(False)
    layers = {}
    for row, target in enumerate(plan.targets):
        columns = tuple(i for i, kept in enumerate(plan.keep[row]) if kept)
        if not columns:
            continue
        layers[target] = MLAELinear(
            linears[target],
            columns,
            tuple(plan.drop_rate[row][i] for i in columns),
            plan.expert_rank,
            plan.coefficient_init,
            plan.train_coefficients,
            seed,
            target,
            mask_per == "token",
            input_dropout,
            learned_rates,
        ).train(linears[target].training)
        _replace(model, target, layers[target])
    return Experts(plan, layers, seed, mask_per)


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Merge all experts, on and unscaled, into plain linear layers: W + Σ λ b aᵀ. In place; returns the network."""
    for name, layer in _adapted(model):
        layer.base.weight += layer.delta().to(layer.base.weight.dtype)
        _replace(model, name, layer.base)
    return model


def remove(model: nn.Module) -> nn.Module:
    """Remove all experts; the frozen network is as it was before `inject`. In place; returns the network."""
    for name, layer in _adapted(model):
        _replace(model, name, layer.base)
    return model


def _adapted(model: nn.Module) -> list[tuple[str, MLAELinear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MLAELinear)]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
