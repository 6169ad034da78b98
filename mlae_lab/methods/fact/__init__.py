"""FacT: the updates of all layers as one tensor, factorised with factors that the whole network shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Blocks, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, rate, setting


def slices(width: int, hidden: int) -> int:
    """D×D matrices of one block: q, k, v, proj, and hidden/D each of fc1 and fc2."""
    return 4 + 2 * (hidden // width)


def fits(shapes: Mapping[str, tuple[int, int]], width: int) -> bool:
    """Whether the four linear layers of a block can be cut into D×D matrices. shapes: kind to (d_in, d_out)."""
    hidden = shapes["mlp.fc1"][1]
    return hidden % width == 0 and shapes == {
        "attn.qkv": (width, 3 * width),
        "attn.proj": (width, width),
        "mlp.fc1": (width, hidden),
        "mlp.fc2": (hidden, width),
    }


def _rank(default: int) -> int:
    return field(
        default=default,
        metadata=setting(
            "Rank", "Rank r of the factors. The authors use 8, 16 or 32, by task.", low=1, high=256, step=8
        ),
    )


def _recipes(name: str, rank: int) -> dict[str, Recipe]:
    values = {**IMAGENET_VALUES, "rank": rank}
    return {
        "vtab": Recipe(
            f"JieShibo/PETL-ViT, FacT/{name}.py and its configs",
            values,
            f"rank and scale are chosen by task there, by test accuracy; {NOT_LIKE_THE_AUTHORS}",
        ),
        "fgvc": Recipe("the authors' recipe for VTAB; the paper has no row for FGVC", values, "not published"),
    }


@dataclass(frozen=True)
class _Fact(Method):
    """What both factorisations share."""

    reference: ClassVar[str] = (
        "Jie and Deng 2023, FacT: Factor-Tuning for lightweight adaptation on vision transformers (AAAI)"
    )
    places: ClassVar[tuple[str, ...]] = ("qkv", "proj", "fc1", "fc2", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.LOW_RANK, Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})

    rank: int = _rank(16)
    scale: float = field(
        default=1.0,
        metadata=setting(
            "Scale",
            "Factor s of the update. The authors choose 0.01, 0.1, 1, 10 or 100 by task.",
            low=0, high=1000, exclusive=True, step=0.1,
        ),
    )  # fmt: skip
    dropout: float = rate(0.1, "Dropout", "Dropout rate of the r features in front of V.")

    def check(self, backbone: Backbone) -> None:
        self._blocks(backbone)

    def _blocks(self, backbone: Backbone) -> Blocks:
        blocks = blocks_of(backbone, self.title)
        if not fits(blocks.linears, blocks.width):
            raise ConfigError(
                f"backbone is {backbone.name!r} and {self.title} needs an MLP whose width is a multiple of the tokens' "
                "width: choose a ViT, DeiT, CLIP or DINO backbone with such an MLP"
            )
        return blocks


@dataclass(frozen=True)
class FactTT(_Fact):
    """ΔW = s V Σ U for each D×D matrix of the network; U and V are shared, Σ is a matrix's own (tensor train)."""

    name: ClassVar[str] = "fact_tt"
    title: ClassVar[str] = "FacT-TT"
    formula: ClassVar[str] = "ΔW = s V Σ U, U and V shared by all layers"
    summary: ClassVar[str] = "Trains two factors for the whole network and an r×r matrix for each D×D part of a layer."
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(name, 16)

    def parameters(self, backbone: Backbone) -> int:
        blocks = self._blocks(backbone)
        return 2 * blocks.width * self.rank + blocks.count * slices(blocks.width, blocks.hidden) * self.rank**2


@dataclass(frozen=True)
class FactTK(_Fact):
    """ΔW = s V Σ U with Σ = C ×₃ P: the r×r matrices share a core C and differ in a column of P (Tucker)."""

    name: ClassVar[str] = "fact_tk"
    title: ClassVar[str] = "FacT-TK"
    formula: ClassVar[str] = "ΔW = s V (C ×₃ p) U, U, V and C shared by all layers"
    summary: ClassVar[str] = "Trains three factors for the whole network and r numbers for each D×D part of a layer."
    recipes: ClassVar[Mapping[str, Recipe]] = _recipes(name, 32)

    rank: int = _rank(32)

    def parameters(self, backbone: Backbone) -> int:
        blocks, r = self._blocks(backbone), self.rank
        return 2 * blocks.width * r + blocks.count * slices(blocks.width, blocks.hidden) * r + r**3
