"""LoRA's updates with a rank for each block."""

from __future__ import annotations

from torch import nn

from mlae_lab.core.events import StatisticValue
from mlae_lab.methods.adapter import Batches, Noise, blocks_of
from mlae_lab.methods.layerwise import LayerWise
from mlae_lab.methods.lora.layers import LowRankAdapter, LowRankUpdate


class RanksByDepth(LowRankAdapter):
    """Adapter with the rank of each layer among its statistics."""

    def statistics(self) -> dict[str, tuple[str, StatisticValue]]:
        ranks = tuple(float(own.b.shape[1]) for own in self.updates.values())
        return super().statistics() | {"rank": ("Rank", ranks)}


def attach(model: nn.Module, method: LayerWise, seed: int, batches: Batches | None = None) -> RanksByDepth:
    """Put an update of the pattern's rank into each block."""
    ranks = dict(zip((name for name, _ in blocks_of(model)), method.ranks(len(blocks_of(model))), strict=True))

    def make(noise: Noise, name: str, base: nn.Linear) -> LowRankUpdate:
        return LowRankUpdate(base, ranks[name.removesuffix(".attn.qkv")], 1.0, seed, name)

    return RanksByDepth(model, seed, ("attn.qkv",), make)
