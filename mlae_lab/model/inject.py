"""Put experts into a network, fold them in, take them out: `inject`, `merge`, `remove`.

Works on every `nn.Linear` of every module tree; names are exact, so `blocks.1.attn.qkv` never
means `blocks.10.attn.qkv`. Nothing here happens as a side effect of `train()` or `eval()`.
"""

from __future__ import annotations

import torch
from torch import nn

from mlae_lab.core.plan import MaskPlan
from mlae_lab.errors import LabError
from mlae_lab.model.experts import MaskSampler, MLAELinear


class InjectError(LabError):
    """A plan that does not fit the network; its text says which names would."""


class Experts:
    """The experts inside one network.

    layers: target name to MLAELinear, only rows that keep an expert. `sample()` gives every layer
    the mask of the next training step.
    """

    def __init__(self, plan: MaskPlan, layers: dict[str, MLAELinear], seed: int, mask_per: str = "step") -> None:
        self.plan = plan
        self.layers = layers
        self.sampler = MaskSampler(plan, seed, mask_per)

    def sample(self) -> torch.Tensor:
        """Draw the masks of one step and hand them out; returns (rows, columns) factors m/(1-p), with a mask per token
        1 for every expert: each takes part in the step."""
        factors = self.sampler.sample()
        for row, target in enumerate(self.plan.targets):
            layer = self.layers.get(target)
            if layer is not None:
                layer.mask = factors[row, list(layer.columns)].to(layer.a.device)
                layer.noise = self.sampler.noise[row]
        return factors

    def parameters(self) -> list[nn.Parameter]:
        """What learns: a, b and, unless frozen, the coefficients."""
        return [p for layer in self.layers.values() for p in (layer.a, layer.b, layer.coefficient) if p.requires_grad]


def linear_names(model: nn.Module) -> list[str]:
    """Exact names of all linear layers of a network, in order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def inject(
    model: nn.Module, plan: MaskPlan, seed: int = 0, mask_per: str = "step", input_dropout: float = 0.0
) -> Experts:
    """Freeze a network and put the plan's experts into it.

    model: changed in place; all its parameters are frozen, a caller unfreezes the head. A row
    without experts leaves its layer alone. seed: of the draws of a and of the mask sequence.
    mask_per, input_dropout: see RunConfig.
    Right after, the network's output equals the frozen one's bit for bit.
    Raises InjectError if a target is not a linear layer of this network or experts are already there;
    the network is then unchanged.
    """
    modules = dict(model.named_modules())
    if any(isinstance(module, MLAELinear) for module in modules.values()):
        raise InjectError("the network already has experts: remove or merge them first")
    for target in plan.targets:
        if not isinstance(modules.get(target), nn.Linear):
            names = linear_names(model)
            like = [n for n in names if n.endswith(target.rsplit(".", 1)[-1])] or names
            raise InjectError(
                f"{target!r} is not a linear layer of this network: it has {len(like)} such as {like[0]} … {like[-1]}"
                if like else f"{target!r} is not a linear layer of this network: it has none"
            )  # fmt: skip
    model.requires_grad_(False)
    layers = {}
    for row, target in enumerate(plan.targets):
        columns = tuple(i for i, kept in enumerate(plan.keep[row]) if kept)
        if not columns:
            continue
        layers[target] = MLAELinear(
            modules[target],
            columns,
            tuple(plan.drop_rate[row][i] for i in columns),
            plan.expert_rank,
            plan.coefficient_init,
            plan.train_coefficients,
            seed,
            target,
            mask_per == "token",
            input_dropout,
        ).train(modules[target].training)
        _replace(model, target, layers[target])
    return Experts(plan, layers, seed, mask_per)


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Fold all experts, on and unscaled, into plain linear layers: W + Σ λ b aᵀ. In place; returns the network."""
    for name, layer in _adapted(model):
        layer.base.weight += layer.delta().to(layer.base.weight.dtype)
        _replace(model, name, layer.base)
    return model


def remove(model: nn.Module) -> nn.Module:
    """Take all experts out again; the frozen network is as it was before `inject`. In place; returns the network."""
    for name, layer in _adapted(model):
        _replace(model, name, layer.base)
    return model


def _adapted(model: nn.Module) -> list[tuple[str, MLAELinear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MLAELinear)]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
