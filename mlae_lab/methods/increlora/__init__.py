"""IncreLoRA: ranks are added, step by step, to the layers where they matter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Trait
from mlae_lab.core.settings import ConfigError, rate, setting
from mlae_lab.methods.adalora import AdaptiveRankMethod, penalty_weight
from mlae_lab.methods.lora import LAYERS


@dataclass(frozen=True)
class IncreLoRA(AdaptiveRankMethod):
    """ΔW = α/r_l · Σ λ_i p_i q_iᵀ over the r_l active terms of layer l and its reserve.

    Each layer starts with one active term (λ = 0) and `growth` terms in reserve, whose λ is held at 1e-5 while p and q
    learn. In each round the `layers_per_round` layers with the highest score activate their reserve and get a new one,
    until the active terms number `rank` per layer on average; then reserves are off. p and q start from N(0, 0.02²).

    Deviations from the authors' code:

    - Each layer holds `max_rank` terms from the start, and flags say which are active, so that a checkpoint has one
      shape. Terms that are never used count as trained parameters and stay at their initial values (apart from weight
      decay). New terms share the optimizer's step count, where the authors add fresh parameter groups.
    - The score is |Σ λ_i ∂L/∂λ_i| = |⟨ΔW, ∂L/∂ΔW⟩|, where the authors sum |ΔW ∘ ∂L/∂ΔW|; that needs the full gradient
      of each weight, half as much work again. Both are divided by the root of the number of weights, and smoothed.
    - Rounds are spread evenly over a share of the training, because its number of steps may depend on the clock.

    Attributes:
        alpha: α; 0 means `rank`.
        max_rank: Most terms of a layer.
        growth: Terms that a chosen layer gains in a round.
        layers_per_round: Layers that are chosen in a round.
        targets: Which layers have an update.
        orthogonality: Weight of AdaLoRA's penalty, on the terms in use.
        warmup: Share of the training before the first round.
        end: Share of the training at the last round.
        smoothing: Of the score, β1.
        deviation_smoothing: Of its deviation, β2.
    """

    name: ClassVar[str] = "increlora"
    title: ClassVar[str] = "IncreLoRA"
    reference: ClassVar[str] = (
        "Zhang et al. 2023, IncreLoRA: Incremental parameter allocation for PEFT (arXiv 2308.12043)"
    )
    formula: ClassVar[str] = "y = (W + α/r · Σ λᵢ pᵢ qᵢᵀ) x + bias, r grows"
    summary: ClassVar[str] = "Trains a low-rank update whose ranks grow in the layers where they matter most."
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.LOW_RANK, Trait.MERGEABLE, Trait.PER_LAYER_GRID, Trait.PEFT})

    alpha: float = field(
        default=0.0,
        metadata=setting(
            "Alpha",
            "The update is multiplied by alpha / the layer's rank; 0 means alpha = final rank.",
            low=0,
            high=10_000,
        ),
    )
    max_rank: int = field(default=16, metadata=setting("Largest rank", "Most ranks of a layer.", low=2, high=384))
    growth: int = field(
        default=1, metadata=setting("Growth", "Ranks that a chosen layer gains in a round.", low=1, high=16)
    )
    layers_per_round: int = field(
        default=4, metadata=setting("Layers per round", "How many layers grow in a round.", low=1, high=64)
    )
    targets: str = field(default="qkv", metadata=LAYERS)
    orthogonality: float = penalty_weight()
    warmup: float = rate(0.1, "Before growth", "Share of the training before the first round.")
    end: float = rate(0.6, "End of growth", "Share of the training at the last round.", high=0.95)
    smoothing: float = rate(0.85, "Smoothing", "Of the score over the steps, β1.", high=0.999)
    deviation_smoothing: float = rate(0.85, "Smoothing of the deviation", "Of the score, β2.", high=0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank > self.max_rank:
            raise ConfigError(
                f"rank is {self.rank} and max_rank {self.max_rank}: the mean rank must not be larger, lower it"
            )
        if self.warmup >= self.end:
            raise ConfigError(f"warmup is {self.warmup:g} and end {self.end:g}: growth must end later than it begins")

    def rounds(self, layers: int) -> int:
        """Number of rounds until the mean rank is reached. layers: number of adapted layers."""
        return math.ceil(layers * (self.rank - 1) / (self.growth * min(self.layers_per_round, layers)))

    def rounds_due(self, progress: float, layers: int) -> int:
        """Rounds that should be over after a share of the training.

        Args:
            progress: [0, 1).
            layers: Number of adapted layers.
        """
        share = (progress - self.warmup) / (self.end - self.warmup)
        return int(min(max(share, 0.0), 1.0) * self.rounds(layers) + 1e-6)

    def parameters(self, backbone: Backbone) -> int:
        return self._count(backbone, self.targets, self.max_rank)

    def final_parameters(self, backbone: Backbone) -> int:
        """Parameters in use at the end, where all adapted layers have one shape; else with equal ranks of all."""
        return self._count(backbone, self.targets, self.rank)
