"""BitFit: every bias of the network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Recipe, Trait
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.full import vpt_recipes


@dataclass(frozen=True)
class BitFit(Method):
    """The biases of all layers, those of the norms and of the patch embedding among them."""

    name: ClassVar[str] = "bitfit"
    title: ClassVar[str] = "Bias (BitFit)"
    reference: ClassVar[str] = "Ben Zaken et al. 2022, BitFit: Simple parameter-efficient fine-tuning (ACL)"
    formula: ClassVar[str] = "y = W x + b, b trained"
    summary: ClassVar[str] = "Trains every bias of the network."
    places: ClassVar[tuple[str, ...]] = ("patch", "norm1", "qkv", "proj", "norm2", "fc1", "fc2", "norm", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = vpt_recipes("5e-3")

    def check(self, backbone: Backbone) -> None:
        """Raise ConfigError for a network without biases."""
        if not backbone.biases:
            raise ConfigError(f"backbone is {backbone.name!r} and has no biases to train: choose another one")

    def parameters(self, backbone: Backbone) -> int:
        return backbone.biases

    def first_block(self, blocks: int) -> int:
        return -1
