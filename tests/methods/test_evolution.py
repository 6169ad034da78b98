"""The evolutionary search on a function whose optimum is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from mlae_lab.core.search import Search
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.evolution import Candidate, Evolution

TARGET = (2, 0, 1, 3, 1, 0, 2, 2, 3, 0, 1, 1)


class Positions:
    """Twelve entries of four choices. A candidate's parameters are the sum of 3 - choice."""

    choices: Sequence[int] = (4,) * len(TARGET)

    def canonical(self, candidate: Candidate) -> Candidate:
        return candidate

    def count(self, candidate: Candidate) -> int:
        return sum(3 - choice for choice in candidate)

    def choose(self, candidate: Candidate | None) -> None: ...

    def settle(self, candidate: Candidate | None) -> None: ...

    def grid(self, candidate: Candidate) -> Mapping[str, Sequence[tuple[str, float]]]:
        return {}


class FirstOnly(Positions):
    """Only the first entry matters."""

    def canonical(self, candidate: Candidate) -> Candidate:
        return (candidate[0], *(0,) * (len(candidate) - 1))


def matches(candidate: Candidate) -> float:
    """Share of the entries that are those of the target, in percent."""
    return 100 * sum(a == b for a, b in zip(candidate, TARGET, strict=True)) / len(TARGET)


def searched(search: Search, seed: int = 0, space: Positions | None = None) -> Evolution:
    evolution = Evolution(search, space or Positions(), seed)
    while (candidate := evolution.next()) is not None:
        evolution.record(matches(candidate))
    return evolution


@pytest.mark.parametrize("seed", range(2))
def test_it_finds_the_optimum(seed: int) -> None:
    """One candidate of 16.8 million; 30 generations evaluate 1,500. Random candidates match a quarter."""
    evolution = searched(Search(30, 50), seed)
    assert evolution.best.candidate == TARGET
    assert len(evolution.scored) == len({scored.candidate for scored in evolution.scored}) == 1500
    means = [evolution.mean(generation) for generation in range(1, 31)]
    assert means[0] == pytest.approx(25, abs=8)
    assert max(means) > 60  # later, when the crossovers of the best are known, random candidates fill a generation


def test_equal_seeds_give_equal_searches_and_others_do_not() -> None:
    search = Search(3, 20)
    assert searched(search).scored == searched(search).scored
    assert searched(search).scored != searched(search, seed=1).scored


def test_no_candidate_is_above_the_bound() -> None:
    """The target has 20 parameters, a random candidate 18 on average: the bound excludes the target and half of all."""
    evolution = searched(Search(15, 40, most_parameters=17))
    assert all(scored.parameters <= 17 for scored in evolution.scored)
    assert evolution.best.accuracy >= 100 * 10 / 12
    assert len(evolution.scored) == 15 * 40


def test_a_bound_that_nearly_nothing_meets_leaves_the_smallest() -> None:
    evolution = searched(Search(4, 10, most_parameters=1))
    assert evolution.scored[0].candidate == (3,) * 12
    assert all(scored.parameters <= 1 for scored in evolution.scored)


def test_the_first_generation_holds_the_fullest_and_the_smallest() -> None:
    candidates = [scored.candidate for scored in searched(Search(1, 8)).scored]
    assert candidates[:2] == [(0,) * 12, (3,) * 12]
    assert len(candidates) == 8


def test_of_equal_accuracies_the_smallest_is_best() -> None:
    evolution = Evolution(Search(2, 8), Positions(), 0)
    while evolution.next() is not None:
        evolution.record(50.0)
    assert evolution.best.candidate == (3,) * 12


def test_candidates_that_are_the_same_network_are_evaluated_once_and_the_search_ends_when_all_are_known() -> None:
    evolution = searched(Search(5, 10), space=FirstOnly())
    assert [scored.candidate[0] for scored in evolution.scored[:2]] == [0, 3]
    assert sorted(scored.candidate[0] for scored in evolution.scored) == [0, 1, 2, 3]


@pytest.mark.parametrize("done", [0, 1, 7, 20, 21, 39])
def test_it_continues_from_its_results(done: int) -> None:
    search = Search(2, 20)
    whole, first = searched(search), Evolution(search, Positions(), 0)
    for _ in range(done):
        candidate = first.next()
        assert candidate is not None
        first.record(matches(candidate))
    resumed = Evolution(search, Positions(), 0)
    resumed.restore(first.state())
    while (candidate := resumed.next()) is not None:
        resumed.record(matches(candidate))
    assert resumed.scored == whole.scored


def test_results_of_another_search_are_refused() -> None:
    state = searched(Search(2, 20)).state()
    with pytest.raises(ValueError, match="candidate 3 of the search is not the one"):
        Evolution(Search(2, 20), Positions(), seed=1).restore(state)
    with pytest.raises(ValueError, match="is not the one"):
        Evolution(Search(1, 20), Positions(), 0).restore(state)
    state["search.accuracies"] = torch.zeros(3)
    with pytest.raises(ValueError, match="shorter"):
        Evolution(Search(2, 20), Positions(), 0).restore(state)


def test_the_epoch_of_the_search() -> None:
    assert [Search(1, 4, share=share).epoch(10) for share in (0.1, 0.5, 0.8, 0.95, 1.0)] == [1, 5, 8, 9, 10]
    assert Search(1, 4, share=0.1).epoch(2) == 1
    with pytest.raises(ConfigError, match="train at least 2"):
        Search(1, 4, share=0.8).check(1, None)
    with pytest.raises(ConfigError, match="leave out the time limit"):
        Search(1, 4).check(5, 10.0)
    Search(1, 4).check(1, None)
