"""MLAE: masked rank-1 experts in linear layers; the method that the lab exists for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.budget import budget
from mlae_lab.core.method import Method, Recipe, Trait
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan, first_block
from mlae_lab.core.settings import ConfigError

_VALUES: Mapping[str, Any] = {
    "batch_size": 64, "optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 1e-4, "warmup": 0.0,
    "drop_path": 0.0, "normalisation": "half",
}  # fmt: skip


@dataclass(frozen=True)
class MLAE(Method):
    """Masked experts: y = (W + Σ m λ b aᵀ) x + bias (the paper's equations 3 to 5).

    Attributes:
        plan: Which experts exist and how often each is dropped.
        mask_per: As RunConfig's.
        input_dropout: As RunConfig's.
        consistency: As RunConfig's.

    Raises:
        ConfigError: Consistency without anything that is sampled.
    """

    name: ClassVar[str] = "mlae"
    title: ClassVar[str] = "Masked experts (MLAE)"
    reference: ClassVar[str] = "Wang et al. 2024, MLAE: Masked LoRA Experts for visual parameter-efficient fine-tuning"
    formula: ClassVar[str] = "y = (W + Σ mᵢ λᵢ bᵢ aᵢᵀ) x + bias"
    summary: ClassVar[str] = "Trains masked rank-1 experts in chosen linear layers."
    places: ClassVar[tuple[str, ...]] = ("qkv", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset(
        {Trait.MASK, Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID}
    )

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "the paper, section 4.1",
            {**_VALUES, "epochs": 500},
            "the paper tunes p and the initial λ for each task (Table 10); it does not state warm-up and drop path, "
            "which are 0 here",
        ),
        "fgvc": Recipe(
            "the paper, section 4.1",
            {**_VALUES, "epochs": 300, "preprocessing": "fgvc-rrc"},
            "the paper does not state warm-up and drop path, which are 0 here",
        ),
    }  # fmt: skip

    plan: MaskPlan = field(default_factory=dense)
    mask_per: str = "step"
    input_dropout: float = 0.0
    consistency: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        cells = zip(self.plan.keep, self.plan.drop_rate, strict=True)
        sampled = any(keep and rate for row in cells for keep, rate in zip(*row, strict=True))
        if self.consistency and not (sampled or self.input_dropout):
            raise ConfigError(
                f"consistency is {self.consistency:g} and the mask drops no expert, so that two passes are equal: set "
                "consistency to 0, or choose a mask with drop rates"
            )

    @property
    def consistency_weight(self) -> float:
        return self.consistency

    @property
    def what(self) -> str:
        return f"{self.plan.kind_name} mask"

    def check(self, backbone: Backbone) -> None:
        backbone.shapes(self.plan.targets)

    def parameters(self, backbone: Backbone) -> int:
        return budget(self.plan, backbone.shapes(self.plan.targets)).parameters

    def first_block(self, blocks: int) -> int:
        return first_block(self.plan, blocks)
