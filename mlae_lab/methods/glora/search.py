"""The evolutionary search for a configuration of each layer of a trained super-network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mlae_lab.methods.glora.layers import CONFIGURATIONS, Configuration, GeneralLoRA, configuration
from mlae_lab.model.experts import stream

Candidate = tuple[Configuration, ...]  # one configuration per layer
_ATTEMPTS = 10  # for each new candidate, before fewer are accepted; as in the authors' code


@dataclass(frozen=True)
class Ranked:
    """A candidate that was evaluated."""

    candidate: Candidate
    accuracy: float
    parameters: int


def search(
    adapter: GeneralLoRA,
    accuracy: Callable[[], float],
    generations: int = 20,
    population: int = 50,
    *,
    parents: int = 10,
    mutations: int = 25,
    crossovers: int = 25,
    mutation_rate: float = 0.2,
    most_parameters: int | None = None,
    seed: int = 0,
) -> list[Ranked]:
    """Evolve configurations by their accuracy; nothing is trained. The best one is left chosen.

    A generation keeps the best candidates so far as parents. Of the next population, some are mutated parents (each of
    the five tensors of each layer is replaced by a random form with probability `mutation_rate`), some are crossovers
    of two parents (tensor by tensor), and the rest are random. The defaults are the authors' (GLoRA/evolution.py).
    Choose on images that are neither trained nor reported on.

    Args:
        adapter: Its chosen configurations are changed.
        accuracy: Of the network as it stands, in eval mode.
        generations: Number of populations that are evaluated.
        population: Candidates of a generation.
        parents: Best candidates that mutations and crossovers start from.
        mutations: At most this many of a population after the first.
        crossovers: The same.
        mutation_rate: See above.
        most_parameters: Candidates that use more are not evaluated; None for no limit.
        seed: Of all random choices.

    Returns:
        The best candidates, at most `parents`, best first.

    Raises:
        ValueError: No candidate is small enough for `most_parameters`.
    """
    generator = stream(seed, "glora", "search")
    layers, before = len(adapter.layers), adapter.chosen
    evaluated: dict[Candidate, Ranked] = {}
    best: list[Ranked] = []

    def number(below: int) -> int:
        return int(torch.randint(below, (), generator=generator))

    def random() -> Candidate:
        return tuple(configuration(number(CONFIGURATIONS)) for _ in range(layers))

    def mutated() -> Candidate:
        parent, other = best[number(len(best))].candidate, random()
        changed = (torch.rand(layers, len(parent[0]), generator=generator) < mutation_rate).tolist()
        return _mixed(other, parent, changed)

    def crossed() -> Candidate:
        first, second = (best[number(len(best))].candidate for _ in range(2))
        return _mixed(first, second, (torch.rand(layers, len(first[0]), generator=generator) < 0.5).tolist())

    def evaluate(create: Callable[[], Candidate], wanted: int) -> int:
        count = 0
        for _ in range(_ATTEMPTS * wanted):
            if count == wanted:
                break
            candidate = create()
            size = adapter.count(candidate)
            if candidate in evaluated or (most_parameters is not None and size > most_parameters):
                continue
            adapter.choose(candidate)
            evaluated[candidate] = Ranked(candidate, accuracy(), size)
            count += 1
        return count

    try:
        for _ in range(generations):
            count = 0
            if best:
                count += evaluate(mutated, min(mutations, population))
                count += evaluate(crossed, min(crossovers, population - count))
            evaluate(random, population - count)
            best = sorted(evaluated.values(), key=lambda ranked: -ranked.accuracy)[:parents]
    except BaseException:
        adapter.choose(before)
        raise
    if not best:
        adapter.choose(before)
        raise ValueError(f"no sampled configuration has at most {most_parameters} parameters: allow more")
    adapter.choose(best[0].candidate)
    return best


def _mixed(first: Candidate, second: Candidate, from_first: list[list[bool]]) -> Candidate:
    """Each entry from the first candidate where the flag is true, else from the second."""
    return tuple(
        tuple(a if take else b for a, b, take in zip(row, other, flags, strict=True))
        for row, other, flags in zip(first, second, from_first, strict=True)
    )
