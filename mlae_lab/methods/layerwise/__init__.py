"""Layer-wise allocation: LoRA with a rank by depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Trait, blocks_of
from mlae_lab.core.patterns import FIXED_COUNTS
from mlae_lab.core.settings import setting

PATTERNS: dict[str, tuple[int, ...]] = {
    **{digits: tuple(map(int, digits)) for digits in ("2468", "8642", "8228", "2882")},
    **FIXED_COUNTS,
}


@dataclass(frozen=True)
class LayerWise(Method):
    """y = (W + B A) x + bias in qkv, with a rank for each block: experts of the pattern × rank of an expert.

    MoLA's patterns give the number of experts in each quarter of the depth, the others are the fixed masks of the MLAE
    paper, one number for each of twelve blocks; a network of another depth takes the number at the same relative
    depth. There is no router, so that the update can be merged. A and B start as LoRA's, with a factor of 1.

    Attributes:
        pattern: Experts by depth.
        expert_rank: Rank of each expert.
    """

    name: ClassVar[str] = "layerwise"
    title: ClassVar[str] = "Layer-wise LoRA"
    reference: ClassVar[str] = "Gao et al. 2024, Higher layers need more LoRA experts (MoLA); here without its router"
    formula: ClassVar[str] = "y = (W + B A) x + bias, rank by depth"
    summary: ClassVar[str] = "Trains a low-rank update of qkv whose rank depends on the depth."
    places: ClassVar[tuple[str, ...]] = ("qkv", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset(
        {Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID, Trait.PEFT}
    )

    pattern: str = field(
        default="2468",
        metadata=setting(
            "Pattern",
            "Experts by depth: in each quarter of the blocks (MoLA), or a fixed mask of the MLAE paper.",
            choices=tuple(PATTERNS),
        ),
    )
    expert_rank: int = field(
        default=1,
        metadata=setting("Rank of an expert", "The rank of a layer is this times its experts.", low=1, high=16),
    )

    def ranks(self, blocks: int) -> tuple[int, ...]:
        """The rank of each block. blocks: their number."""
        counts = PATTERNS[self.pattern]
        return tuple(self.expert_rank * counts[block * len(counts) // blocks] for block in range(blocks))

    def parameters(self, backbone: Backbone) -> int:
        shapes = blocks_of(backbone, self.title)
        return sum(self.ranks(shapes.count)) * sum(shapes.linears["attn.qkv"])
