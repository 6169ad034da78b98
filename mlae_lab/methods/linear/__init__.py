"""Linear probe: only the head is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import Method, Recipe, Trait, sgd_of_vpt, with_crops

_RECIPE = Recipe(
    "Jia et al. 2022, VPT, appendix: Linear; KMnP/vpt, tune_vtab.py and configs/base-linear.yaml",
    sgd_of_vpt(1024),
    "the authors search learning rates of 0.05 to 50 times batch / 256 and weight decays of 0 to 1e-2 for each task; "
    "these are 1 times 1024 / 256 and 1e-4, and the bias of the head is decayed too",
)


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
    recipes: ClassVar[Mapping[str, Recipe]] = {"vtab": _RECIPE, "fgvc": with_crops(_RECIPE)}

    @property
    def what(self) -> str:
        return "linear probe"

    def check(self, backbone: Backbone) -> None:
        """Every backbone has a head."""

    def parameters(self, backbone: Backbone) -> int:
        return 0

    def first_block(self, blocks: int) -> int:
        return blocks
