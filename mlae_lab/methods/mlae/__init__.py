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

    Learned drop rates (concrete dropout, Gal, Hron and Kendall 2017): the masks of a step are relaxed
    (`model.experts.relaxed_factors`), so that the loss has a gradient in ρ = log(p/(1-p)), and the loss is

        cross-entropy - w/N · Σ_i H(p_i),    H(p) = -p log p - (1-p) log(1-p),    N training images

    The training loss alone would drive every p to 0: noise makes the images that are trained on harder to fit, and the
    factor 1/(1-p) leaves nothing but the noise for p to change. With w = 1 the loss is the variational bound of
    concrete dropout with one Bernoulli variable per expert (K = 1 there): p tends to 1/2 for an expert that changes
    nothing, and to less for one that contributes. The other term there, l²(1-p)/2 ‖M‖², is left out (a wide prior,
    l → 0); the optimizer's weight decay acts on a, b and λ. ρ has `layers.RATE_SPEED` times the learning rate of the
    run and no weight decay, and p stays within `model.experts.LEARNED_RATES`.

    A hypergradient on held-out images would be the alternative. It needs images that are then not trained on, so its
    accuracies would not be comparable with those of fixed rates; evaluation is unmasked, so p acts on the held-out loss
    only through later steps, and looking ahead a single step needs further passes and prefers too little noise (Wu et
    al. 2018, Understanding short-horizon bias).

    Attributes:
        plan: Which experts exist and how often each is dropped.
        mask_per: As RunConfig's.
        input_dropout: As RunConfig's.
        consistency: As RunConfig's.
        learned_drop_rates: As RunConfig's.
        drop_rate_entropy: w, as RunConfig's.

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
        {Trait.MASK, Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID, Trait.PEFT}
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
    learned_drop_rates: str = "off"
    drop_rate_entropy: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        cells = zip(self.plan.keep, self.plan.drop_rate, strict=True)
        learned = self.learned_drop_rates != "off"
        sampled = any(keep and (rate or learned) for row in cells for keep, rate in zip(*row, strict=True))
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
        return f"{self.plan.kind_name} mask" + (", learned p" if self.learned_drop_rates != "off" else "")

    def check(self, backbone: Backbone) -> None:
        backbone.shapes(self.plan.targets)

    def parameters(self, backbone: Backbone) -> int:
        return budget(self.plan, backbone.shapes(self.plan.targets)).parameters + self.learned_rates

    @property
    def learned_rates(self) -> int:
        """Number of drop rates that are trained."""
        kept = [experts for experts in self.plan.kept if experts]
        return {"off": 0, "layer": len(kept), "expert": sum(kept)}[self.learned_drop_rates]

    def first_block(self, blocks: int) -> int:
        return first_block(self.plan, blocks)
