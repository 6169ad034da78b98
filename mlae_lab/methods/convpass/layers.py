"""Convpass's bypass."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.methods.adapter import Adapter, AttachError, Batches, Dropout, blocks_of
from mlae_lab.methods.branches import BRANCHES, Projection, QuickGELU, device_of, parallel, uniform_, width_of
from mlae_lab.methods.convpass import Convpass
from mlae_lab.model.experts import stream


class Bypass(nn.Module):
    """s U dropout(σ(K * σ(D h))): (N, prefix + G², features) -> the same shape.

    Args:
        width: Features of a token.
        prefix: Number of class and register tokens.
        method: The settings.
        dropout: Of the hidden elements.
        generator: Of the initial values.
    """

    def __init__(self, width: int, prefix: int, method: Convpass, dropout: Dropout, generator: torch.Generator) -> None:
        super().__init__()
        d = method.bottleneck
        self.prefix, self.scale, self.dropout, self.activation = prefix, method.scale, dropout, QuickGELU()
        self.down, self.up = Projection(width, d), Projection(d, width)
        uniform_(self.down.weight, math.sqrt(6 / (width + d)), generator)
        self.kernel = nn.Parameter(torch.zeros(d, d, 3, 3))
        self.bias = nn.Parameter(torch.zeros(d))
        if method.initialisation == "identity":
            with torch.no_grad():
                self.kernel[:, :, 1, 1] = torch.eye(d)
        else:
            uniform_(self.kernel, math.sqrt(6 / (18 * d)), generator)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.convolved(self.activation(self.down(h))))
        return self.scale * self.up(self.dropout(hidden))

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        """K over the square map of patches, and over each prefix token as a map of one token."""
        kernel, bias = self.kernel.to(x.dtype), self.bias.to(x.dtype)
        start, patches = x[:, : self.prefix], x[:, self.prefix :]
        size = math.isqrt(patches.shape[1])
        patches = patches.transpose(1, 2).unflatten(2, (size, size))
        patches = F.conv2d(patches, kernel, bias, padding=1).flatten(2).transpose(1, 2)
        if not self.prefix:
            return patches
        return torch.cat([F.linear(start, kernel[:, :, 1, 1], bias), patches], 1)


def attach(model: nn.Module, method: Convpass, seed: int, batches: Batches | None = None) -> Adapter:
    """Put bypasses into a vision transformer whose blocks take a sequence of tokens with a square map of patches.

    Raises:
        AttachError: They do not.
    """
    prefix = getattr(model, "num_prefix_tokens", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if prefix is None or grid is None or grid[0] != grid[1]:
        raise AttachError(
            f"{type(model).__name__} has no square map of tokens in its blocks: choose a ViT, DeiT, CLIP or DINO "
            "backbone with a square image"
        )
    adapter = Adapter(model, seed)
    for name, block in blocks_of(model):
        for branch in BRANCHES if method.place == "block" else ("attn",):
            dropout, generator = Dropout(adapter.noise, method.dropout), stream(seed, "convpass", name, branch)
            own = Bypass(width_of(name, block), prefix, method, dropout, generator).to(device_of(block))
            parallel(adapter, name, block, branch, own, normed=True)
    return adapter
