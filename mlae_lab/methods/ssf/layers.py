"""SSF's scales and shifts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, AttachError, Batches, blocks_of
from mlae_lab.methods.ssf import SSF
from mlae_lab.model.experts import stream

OPERATIONS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
DEVIATION = 0.02  # of the initial values, as in the authors' code


class ScaleShift(nn.Module):
    """γ and β of D features: γ ~ N(1, 0.02²), β ~ N(0, 0.02²). (..., D) -> (..., D).

    Args:
        width: D.
        generator: Of the initial values.
        of_map: For (N, D, H, W) -> (N, D, H, W).
    """

    def __init__(self, width: int, generator: torch.Generator, of_map: bool = False) -> None:
        super().__init__()
        self.shape = (-1, 1, 1) if of_map else (-1,)
        self.scale = nn.Parameter(1 + DEVIATION * torch.randn(width, generator=generator))
        self.shift = nn.Parameter(DEVIATION * torch.randn(width, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.to(x.dtype).view(self.shape) + self.shift.to(x.dtype).view(self.shape)


class Scaled(nn.Module):
    """A frozen operation whose output is scaled and shifted."""

    def __init__(self, base: nn.Module, own: ScaleShift) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, *inputs: Any) -> torch.Tensor:
        return self.own(self.base(*inputs))


class ScaledFeatures(Adapter):
    """Adapter with a scale and a shift for each operation."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__(model, seed)
        generator = stream(seed, "ssf")
        names = [_patches(model), *(f"{name}.{kind}" for name, _ in blocks_of(model) for kind in OPERATIONS)]
        for name in (*names, _last_norm(model)):
            base: Any = model.get_submodule(name)
            own = ScaleShift(len(base.weight), generator, of_map=isinstance(base, nn.Conv2d)).to(base.weight.device)
            self.add(name, own)
            self.replace(name, Scaled(base, own))

    @torch.no_grad()
    def merge(self) -> None:
        for name, replaced in self._replaced:
            base: Any = replaced
            own: Any = self._modules[name]
            base.weight.mul_(own.scale.view(-1, *(1 for _ in base.weight.shape[1:])))
            if base.bias is None:
                base.bias = nn.Parameter(torch.zeros_like(own.shift), requires_grad=False)
            base.bias.mul_(own.scale).add_(own.shift)
        self.remove()


def _patches(model: Any) -> str:
    """Name of the convolution that gives the tokens."""
    names = [name for name, module in model.patch_embed.named_modules() if isinstance(module, nn.Conv2d)]
    if not names:
        raise AttachError(f"{type(model).__name__} embeds patches without a convolution: choose a vision transformer")
    return f"patch_embed.{names[-1]}"


def _last_norm(model: Any) -> str:
    """Name of the network's last norm, which for average pooling comes after it."""
    for name in ("norm", "fc_norm"):
        if isinstance(getattr(model, name, None), nn.LayerNorm):
            return name
    raise AttachError(f"{type(model).__name__} has no last LayerNorm: choose a vision transformer")


def attach(model: nn.Module, method: SSF, seed: int, batches: Batches | None = None) -> ScaledFeatures:
    """Put a scale and a shift behind every operation of a vision transformer."""
    return ScaledFeatures(model, seed)
