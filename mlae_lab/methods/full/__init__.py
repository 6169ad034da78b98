"""Full fine-tuning: every weight of the network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import VPT_VALUES, Method, Recipe, Trait, with_crops


def vpt_recipes(largest: str) -> dict[str, Recipe]:
    """The recipes of VPT's baselines with AdamW. largest: learning rate for a batch of 256."""
    recipe = Recipe(
        "Jia et al. 2022, VPT, appendix: Full, Partial, Bias and Adapter",
        {**VPT_VALUES, "learning_rate": float(largest) * 64 / 256},
        "the authors search learning rates of 1e-4 to 5e-3 times batch / 256 and weight decays of 0 to 1e-2 for each "
        f"task; these are {largest} times 64 / 256 and 1e-4; their code decays by 1e-2, and biases not at all",
    )
    return {"vtab": recipe, "fgvc": with_crops(recipe)}


@dataclass(frozen=True)
class FullFineTuning(Method):
    """All parameters θ of the network are trained, the head among them."""

    name: ClassVar[str] = "full"
    title: ClassVar[str] = "Full fine-tuning"
    reference: ClassVar[str] = "the baseline of every transfer study; protocol of Jia et al. 2022, VPT (ECCV)"
    formula: ClassVar[str] = "y = f(x; θ), θ trained"
    summary: ClassVar[str] = "Trains every weight of the network."
    places: ClassVar[tuple[str, ...]] = ("patch", "norm1", "qkv", "proj", "norm2", "fc1", "fc2", "norm", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = vpt_recipes("5e-4")

    @property
    def what(self) -> str:
        return "full fine-tuning"

    def check(self, backbone: Backbone) -> None:
        """Every network has weights."""

    def parameters(self, backbone: Backbone) -> int:
        return backbone.parameters

    def first_block(self, blocks: int) -> int:
        return -1
