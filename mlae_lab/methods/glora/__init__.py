"""GLoRA: a super-network of updates of weights and biases, of which each layer samples a path in every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlae_lab.core.backbones import Backbone
from mlae_lab.core.method import IMAGENET_VALUES, NOT_LIKE_THE_AUTHORS, Method, Recipe, Trait, blocks_of
from mlae_lab.core.search import Search, generations_setting, parameters_setting, population_setting
from mlae_lab.core.settings import ConfigError, setting

# What each of the five tensors of a layer can be, by position in a configuration. The first entry is the fullest.
CHOICES: dict[str, tuple[str, ...]] = {
    "A": ("low rank", "vector", "scalar", "none"),
    "B": ("low rank", "vector", "scalar", "none"),
    "C": ("low rank", "vector", "none"),
    "D": ("vector", "scalar", "none"),
    "E": ("vector", "scalar", "none"),
}
_VALUES = {
    **IMAGENET_VALUES,
    "epochs": 500,
    "learning_rate": 1e-4,
    "warmup": 0.02,
    "rank": 4,
    "search_generations": 20,
}


@dataclass(frozen=True)
class GLoRA(Method):
    """f(x) = (W + W ∘ A + B) x + W C + (b + D ∘ b + E) on qkv, proj, fc1 and fc2."""

    name: ClassVar[str] = "glora"
    title: ClassVar[str] = "GLoRA"
    reference: ClassVar[str] = "Chavan et al. 2023, One-for-all: generalized LoRA for parameter-efficient fine-tuning"
    formula: ClassVar[str] = "y = (W + W ∘ A + B) x + W C + b + D ∘ b + E"
    summary: ClassVar[str] = (
        "Trains a super-network whose layers sample one of 432 kinds of update in each step; a search then chooses one "
        "for each layer."
    )
    places: ClassVar[tuple[str, ...]] = ("qkv", "proj", "fc1", "fc2", "head")
    traits: ClassVar[frozenset[Trait]] = frozenset({Trait.MERGEABLE, Trait.IDENTITY_AT_INIT})
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "vtab": Recipe(
            "Arnav0400/ViT-Slim, GLoRA/README.md and supernet.py",
            _VALUES,
            NOT_LIKE_THE_AUTHORS,
        ),
        "fgvc": Recipe("the authors' recipe for VTAB; they publish no other", _VALUES, "not published"),
    }

    rank: int = field(
        default=4, metadata=setting("Rank", "Rank r of the low-rank forms of A, B and C.", low=1, high=128)
    )
    sampling: bool = field(
        default=True,
        metadata=setting(
            "Sample paths",
            "In each step every layer uses one of its 432 configurations at random; off trains the chosen one only.",
        ),
    )

    search_generations: int = field(
        default=0,
        metadata=generations_setting(
            "After training, an evolutionary search chooses a configuration for each layer by validation accuracy; the "
            "authors: 20. 0: no search, evaluation uses the fullest configuration."
        ),
    )
    search_population: int = field(default=50, metadata=population_setting())
    search_parameters: int = field(default=0, metadata=parameters_setting())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search_generations and not self.sampling:
            raise ConfigError(
                "sampling is off and a search needs a super-network that was trained with it: choose sampling=on or "
                "search_generations=0"
            )

    @property
    def search(self) -> Search | None:
        if not self.search_generations:
            return None
        return Search(self.search_generations, self.search_population, self.search_parameters)

    def parameters(self, backbone: Backbone) -> int:
        blocks, r = blocks_of(backbone, self.title), self.rank
        return blocks.count * sum(
            2 * r * (d_in + d_out) + r * (d_in + 1) + 2 * d_out for d_in, d_out in blocks.linears.values()
        )
