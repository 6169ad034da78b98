"""RepAdapter: a linear adapter in front of a linear layer, which takes it up after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Blocks, Method, Recipe, Trait, blocks_of
from mlae_lab.core.settings import ConfigError, setting
from mlae_lab.methods.bottleneck import hidden_dropout

_VALUES = {**IMAGENET_VALUES, "scale": 1.0}


@dataclass(frozen=True)
class RepAdapter(Method):
    """W (h + s (B dropout(A h + b_A) + b_B)) + b: before qkv, and by default also before fc1.

    A is (d, D). B (D, d) is made of G blocks on its diagonal, each (D/G, d/G). The paper's count of 0.22M leaves the
    biases out.
    """

    name: ClassVar[str] = "repadapter"
    title: ClassVar[str] = "RepAdapter"
    reference: ClassVar[str] = "Luo et al. 2023, Towards efficient visual adaption via structural re-parameterization"
    formula: ClassVar[str] = "W (h + s (B (A h + b_A) + b_B)) + b"
    summary: ClassVar[str] = "Trains a linear bottleneck before qkv and fc1 of each block."
    places: ClassVar[tuple[str, ...]] = ("before qkv", "before fc1", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "luogen1996/RepAdapter, train.py",
            _VALUES,
            "the scale is 0.1 to 10 by task in their configs; the norm of B, which a version of their code adds to the "
            f"loss, is not; {NOT_LIKE_THE_AUTHORS}",
        ),
        "fgvc": Recipe("luogen1996/RepAdapter, train.py, as for VTAB", _VALUES, "they have no results on FGVC"),
    }

    bottleneck: int = field(
        default=8, metadata=setting("Bottleneck", "Width d of the adapter, a multiple of the groups.", low=1, high=1024)
    )
    groups: int = field(default=2, metadata=setting("Groups", "Number G of separate blocks in B.", low=1, high=64))
    scale: float = field(
        default=1.0,
        metadata=setting("Scale", "Factor s; the authors try 0.1 to 10.", low=0, high=100, exclusive=True, step=0.5),
    )
    place: str = field(
        default="block",
        metadata=setting(
            "Place",
            "Before qkv and fc1, or before qkv only (repattn in their code).",
            choices=("block", "attention"),
            titles={"block": "before attention and MLP", "attention": "before attention"},
        ),
    )
    dropout: float = hidden_dropout()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bottleneck % self.groups:
            raise ConfigError(f"bottleneck is {self.bottleneck}: it must be a multiple of the {self.groups} groups")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The linear layers with an adapter."""
        return ("attn.qkv", "mlp.fc1") if self.place == "block" else ("attn.qkv",)

    def check(self, backbone: Backbone) -> None:
        self._blocks(backbone)

    def parameters(self, backbone: Backbone) -> int:
        blocks = self._blocks(backbone)
        width, d = blocks.width, self.bottleneck
        return blocks.count * len(self.kinds) * (d * width + d + width * d // self.groups + width)

    def _blocks(self, backbone: Backbone) -> Blocks:
        blocks = blocks_of(backbone, self.title)
        if blocks.width % self.groups:
            raise ConfigError(f"groups is {self.groups}: it must divide the width {blocks.width} of {backbone.name}")
        return blocks
