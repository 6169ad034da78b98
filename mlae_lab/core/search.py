"""The search stage of a method that trains a super-network, as plain data: how long, how wide, and when.

The layers of a super-network sample one of several forms in each training step. A search then chooses a form for each
of them by validation accuracy (`methods.evolution`); nothing is trained meanwhile. It never sees an image that the run
reports on: under the protocol "val" it evaluates on val, under "test" on a fifth of the training images, which the run
does not train on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlae_lab.core.settings import ConfigError, setting

HELD_OUT = 5  # under the protocol "test", one of so many training images is for the search


@dataclass(frozen=True)
class Search:
    """The evolutionary search of one run.

    Attributes:
        generations: Populations that are evaluated.
        population: Candidates of a generation.
        most_parameters: Candidates with more are not evaluated; 0 for no bound.
        share: Of the epochs, those before the search. 1: nothing is trained after it.
        mutation_rate: Probability that a mutation replaces a choice by a random one.
    """

    generations: int
    population: int
    most_parameters: int = 0
    share: float = 1.0
    mutation_rate: float = 0.2

    @property
    def parents(self) -> int:
        """Best candidates that mutations and crossovers start from: a fifth of a population, at least two."""
        return max(2, self.population // 5)

    @property
    def candidates(self) -> int:
        """Most candidates that are evaluated."""
        return self.generations * self.population

    def epoch(self, epochs: int) -> int:
        """The last epoch before the search, of so many."""
        if self.share == 1.0:
            return epochs
        return min(epochs - 1, max(1, round(self.share * epochs)))

    def check(self, epochs: int, max_seconds: float | None) -> None:
        """Raise ConfigError for a run that cannot hold the search."""
        if max_seconds is not None:
            raise ConfigError(
                f"max_seconds is {max_seconds:g} and the search begins after a fixed epoch: leave out the time limit"
            )
        if self.share < 1 and epochs < 2:
            raise ConfigError(
                "epochs is 1 and the search is between the training of the super-network and that of its result: "
                "train at least 2"
            )


def held_out(images: int) -> int:
    """Training images that a search under the protocol "test" holds out, of so many."""
    return images // HELD_OUT


def generations_setting(help: str, low: int = 0) -> dict[str, Any]:
    """Metadata of a method's field `search_generations`."""
    return setting("Search generations", help, noun="search_generations", low=low, high=1000)


def population_setting() -> dict[str, Any]:
    """Metadata of a method's field `search_population`."""
    return setting(
        "Search population", "Candidates of a generation; each costs one pass over the validation images.",
        noun="search_population", low=4, high=1000,
    )  # fmt: skip


def parameters_setting() -> dict[str, Any]:
    """Metadata of a method's field `search_parameters`."""
    return setting(
        "Search parameter limit",
        "Candidates with more parameters, without the head, are not evaluated. 0: no limit.",
        noun="search_parameters", low=0, high=10**9, step=10_000,
    )  # fmt: skip
