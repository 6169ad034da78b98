"""Random masks: their distribution, their pairing between runs, and the accuracy under each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlae_lab.analysis.robustness import accuracies, random_states
from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.expert_state import cells_on
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.model.frozen_prefix import split
from tests.analysis.conftest import full_pass


def on(plan, rate: float = 0.5, samples: int = 50, seed: int = 1) -> list[set]:
    return [set(cells_on(state)) for state in random_states(plan, rate, samples, seed)]


def test_experts_are_dropped_at_the_given_rate() -> None:
    for plan in (dense(), uniform(0.9)):
        share = sum(map(len, on(plan, 0.3, 300))) / (300 * 96)
        assert share == pytest.approx(0.7, abs=0.01)  # 28,800 samples: standard deviation 0.0027


def test_active_experts_are_rescaled_or_not() -> None:
    plan = allocation((1, 2), columns=3)
    for rescaled, value in ((True, 4.0), (False, 1.0)):
        states = list(random_states(plan, 0.75, 40, 0, rescaled))
        assert {v for state in states for row in state for v in row} == {0.0, value, None}
        assert all(state[0][1:] == (None, None) and state[1][2] is None for state in states)


def test_two_runs_have_the_same_masks_where_cells_coincide() -> None:
    wide, narrow = pattern("incremental"), dense()
    shared = {(r, c) for r in range(12) for c in range(8) if wide.keep[r][c]}
    for a, b in zip(on(wide), on(narrow), strict=True):
        assert a & shared == b & shared
    assert on(narrow) == on(uniform(0.5)) != on(narrow, seed=2)


def test_a_higher_rate_drops_all_that_a_lower_one_drops() -> None:
    assert all(high <= low for high, low in zip(on(dense(), 0.8), on(dense(), 0.2), strict=True))


def test_masks_of_a_seed_are_those_of_earlier_versions() -> None:
    """A result that was written down with its seed can be computed again."""
    assert list(random_states(dense(1, 8), 0.5, 1, 0)) == [((2.0, 0.0, 2.0, 2.0, 0.0, 2.0, 0.0, 2.0),)]


def test_rate_zero_is_the_trained_network(adapted: Callable, images: Callable) -> None:
    assert on(dense(2, 2), 0.0, 3) == [{(0, 0), (0, 1), (1, 0), (1, 1)}] * 3


def test_accuracy_under_each_mask_equals_a_full_pass(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(uniform(0.5, 3, 4), size=1.0)
    x, labels = images(25)
    with torch.no_grad():
        whatif = WhatIf(model, experts, split(model, 0)[0](x), labels)
    reports: list[int] = []
    result = accuracies(whatif, 0.5, 12, 7, True, lambda done, total: reports.append(done))
    assert reports == list(range(12))
    assert len(set(result)) > 2
    assert result == [full_pass(whatif, state).accuracy for state in random_states(whatif.plan, 0.5, 12, 7, True)]


def test_repeated_mask_is_evaluated_once(adapted: Callable, images: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model, experts = adapted(allocation((0, 2, 0), columns=4), size=1.0)
    x, labels = images(25)
    with torch.no_grad():
        whatif = WhatIf(model, experts, split(model, 0)[0](x), labels)
    tried: list[object] = []
    monkeypatch.setattr(whatif, "evaluate", lambda state, whole=whatif.evaluate: (tried.append(state), whole(state))[1])
    result = accuracies(whatif, 0.5, 40, 3)
    assert len(tried) == len(set(tried)) == 4
    assert len(result) == 40
    assert result == [full_pass(whatif, state).accuracy for state in random_states(whatif.plan, 0.5, 40, 3)]
