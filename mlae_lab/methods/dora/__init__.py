"""DoRA: the direction of each weight row is updated by LoRA, its magnitude is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Trait, blocks_of
from mlae_lab.core.settings import rate
from mlae_lab.methods.lora import TARGETS, LowRankMethod


@dataclass(frozen=True)
class DoRA(LowRankMethod):
    """y = m ∘ (V x) / ‖V‖ + bias with V = W + α/r · B A, the norm of each row of V, and m the trained norms.

    A and B start as LoRA's, m at the norms of the rows of W.

    Attributes:
        dropout: Rate at which elements of the input of A are dropped.
    """

    name: ClassVar[str] = "dora"
    title: ClassVar[str] = "DoRA"
    reference: ClassVar[str] = "Liu et al. 2024, DoRA: Weight-decomposed low-rank adaptation (ICML)"
    formula: ClassVar[str] = "y = m ∘ (W + α/r · B A) x / ‖W + α/r · B A‖ + bias"
    summary: ClassVar[str] = "Trains a low-rank update of the direction and the magnitude of each weight row."
    traits: ClassVar[frozenset[Trait]] = frozenset(
        {Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID, Trait.PEFT}
    )

    dropout: float = rate(0.0, "Dropout", "Rate at which elements of the input of A are dropped in training.")

    def parameters(self, backbone: Backbone) -> int:
        shapes = blocks_of(backbone, self.title)
        layers = [shapes.linears[kind] for kind in TARGETS[self.targets]]
        return shapes.count * sum(self.rank * (d_in + d_out) + d_out for d_in, d_out in layers)
