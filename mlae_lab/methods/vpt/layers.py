"""Prompt tokens as modules: the first block inserts them, the last one removes them."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, blocks_of
from mlae_lab.methods.branches import Wrapper, device_of, uniform_, width_of
from mlae_lab.methods.vpt import VPTDeep, VPTShallow
from mlae_lab.model.experts import stream


class Prompts(nn.Module):
    """p trained tokens.

    Args:
        count: p.
        width: D.
        bound: Of the initial values U(-bound, bound).
        dropout: Of their elements.
        generator: Of the initial values.
    """

    def __init__(self, count: int, width: int, bound: float, dropout: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(count, width))
        self.dropout = dropout
        uniform_(self.tokens, bound, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens for a batch: (N, p, D), with a separate dropout for each image."""
        return self.dropout(self.tokens.to(x.dtype).expand(len(x), -1, -1))


class PromptedBlock(Wrapper):
    """A frozen block whose input has prompts between the prefix tokens and the patches.

    Args:
        base: The block.
        own: Prompts to put into the input, None to leave those that are there.
        prefix: Number of class and register tokens.
        count: p.
        first: Whether the input has no prompts yet.
        last: Whether to remove the prompts from the output.
    """

    def __init__(self, base: nn.Module, own: Prompts | None, prefix: int, count: int, first: bool, last: bool) -> None:
        super().__init__(base)
        self.own = own
        self.prefix, self.count, self.first, self.last = prefix, count, first, last

    def forward(self, x: torch.Tensor, *inputs: Any, **options: Any) -> torch.Tensor:
        if self.own is not None:
            patches = x[:, self.prefix + (0 if self.first else self.count) :]
            x = torch.cat([x[:, : self.prefix], self.own(x), patches], 1)
        if options.get("rope") is not None:
            options["rope"] = unrotated(options["rope"], self.count)
        x = self.base(x, *inputs, **options)
        if self.last:
            x = torch.cat([x[:, : self.prefix], x[:, self.prefix + self.count :]], 1)
        return x


def unrotated(rope: torch.Tensor, count: int) -> torch.Tensor:
    """Rotary embedding (..., tokens, [sin, cos]) with `count` more tokens in front, which are not rotated."""
    sin, cos = rope.chunk(2, -1)
    start = torch.cat([torch.zeros_like(sin[..., :1, :]), torch.ones_like(cos[..., :1, :])], -1)
    shape = list(rope.shape)
    shape[-2] = count
    return torch.cat([start.expand(shape), rope], -2)


def attach(model: nn.Module, method: VPTShallow | VPTDeep, seed: int, batches: Batches | None = None) -> Adapter:
    """Put prompts into a vision transformer whose blocks take a sequence of tokens.

    Raises:
        AttachError: The blocks take a map of tokens or add a bias for each pair of positions.
    """
    network: Any = model
    prefix = getattr(network, "num_prefix_tokens", None)
    blocks = blocks_of(model)
    if prefix is None or has_position_bias(model):
        raise AttachError(
            f"{type(model).__name__} has a fixed number of tokens and cannot take prompts: choose a ViT, DeiT, CLIP or "
            "DINO backbone"
        )
    height, width = network.patch_embed.patch_size
    adapter = Adapter(model, seed)
    for i, (name, block) in enumerate(blocks):
        features = width_of(name, block)
        bound = math.sqrt(6 / (3 * height * width + features))
        own = None
        if i == 0 or isinstance(method, VPTDeep):
            dropout = Dropout(adapter.noise, method.dropout)
            own = Prompts(method.prompts, features, bound, dropout, stream(seed, method.name, name))
            adapter.add(name, own.to(device_of(block)))
        if own is not None or i == len(blocks) - 1 or takes_rope(block):
            last = i == len(blocks) - 1
            adapter.replace(name, PromptedBlock(block, own, prefix, method.prompts, i == 0, last))
    return adapter


def has_position_bias(model: nn.Module) -> bool:
    """Whether attention adds a bias for each pair of positions, so that the number of tokens is fixed."""
    attentions = [model, *(block.get_submodule("attn") for _, block in blocks_of(model))]
    names = (
        "rel_pos",
        "rel_pos_bias",
        "rel_pos_h",
        "relative_position_bias_table",
        "attention_bias_cache",
        "shared_rel_pos",
    )
    return any(getattr(attention, name, None) is not None for attention in attentions for name in names)


def takes_rope(block: nn.Module) -> bool:
    """Whether the network passes a rotary embedding of the patches to the block."""
    return "rope" in inspect.signature(block.forward).parameters
