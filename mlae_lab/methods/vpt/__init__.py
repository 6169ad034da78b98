"""Visual prompt tuning: trained tokens that the blocks attend to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, Method, Recipe, blocks_of
from mlae_lab.core.settings import setting

_NOTE = (
    "theirs is SGD with momentum 0.9, a learning rate of 0.05 to 50 × batch/256, a weight decay of 0 to 1e-2 and 1 to "
    "200 prompts, all chosen by task; the learning rate here is what NOAH uses for prompts with AdamW"
)


def _recipes(vtab: int, fgvc: int, per_task: str) -> dict[str, Recipe]:
    return {
        "vtab": Recipe("Jia et al. 2022 (VPT), appendix; KMnP/vpt", {**IMAGENET_VALUES, "prompts": vtab}, _NOTE),
        "fgvc": Recipe(
            "Jia et al. 2022 (VPT), appendix; KMnP/vpt", {**IMAGENET_VALUES, "prompts": fgvc}, f"{_NOTE}; {per_task}"
        ),
    }


def _prompts() -> dict:
    return setting("Prompts", "Number p of prompt tokens; the paper tries 1, 5, 10, 50, 100 and 200.", low=1, high=1000)


def _dropout() -> dict:
    return setting("Dropout", "Rate at which elements of prompts are dropped in training.", low=0, high=0.9, step=0.05)


@dataclass(frozen=True)
class VPTShallow(Method):
    """[prefix, P, patches] is the input of block 0; the prompts pass through all blocks and are then removed.

    P (p, D) starts at U(±√(6 / (3 h w + D))) with patches of h x w pixels, gets no position embedding and comes after
    the class and register tokens. Pooling and head never see a prompt.
    """

    name: ClassVar[str] = "vpt_shallow"
    title: ClassVar[str] = "VPT-Shallow"
    reference: ClassVar[str] = "Jia et al. 2022, Visual prompt tuning (ECCV)"
    formula: ClassVar[str] = "[c, P, x] is the input of block 1"
    summary: ClassVar[str] = "Trains prompt tokens in the input of the first block."
    places: ClassVar[tuple[str, ...]] = ("tokens", "head")
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(50, 100, "50 prompts for NABirds")

    prompts: int = field(default=50, metadata=_prompts())
    dropout: float = field(default=0.0, metadata=_dropout())

    def parameters(self, backbone: Backbone) -> int:
        return self.prompts * blocks_of(backbone, self.title).width


@dataclass(frozen=True)
class VPTDeep(Method):
    """[prefix, P_i, patches] is the input of block i: each block replaces the prompts of the one before it.

    Initial values and place as for VPT-Shallow.
    """

    name: ClassVar[str] = "vpt_deep"
    title: ClassVar[str] = "VPT-Deep"
    reference: ClassVar[str] = VPTShallow.reference
    formula: ClassVar[str] = "[c, Pᵢ, x] is the input of block i"
    summary: ClassVar[str] = "Trains separate prompt tokens in the input of every block."
    places: ClassVar[tuple[str, ...]] = ("tokens", "head")
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(
        50, 10, "10, 50, 5, 100 and 200 prompts for CUB, NABirds, Flowers, Dogs and Cars"
    )

    prompts: int = field(default=50, metadata=_prompts())
    dropout: float = field(default=0.1, metadata=_dropout())

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        return self.prompts * blocks.count * blocks.width
