"""SSF: scale and shift the features after every operation of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import COMMON_VALUES, Method, Recipe, Trait, blocks_of


@dataclass(frozen=True)
class SSF(Method):
    """y = γ ∘ f(x) + β after patch embedding, both norms, all four linear layers of each block, and the last norm."""

    name: ClassVar[str] = "ssf"
    title: ClassVar[str] = "SSF"
    reference: ClassVar[str] = "Lian et al. 2022, Scaling and shifting your features (NeurIPS)"
    formula: ClassVar[str] = "y = γ ∘ f(x) + β"
    summary: ClassVar[str] = "Trains a scale γ and a shift β of the features after every operation of a block."
    places: ClassVar[tuple[str, ...]] = ("patch", "norm1", "qkv", "proj", "norm2", "fc1", "fc2", "norm", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "dongzelian/SSF, train_scripts/vit/vtab",
            {**COMMON_VALUES, "learning_rate": 5e-3, "weight_decay": 5e-5, "drop_path": 0.0},
            "the learning rate is the most frequent of their per-task values (1e-3 to 5e-2), and drop path is 0 to 0.2 "
            "by task there; their weights are AugReg's",
        ),
        "fgvc": Recipe(
            "dongzelian/SSF, train_scripts/vit/fgvc",
            {**COMMON_VALUES, "learning_rate": 1e-2, "weight_decay": 5e-2, "drop_path": 0.0},
            "their learning rates are 2e-4 to 2e-2 by task; they average the weights over the steps (EMA 0.9998), and "
            "by the defaults of their script smooth labels (0.1) and mix images (mixup 0.8, cutmix 1), none of which "
            "the lab does; their weights are AugReg's",
        ),
    }

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        of_linears = sum(d_out for _, d_out in blocks.linears.values())
        return 2 * (blocks.width + blocks.count * (2 * blocks.width + of_linears) + blocks.width)

    def first_block(self, blocks: int) -> int:
        return -1
