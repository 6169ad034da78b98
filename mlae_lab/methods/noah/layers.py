"""NOAH's prompts, LoRA and adapters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from mlae_lab.core.events import Grid, StatisticValue
from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, blocks_of, linears_of
from mlae_lab.methods.branches import Parallel, uniform
from mlae_lab.methods.noah import NOAH
from mlae_lab.methods.vpt.layers import has_position_bias, takes_rope
from mlae_lab.model.experts import stream


def _xavier(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    return uniform((rows, columns), (6 / (rows + columns)) ** 0.5, generator)


class Prompts(nn.Module):
    """p prompts at the end of the tokens, in place of those of an earlier block. (N, T, D) -> (N, T - earlier + p, D).

    Xavier-uniform as of a (1, p, D) tensor, as in the authors' code: ±sqrt(6 / (D (p + 1))).

    Args:
        number: p.
        width: D.
        earlier: Prompts that the tokens end with.
        drop: Dropout of the prompts' elements.
        generator: Of the initial values.
    """

    def __init__(self, number: int, width: int, earlier: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens = uniform((number, width), (6 / (width * (number + 1))) ** 0.5, generator)
        self.earlier, self.drop = earlier, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        prompts = self.drop(self.tokens.to(x.dtype).expand(len(x), -1, -1))
        return torch.cat([x[:, : x.shape[1] - self.earlier], prompts], 1)


class LowRank(nn.Module):
    """B A drop(x), (..., d_in) -> (..., d_out). A is uniform in ±1/sqrt(d_in), B = 0."""

    def __init__(self, d_in: int, d_out: int, rank: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.a = uniform((rank, d_in), d_in**-0.5, generator)
        self.b = nn.Parameter(torch.zeros(d_out, rank))
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(self.drop(x), self.a.to(x.dtype)), self.b.to(x.dtype))


class Bottleneck(nn.Module):
    """U drop(σ(V h + c)) + d with σ(z) = z sigmoid(1.702 z), (..., D) -> (..., D).

    U and V are Xavier-uniform, c and d ~ N(0, 10⁻¹²): it is not 0 at the start.
    """

    def __init__(self, width: int, hidden: int, drop: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up = _xavier(hidden, width, generator), _xavier(width, hidden, generator)
        self.down_bias = nn.Parameter(1e-6 * torch.randn(hidden, generator=generator))
        self.up_bias = nn.Parameter(1e-6 * torch.randn(width, generator=generator))
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.linear(x, self.down.to(x.dtype), self.down_bias.to(x.dtype))
        z = self.drop(z * torch.sigmoid(1.702 * z))
        return F.linear(z, self.up.to(z.dtype), self.up_bias.to(z.dtype))


class Following(nn.Module):
    """y + g(y), y = f(x), of a frozen f and a trained g."""

    def __init__(self, base: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        return y + self.own(y)


class PromptModules(Adapter):
    """Adapter with prompts, LoRA and adapters of given sizes.

    Prompts come in through hooks of the blocks, so that the names in the network stay, and the last block drops them:
    pooling sees the network's own tokens. The authors' prompt in front of block 0 is left out, since their block 0
    replaces it and it never gets a gradient.
    """

    def __init__(self, model: nn.Module, method: NOAH, seed: int) -> None:
        super().__init__(model, seed)
        blocks = blocks_of(model)
        self.sizes = method.sizes(len(blocks))
        self._hooks: list[RemovableHandle] = []
        generator = stream(seed, "noah")
        earlier = 0
        if any(self.sizes.prompt) and (has_position_bias(model) or any(takes_rope(block) for _, block in blocks)):
            raise AttachError(  # a rotary embedding has one row for each of the network's own tokens
                f"{type(model).__name__} has a fixed number of tokens and cannot take prompts: choose a ViT, DeiT, "
                "CLIP or DINO backbone, or prompt=0"
            )
        for index, (name, block) in enumerate(blocks):
            if not hasattr(block, "drop_path2"):
                raise AttachError(f"{name} is a {type(block).__name__} without drop_path2: choose a plain ViT")
            width = block.norm1.weight.numel()
            if number := self.sizes.prompt[index]:
                prompts = Prompts(number, width, earlier, self._drop(method), generator)
                self.add(f"{name}.prompt", prompts.to(block.norm1.weight.device))
                self._hooks.append(block.register_forward_pre_hook(_prompted(prompts)))
                earlier = number
            if size := self.sizes.adapter[index]:
                own = Bottleneck(width, size, self._drop(method), generator).to(block.norm1.weight.device)
                self.add(f"{name}.adapter", own)
                self.replace(f"{name}.drop_path2", Following(block.drop_path2, own))
        if earlier:
            self._hooks.append(blocks[-1][1].register_forward_hook(_without(earlier)))
        for (name, base), rank in zip(linears_of(model, ("attn.qkv",)), self.sizes.lora, strict=True):
            if rank:
                own = LowRank(base.in_features, base.out_features, rank, self._drop(method), generator)
                self.add(name, own.to(base.weight.device))
                self.replace(name, Parallel(base, own))

    def _drop(self, method: NOAH) -> Dropout:
        return Dropout(self.noise, method.dropout)

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        lines = tuple(tuple(float(size) if size else None for size in line) for line in zip(*self.sizes, strict=True))
        return {"sizes": ("Sizes of the sub-network", lines)}

    def grids(self) -> dict[str, Grid]:
        note = "Number of prompts, rank of LoRA, and width of the adapter of each block. Crossed out: none."
        rows = tuple(str(number) for number in range(1, 1 + len(self.sizes.prompt)))
        return {"sizes": Grid(rows, ("prompts", "LoRA", "adapter"), "module", note)}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        super().remove()


def _prompted(prompts: Prompts) -> Any:
    """Forward pre-hook of a block that adds prompts to its tokens."""

    def hook(block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (prompts(inputs[0]), *inputs[1:])

    return hook


def _without(number: int) -> Any:
    """Forward hook of a block that drops the last tokens of its output."""

    def hook(block: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output[:, : output.shape[1] - number]

    return hook


def attach(model: nn.Module, method: NOAH, seed: int, batches: Batches | None = None) -> PromptModules:
    """Put prompts, LoRA and adapters into the blocks."""
    return PromptModules(model, method, seed)
