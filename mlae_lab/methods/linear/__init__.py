"""Linear probe: only the head is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Trait


@dataclass(frozen=True)
class LinearProbe(Method):
    """The frozen network's features and a trained classifier."""

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "Linear probe"
    reference: ClassVar[str] = "the baseline of every transfer study"
    formula: ClassVar[str] = "y = W z + b, z frozen"
    summary: ClassVar[str] = "Trains the head only."
    places: ClassVar[tuple[str, ...]] = ("head",)
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})

    @property
    def what(self) -> str:
        return "linear probe"

    def check(self, backbone: Backbone) -> None:
        """Every backbone has a head."""

    def parameters(self, backbone: Backbone) -> int:
        return 0

    def first_block(self, blocks: int) -> int:
        return blocks
