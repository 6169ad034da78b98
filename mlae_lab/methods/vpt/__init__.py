"""Visual prompt tuning: trained tokens that the blocks attend to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Recipe, blocks_of, sgd_of_vpt, with_crops
from mlae_lab.core.settings import rate, setting

_NOTE = (
    "they choose learning rates of 0.05 to 50 times batch / 256, weight decays of 0 to 1e-2 and 1 to 200 prompts by "
    "task; these are 1 times 64 / 256 and 1e-4, and the bias of the head is decayed too"
)


def _recipes(vtab: int, fgvc: int, per_task: str) -> dict[str, Recipe]:
    def recipe(prompts: int, note: str) -> Recipe:
        return Recipe("Jia et al. 2022 (VPT), appendix; KMnP/vpt", {**sgd_of_vpt(64), "prompts": prompts}, note)

    return {"vtab": recipe(vtab, _NOTE), "fgvc": with_crops(recipe(fgvc, f"{_NOTE}; {per_task}"))}


def _dropout(default: float) -> float:
    return rate(default, "Dropout", "Rate at which elements of prompts are dropped in training.")


@dataclass(frozen=True)
class _Prompts(Method):
    """What both variants share."""

    reference: ClassVar[str] = "Jia et al. 2022, Visual prompt tuning (ECCV)"
    places: ClassVar[tuple[str, ...]] = ("tokens", "head")

    prompts: int = field(
        default=50,
        metadata=setting(
            "Prompts", "Number p of prompt tokens; the paper tries 1, 5, 10, 50, 100 and 200.", low=1, high=1000
        ),
    )
    dropout: float = _dropout(0.0)


@dataclass(frozen=True)
class VPTShallow(_Prompts):
    """[prefix, P, patches] is the input of block 0; the prompts pass through all blocks and are then removed.

    P (p, D) starts at U(±√(6 / (3 h w + D))) with patches of h x w pixels, gets no position embedding and comes after
    the class and register tokens. Pooling and head never see a prompt.
    """

    name: ClassVar[str] = "vpt_shallow"
    title: ClassVar[str] = "VPT-Shallow"
    formula: ClassVar[str] = "[c, P, x] is the input of block 1"
    summary: ClassVar[str] = "Trains prompt tokens in the input of the first block."
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(50, 100, "50 prompts for NABirds")

    def parameters(self, backbone: Backbone) -> int:
        return self.prompts * blocks_of(backbone, self.title).width


@dataclass(frozen=True)
class VPTDeep(_Prompts):
    """[prefix, P_i, patches] is the input of block i: each block replaces the prompts of the one before it.

    Initial values and place as for VPT-Shallow.
    """

    name: ClassVar[str] = "vpt_deep"
    title: ClassVar[str] = "VPT-Deep"
    formula: ClassVar[str] = "[c, Pᵢ, x] is the input of block i"
    summary: ClassVar[str] = "Trains separate prompt tokens in the input of every block."
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(
        50, 10, "10, 50, 5, 100 and 200 prompts for CUB, NABirds, Flowers, Dogs and Cars"
    )

    dropout: float = _dropout(0.1)

    def parameters(self, backbone: Backbone) -> int:
        blocks = blocks_of(backbone, self.title)
        return self.prompts * blocks.count * blocks.width
