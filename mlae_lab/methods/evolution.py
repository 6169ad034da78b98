"""Evolutionary search over the forms of a super-network, one candidate at a time.

    evolution = Evolution(search, space, seed)
    while (candidate := evolution.next()) is not None:
        evolution.record(accuracy_of(candidate))

A generation depends only on seed, number and the results of earlier generations, so that the results so far are all
that a checkpoint needs.

Source of the scheme: GLoRA/evolution.py of Arnav0400/ViT-Slim and the search of ZhangYuanhan-AI/NOAH, which share it:
half of a population are mutations of the best candidates, half crossovers of two of them, entry by entry. Added here:
the first generation holds the fullest and the smallest candidate, equal accuracies are ordered by parameters, and
candidates that a generation lacks are random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from mlae_lab.core.search import Search
from mlae_lab.model.experts import stream

Candidate = tuple[int, ...]  # position of the choice for each entry, 0 for the fullest
_ATTEMPTS = 10  # for each new candidate, before fewer are accepted; as in the authors' code


class Space(Protocol):
    """What can be chosen in a super-network."""

    @property
    def choices(self) -> Sequence[int]:
        """Number of choices of each entry of a candidate, from the fullest to the smallest."""
        ...

    def canonical(self, candidate: Candidate) -> Candidate:
        """One candidate of all that give the same network."""
        ...

    def count(self, candidate: Candidate) -> int:
        """Parameters that a candidate uses, without the head."""
        ...

    def choose(self, candidate: Candidate | None) -> None:
        """Use a candidate in evaluation, None for the fullest."""
        ...

    def settle(self, candidate: Candidate | None) -> None:
        """Use a candidate in evaluation and in training; None: the fullest in evaluation, sampled ones in training."""
        ...

    def grid(self, candidate: Candidate) -> Mapping[str, Sequence[tuple[str, float]]]:
        """What a candidate is: label to the form in each block and its share of the fullest, [0, 1]."""
        ...


@dataclass(frozen=True)
class Scored:
    """A candidate that was evaluated.

    Attributes:
        candidate: Of the space.
        accuracy: In percent, on the images of the search.
        parameters: That it uses, without the head.
        generation: From 1.
    """

    candidate: Candidate
    accuracy: float
    parameters: int
    generation: int


class Evolution:
    """One search.

    Args:
        search: Its size and bound.
        space: What can be chosen.
        seed: Of all random choices.
    """

    def __init__(self, search: Search, space: Space, seed: int) -> None:
        self.search, self.space, self.seed = search, space, seed
        self.scored: list[Scored] = []
        self._begin(1)

    def _begin(self, generation: int) -> None:
        self.generation = generation
        self._population: list[Candidate] = []
        if generation <= self.search.generations:
            self._population = self._created(generation)

    def next(self) -> Candidate | None:
        """The candidate to evaluate now; None at the end."""
        return self._population[0] if self._population else None

    def record(self, accuracy: float) -> bool:
        """Record the accuracy of `next`. Returns whether it was the last of its generation."""
        candidate = self._population.pop(0)
        self.scored.append(Scored(candidate, accuracy, self.space.count(candidate), self.generation))
        if self._population:
            return False
        self._begin(self.generation + 1)
        return True

    @property
    def best(self) -> Scored:
        """The best candidate so far; of equal accuracies the smallest, then the first. Raises IndexError before it."""
        return self._ranked()[0]

    def mean(self, generation: int) -> float:
        """Mean accuracy of a generation, in percent."""
        values = [scored.accuracy for scored in self.scored if scored.generation == generation]
        return sum(values) / len(values)

    def _ranked(self) -> list[Scored]:
        return sorted(self.scored, key=lambda scored: (-scored.accuracy, scored.parameters))

    # ---------------------------------------------------------------- candidates

    def _created(self, generation: int) -> list[Candidate]:
        search, space, choices = self.search, self.space, list(self.space.choices)
        generator = stream(self.seed, "search", generation)
        parents = [scored.candidate for scored in self._ranked()[: search.parents]]
        known = {scored.candidate for scored in self.scored}
        population: list[Candidate] = []

        def flags(share: float) -> list[bool]:
            return (torch.rand(len(choices), generator=generator) < share).tolist()

        def parent() -> Candidate:
            return parents[int(torch.randint(len(parents), (), generator=generator))]

        def random() -> Candidate:
            drawn = torch.rand(len(choices), generator=generator, dtype=torch.float64).tolist()
            return tuple(int(value * number) for value, number in zip(drawn, choices, strict=True))

        def mutated() -> Candidate:
            return _mixed(random(), parent(), flags(search.mutation_rate))

        def crossed() -> Candidate:
            return _mixed(parent(), parent(), flags(0.5))

        def take(candidate: Candidate) -> None:
            candidate = space.canonical(candidate)
            fits = not search.most_parameters or space.count(candidate) <= search.most_parameters
            if fits and candidate not in known:
                known.add(candidate)
                population.append(candidate)

        def add(create: Callable[[], Candidate], wanted: int) -> None:
            goal = min(search.population, len(population) + wanted)
            for _ in range(_ATTEMPTS * wanted):
                if len(population) >= goal:
                    break
                take(create())

        if not parents:
            take((0,) * len(choices))
            take(tuple(number - 1 for number in choices))
        else:
            add(mutated, search.population // 2)
            add(crossed, search.population // 2)
        add(random, search.population - len(population))
        return population

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, torch.Tensor]:
        """The results so far, {} before the first: candidates (n, entries), accuracies (n,), generations (n,)."""
        if not self.scored:
            return {}
        return {
            "search.candidates": torch.tensor([scored.candidate for scored in self.scored]),
            "search.accuracies": torch.tensor([scored.accuracy for scored in self.scored], dtype=torch.float64),
            "search.generations": torch.tensor([scored.generation for scored in self.scored]),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`; tensors without its names are results of none.

        Raises:
            KeyError, ValueError: They are no results of this search.
        """
        self.scored.clear()
        self._begin(1)
        if "search.candidates" not in tensors:
            return
        for candidate, accuracy, generation in zip(
            tensors["search.candidates"].tolist(), tensors["search.accuracies"].tolist(),
            tensors["search.generations"].tolist(), strict=True,
        ):  # fmt: skip
            if (self.next(), self.generation) != (tuple(candidate), generation):
                raise ValueError(
                    f"candidate {len(self.scored) + 1} of the search is not the one of this seed and space"
                )
            self.record(accuracy)


def _mixed(first: Candidate, second: Candidate, from_first: Sequence[bool]) -> Candidate:
    return tuple(a if take else b for a, b, take in zip(first, second, from_first, strict=True))
