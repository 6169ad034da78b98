"""DoRA: the direction of each weight row is updated by LoRA, its magnitude is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import KINDS, Method, Trait, blocks_of
from mlae_lab.core.settings import rate, setting

TARGETS: dict[str, tuple[str, ...]] = {"qkv": KINDS[:1], "all": KINDS}


@dataclass(frozen=True)
class DoRA(Method):
    """y = m ∘ (V x) / ‖V‖ + bias with V = W + α/r · B A, the norm of each row of V, and m the trained norms.

    A and B start as LoRA's, m at the norms of the rows of W.

    Attributes:
        rank: r.
        alpha: α; 0 means r, a factor of 1.
        targets: Which layers have an update.
        dropout: Rate at which elements of the input of A are dropped.
    """

    name: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"
    reference: ClassVar[str] = "Liu et al. 2024, DoRA: Weight-decomposed low-rank adaptation (ICML)"
    formula: ClassVar[str] = "y = m ∘ (W + α/r · B A) x / ‖W + α/r · B A‖ + bias"
    summary: ClassVar[str] = "Trains a low-rank update of the direction and the magnitude of each weight row."
    places: ClassVar[tuple[str, ...]] = ("qkv", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID})

    rank: int = field(default=8, metadata=setting("Rank", "Rank r of each update.", low=1, high=256))
    alpha: float = field(
        default=0.0,
        metadata=setting(
            "Alpha", "The update is multiplied by alpha / rank; 0 means alpha = rank.", low=0, high=10_000
        ),
    )
    targets: str = field(
        default="qkv",
        metadata=setting(
            "Layers",
            "Which linear layers of each block have an update.",
            choices=tuple(TARGETS),
            titles={"all": "all linear layers"},
        ),
    )
    dropout: float = rate(0.0, "Dropout", "Rate at which elements of the input of A are dropped in training.")

    @property
    def scale(self) -> float:
        """The factor α/r."""
        return (self.alpha or self.rank) / self.rank

    def parameters(self, backbone: Backbone) -> int:
        shapes = blocks_of(backbone, self.title)
        layers = [shapes.linears[kind] for kind in TARGETS[self.targets]]
        return shapes.count * sum(self.rank * (d_in + d_out) + d_out for d_in, d_out in layers)
