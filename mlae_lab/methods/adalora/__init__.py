"""AdaLoRA: a budget of ranks that moves to the layers where it matters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, rate, setting
from mlae_lab.methods.lora import LAYERS, TARGETS


def penalty_weight() -> float:
    """The field of γ."""
    return rate(0.1, "Orthogonality", "Weight of the penalty that keeps the terms of a layer apart.", high=10)


@dataclass(frozen=True)
class AdaptiveRankMethod(Method):
    """What AdaLoRA and IncreLoRA share, up to the fields between others: their order is part of the hash of a run.

    Attributes:
        rank: Mean rank per layer at the end.
    """

    places: ClassVar[tuple[str, ...]] = ("qkv", "head")

    rank: int = field(default=8, metadata=setting("Final rank", "Mean rank per layer at the end.", low=1, high=256))

    def _count(self, backbone: Backbone, targets: str, rank: int) -> int:
        shapes = blocks_of(backbone, self.title)
        return shapes.count * sum(rank * (sum(shapes.linears[kind]) + 1) for kind in TARGETS[targets])


@dataclass(frozen=True)
class AdaLoRA(AdaptiveRankMethod):
    """ΔW = α/r · P diag(λ) Q; the least important λ of all layers together become 0, fewer and fewer remain.

    P and Q start from N(0, 0.02²), λ at 0. A penalty γ · mean(‖Q Qᵀ − I‖_F, ‖Pᵀ P − I‖_F) over all layers keeps the
    terms apart. With s(w) = Ī(w) Ū(w), the smoothed |w ∂L/∂w| and its smoothed deviation, a term i is as important as
    s(λ_i) + mean s(Q_i) + mean s(P_i).

    The budget stays at `start_rank` per layer during the first `warmup` of the training, falls to `rank` per layer by
    a cubic curve, and stays there for the last `final` of it. A λ that was set to 0 learns on and may return, until
    that last part begins.

    Deviations from the authors' code: the schedule follows the share of the training that is done, because its number
    of steps may depend on the clock; importance is taken from the weights before the optimizer's step, for which the
    gradient was computed; exactly the budget is kept when scores are equal.

    Attributes:
        start_rank: Rank of each layer at the start, r in the formula.
        alpha: α; 0 means start_rank, a factor of 1.
        targets: Which layers have an update.
        orthogonality: γ.
        warmup: Share of the training before the budget falls.
        final: Share of the training with the final ranks.
        interval: Share of the training between two allocations.
        smoothing: Of the importance, β1.
        deviation_smoothing: Of its deviation, β2.
    """

    name: ClassVar[str] = "adalora"
    title: ClassVar[str] = "AdaLoRA"
    reference: ClassVar[str] = (
        "Zhang et al. 2023, Adaptive budget allocation for parameter-efficient fine-tuning (ICLR)"
    )
    formula: ClassVar[str] = "y = (W + α/r · P diag(λ) Q) x + bias, unimportant λ = 0"
    summary: ClassVar[str] = "Trains a low-rank update whose ranks move to the layers where they matter most."
    traits: ClassVar[frozenset[Trait]] = frozenset(
        {Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID, Trait.PEFT}
    )

    start_rank: int = field(
        default=12, metadata=setting("Rank at the start", "Rank of each layer at the start.", low=2, high=384)
    )
    alpha: float = field(
        default=0.0,
        metadata=setting(
            "Alpha", "The update is multiplied by alpha / rank at the start; 0 means a factor of 1.", low=0, high=10_000
        ),
    )
    targets: str = field(default="qkv", metadata=LAYERS)
    orthogonality: float = penalty_weight()
    warmup: float = rate(0.1, "Before pruning", "Share of the training before ranks fall.")
    final: float = rate(0.25, "After pruning", "Share of the training with the final ranks.")
    interval: float = field(
        default=0.01,
        metadata=setting("Interval", "Share of the training between two allocations.", low=0, high=0.5, step=0.01),
    )
    smoothing: float = rate(0.85, "Smoothing", "Of the importance over the steps, β1.", high=0.999)
    deviation_smoothing: float = rate(0.85, "Smoothing of the deviation", "Of the importance, β2.", high=0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank > self.start_rank:
            raise ConfigError(
                f"rank is {self.rank} and start_rank {self.start_rank}: the final rank must not be larger, lower it"
            )
        if self.warmup + self.final >= 1:
            raise ConfigError(
                f"warmup is {self.warmup:g} and final {self.final:g}: together they must stay below 1, so that ranks "
                "can fall in between"
            )

    @property
    def scale(self) -> float:
        """The factor α/r."""
        return (self.alpha or self.start_rank) / self.start_rank

    def budget(self, progress: float, layers: int) -> int:
        """Ranks of all layers together after a share of the training.

        Args:
            progress: [0, 1).
            layers: Number of adapted layers.
        """
        done = (progress - self.warmup) / (1 - self.final - self.warmup)
        remaining = 1 - min(max(done, 0.0), 1.0)
        above = layers * (self.start_rank - self.rank) * remaining**3
        return int(above + 1e-9) + layers * self.rank  # 5.9999999 is 6

    def parameters(self, backbone: Backbone) -> int:
        return self._count(backbone, self.targets, self.start_rank)

    def final_parameters(self, backbone: Backbone) -> int:
        """Parameters in use at the end, where all adapted layers have one shape; else with equal ranks of all."""
        return self._count(backbone, self.targets, self.rank)
