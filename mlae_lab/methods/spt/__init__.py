"""SPT: gradients before training choose which weights are tuned, one by one or by a module for a whole matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, rate, setting

ALPHA = 10  # a matrix gets a module where it has at least 1/ALPHA as many sensitive weights as a module has parameters
BETA = 5  # a vector is tuned whole where at least 1/BETA of it is sensitive
_NOTE = (
    "the authors report the best of five budgets (0.2 to 1 million) by test accuracy, and let a choice exceed its "
    f"budget; {NOT_LIKE_THE_AUTHORS}"
)


def module_size(d_in: int, d_out: int, rank: int, bottleneck: bool) -> int:
    """Parameters of a matrix's module. bottleneck: an adapter after the layer, with biases, in place of LoRA."""
    return 2 * d_out * rank + rank + d_out if bottleneck else rank * (d_in + d_out)


@dataclass(frozen=True)
class _Sensitive(Method):
    """What both variants share."""

    reference: ClassVar[str] = "He et al. 2023, Sensitivity-aware visual parameter-efficient fine-tuning (ICCV)"
    places: ClassVar[tuple[str, ...]] = ("norm1", "qkv", "proj", "norm2", "fc1", "fc2", "norm", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.IDENTITY_AT_INIT, Trait.PER_LAYER_GRID})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        name: Recipe(f"ziplab/SPT, train_spt.py and {scripts}", IMAGENET_VALUES, _NOTE)
        for name, scripts in (("vtab", "configs for VTAB"), ("fgvc", "configs for FGVC"))
    }

    budget: int = field(
        default=400_000,
        metadata=setting(
            "Budget",
            "The most parameters that are tuned, without the head. The authors try 200,000 to 1,000,000.",
            low=1_000, high=100_000_000, step=100_000,
        ),
    )  # fmt: skip
    rank: int = field(default=8, metadata=setting("Rank", "Rank r of the module of a matrix.", low=1, high=128))
    dropout: float = rate(0.1, "Dropout", "Dropout rate of a module's input.")
    drop_path: float = rate(0.1, "Drop path", "Rate at which a module is off for a whole image in training.")
    batches: int = field(
        default=16,
        metadata=setting("Batches", "Batches of images that the sensitivity is measured on.", low=1, high=10_000),
    )

    def check(self, backbone: Backbone) -> None:
        blocks = blocks_of(backbone, self.title)
        weights = blocks.count * sum(d_in * d_out for d_in, d_out in blocks.linears.values())
        if not blocks.width < self.budget <= weights:
            raise ConfigError(
                f"budget is {self.budget}: with {backbone.name} it must be above {blocks.width} and at most {weights}"
            )

    def parameters(self, backbone: Backbone) -> int:
        """The budget: what is stored and given to the optimizer. The choice may leave a small rest of it unused."""
        self.check(backbone)
        return self.budget

    def first_block(self, blocks: int) -> int:
        return -1  # the class token is tuned


@dataclass(frozen=True)
class SPTLoRA(_Sensitive):
    """Sensitive weights are tuned one by one; matrices with many of them get W + B A."""

    name: ClassVar[str] = "spt_lora"
    title: ClassVar[str] = "SPT-LoRA"
    formula: ClassVar[str] = "W + sparse ΔW, or W + B A where many weights are sensitive; sensitivity s = Σ g²"
    summary: ClassVar[str] = "Trains the weights with the largest gradients, and LoRA where a matrix has many of them."
    traits: ClassVar[frozenset[Trait]] = _Sensitive.traits | {Trait.MERGEABLE}


@dataclass(frozen=True)
class SPTAdapter(_Sensitive):
    """Sensitive weights are tuned one by one; layers with many of them get a bottleneck after them."""

    name: ClassVar[str] = "spt_adapter"
    title: ClassVar[str] = "SPT-Adapter"
    formula: ClassVar[str] = "W + sparse ΔW, or y + U GELU(V y) where many weights are sensitive; sensitivity s = Σ g²"
    summary: ClassVar[str] = "Trains the weights with the largest gradients, and adapters where a matrix has many."
