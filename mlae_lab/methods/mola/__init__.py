"""MoLA: LoRA experts with a router for each token, and different numbers of experts by depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import COMMON_VALUES, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import rate, setting

PATTERNS = ("2468", "8642", "8228", "2882")  # experts in each quarter of the blocks, first to last
ACTIVE = 2  # experts of a token


def experts(pattern: str, blocks: int) -> tuple[int, ...]:
    """Number of experts of each block: a digit of the pattern for each quarter of the blocks."""
    return tuple(int(pattern[4 * block // blocks]) for block in range(blocks))


@dataclass(frozen=True)
class MoLA(Method):
    """y = f(x) + (α/r) Σ_{i in top 2} g_i(x) B_i A_i x on qkv, g the softmax of a router over the two."""

    name: ClassVar[str] = "mola"
    title: ClassVar[str] = "MoLA"
    reference: ClassVar[str] = "Gao et al. 2024, Higher layers need more LoRA experts"
    formula: ClassVar[str] = "y = f(x) + (α/r) Σ gᵢ(x) Bᵢ Aᵢ x over the top 2 of n experts"
    summary: ClassVar[str] = "Trains LoRA experts in qkv and a router that gives each token to two of them."
    places: ClassVar[tuple[str, ...]] = ("qkv", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.LOW_RANK, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        name: Recipe(
            "the lab's: the settings of LoRA in ZhangYuanhan-AI/NOAH, with MoLA's rank and pattern",
            COMMON_VALUES,
            "the authors tune language models and publish no recipe for images",
        )
        for name in ("vtab", "fgvc")
    }

    pattern: str = field(
        default="2468",
        metadata=setting("Pattern", "Experts in each quarter of the blocks, from the first to the last.",
                         choices=PATTERNS),
    )  # fmt: skip
    rank: int = field(default=8, metadata=setting("Rank", "Rank r of each expert.", low=1, high=128))
    alpha: float = field(
        default=8.0,
        metadata=setting("Alpha", "α: the update is scaled by α/r.", low=0, high=1024, exclusive=True),
    )
    dropout: float = rate(0.0, "Dropout", "Dropout rate of the experts' input.")
    balance: float = field(
        default=0.0,
        metadata=setting(
            "Balance",
            "Weight of the loss n Σ fᵢ pᵢ, which is 1 where all experts have equal shares f of the tokens and equal "
            "mean probabilities p.",
            low=0, high=10, step=0.01,
        ),
    )  # fmt: skip

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        d_in, d_out = blocks.linears["attn.qkv"]
        return sum(experts(self.pattern, blocks.count)) * (self.rank * (d_in + d_out) + d_in)
