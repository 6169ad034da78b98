"""Who matters: against loops that write every state into the network and run all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import correlation

import pytest
import torch
import torch.nn.functional as F

from mlae_lab.analysis.importance import (
    agreement,
    by_estimate,
    each_off,
    first_order,
    greedy,
    image_importance,
    layers_of,
    margins,
    pearson,
    spearman,
)
from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.expert_state import Cell, all_on, existing, with_cells
from mlae_lab.core.patterns import allocation, dense
from mlae_lab.model.frozen_prefix import first_block, split
from mlae_lab.model.inject import Experts
from tests.analysis.conftest import full_pass

PLAN = allocation((2, 0, 3))


@torch.no_grad()
def asked(model, experts: Experts, x: torch.Tensor, labels: torch.Tensor, chunk: int = 4) -> WhatIf:
    before, _ = split(model, first_block(experts.plan, len(model.blocks)))
    return WhatIf(model, experts, torch.cat([before(part) for part in x.split(chunk)]), labels, chunk=chunk)


@torch.no_grad()
def by_hand(model, experts: Experts, x: torch.Tensor, off: set[Cell]) -> torch.Tensor:
    """Logits with these experts' λ at 0, all images one by one."""
    for (row, column), layer, place in _places(experts):
        layer.coefficient[place] *= 0.0 if (row, column) in off else 1.0
    return torch.cat([model(one[None]) for one in x])


def _places(experts: Experts):
    for row, target in enumerate(experts.plan.targets):
        layer = experts.layers.get(target)
        for place, column in enumerate(layer.columns if layer else ()):
            yield (row, column), layer, place


class ByHand:
    """Accuracy and loss of any set of experts, λ restored afterwards; each answer is remembered."""

    def __init__(self, model, experts: Experts, x: torch.Tensor, labels: torch.Tensor) -> None:
        self.model, self.experts, self.x, self.labels = model, experts, x, labels
        self.known: dict[frozenset, torch.Tensor] = {}

    def logits(self, off) -> torch.Tensor:
        off = frozenset(off)
        if off not in self.known:
            before = {target: layer.coefficient.clone() for target, layer in self.experts.layers.items()}
            self.known[off] = by_hand(self.model, self.experts, self.x, set(off))
            with torch.no_grad():
                for target, layer in self.experts.layers.items():
                    layer.coefficient.copy_(before[target])
        return self.known[off]

    def loss(self, off) -> float:
        return float(F.cross_entropy(self.logits(off), self.labels))

    def accuracy(self, off) -> float:
        return 100 * float((self.logits(off).argmax(1) == self.labels).float().mean())


@pytest.fixture
def both(adapted: Callable, images: Callable) -> tuple[WhatIf, ByHand]:
    model, experts = adapted(PLAN)
    x, labels = images(11)
    return asked(model, experts, x, labels), ByHand(model, experts, x, labels)


# ---------------------------------------------------------------- leave one out


def test_leave_one_out_equals_the_loop(both: tuple[WhatIf, ByHand]) -> None:
    lab, slow = both
    cells = existing(PLAN)
    groups = [[cell] for cell in cells] + layers_of(cells)
    seen: list[tuple[int, int]] = []
    found = each_off(lab, groups, lambda done, total: seen.append((done, total)))
    assert len(groups) == 7
    assert seen == [(i, 7) for i in range(7)]
    for group, outcome in zip(groups, found, strict=False):
        assert outcome.accuracy == pytest.approx(slow.accuracy(group))
        assert outcome.loss == pytest.approx(slow.loss(group), rel=1e-5)
    assert len({round(outcome.loss, 6) for outcome in found}) == 7  # they differ: an order mixed up would show


def test_layers_are_rows_that_have_experts() -> None:
    assert layers_of(existing(PLAN)) == [[(0, 0), (0, 1)], [(2, 0), (2, 1), (2, 2)]]
    assert layers_of([]) == []


def test_the_estimate_is_the_slope_at_one(both: tuple[WhatIf, ByHand]) -> None:
    lab, _ = both
    found = first_order(lab)
    assert set(found) == set(existing(PLAN))
    on, step = all_on(PLAN), 1e-2
    for cell, estimate in found.items():
        up, down = (full_pass(lab, with_cells(on, [cell], 1 + s)).loss for s in (step, -step))
        assert estimate == pytest.approx(-(up - down) / (2 * step), rel=0.01, abs=1e-3)


def test_small_experts_are_estimated_well(adapted: Callable, images: Callable) -> None:
    """The smaller λ b aᵀ, the straighter the loss along it: change and estimate agree."""
    model, experts = adapted(PLAN, size=1e-2)
    lab = asked(model, experts, *images(11))
    predicted = first_order(lab)
    exact = [o.loss - lab.trained.loss for o in each_off(lab, [[cell] for cell in predicted])]
    assert pearson(exact, list(predicted.values())) > 0.999


def test_the_estimate_leaves_no_gradient_behind(both: tuple[WhatIf, ByHand]) -> None:
    lab, _ = both
    first_order(lab)
    assert all(p.grad is None for p in lab.model.parameters())


def test_correlations_equal_their_definitions() -> None:
    x, y = [1.0, 2.0, 2.0, 5.0, -3.0], [0.5, 1.0, 3.0, 2.5, 0.5]
    assert pearson(x, y) == pytest.approx(correlation(x, y))
    assert spearman(x, y) == pytest.approx(correlation([1.0, 2.5, 2.5, 4.0, 0.0], [0.5, 2.0, 4.0, 3.0, 0.5]))
    assert spearman(x, [math.exp(v) for v in x]) == pytest.approx(1)
    assert pearson([1.0, 1.0], [1.0, 2.0]) is None
    assert pearson([1.0], [2.0]) is None
    assert spearman([], []) is None


# ---------------------------------------------------------------- greedy


def slow_greedy(slow: ByHand, removal: bool) -> list[tuple[Cell | None, int, float, float]]:
    every = set(existing(PLAN))
    off = set() if removal else set(every)
    curve = [(None, len(every - off), slow.accuracy(off), slow.loss(off))]
    while len(curve) <= len(every):
        candidates = every - off if removal else off
        cell = min(candidates, key=lambda c: (slow.loss(off ^ {c}), c))
        off = off ^ {cell}
        curve.append((cell, len(every - off), slow.accuracy(off), slow.loss(off)))
    return curve


@pytest.mark.parametrize("removal", [True, False])
def test_greedy_curves_equal_the_loop(both: tuple[WhatIf, ByHand], removal: bool) -> None:
    lab, slow = both
    told: list[tuple[int, int]] = []
    found = greedy(lab, removal, lambda done, total: told.append((done, total)))
    expected = slow_greedy(slow, removal)
    assert [step.cell for step in found] == [cell for cell, *_ in expected]
    assert [step.kept for step in found] == [kept for _, kept, *_ in expected]
    for step, (_, _, accuracy, loss) in zip(found, expected, strict=False):
        assert step.accuracy == pytest.approx(accuracy)
        assert step.loss == pytest.approx(loss, rel=1e-5)
    assert told == [(i, 15) for i in range(15)]


def test_the_order_of_the_estimate_is_measured_step_by_step(both: tuple[WhatIf, ByHand]) -> None:
    lab, slow = both
    predicted = first_order(lab)
    told: list[tuple[int, int]] = []
    found = by_estimate(lab, lambda done, total: told.append((done, total)))
    order = sorted(existing(PLAN), key=lambda cell: (predicted[cell], cell))
    assert [step.cell for step in found] == [None, *order]
    assert told == [(i, 5) for i in range(5)]
    for number, step in enumerate(found):
        assert step.kept == 5 - number
        assert step.loss == pytest.approx(slow.loss(set(order[:number])), rel=1e-5)
        assert step.accuracy == pytest.approx(slow.accuracy(set(order[:number])))
    assert agreement(found, predicted) == pytest.approx(1.0)
    assert agreement([found[0], *found[:0:-1]], predicted) == pytest.approx(-1.0)


def test_equal_experts_go_by_layer_and_column(adapted: Callable, images: Callable) -> None:
    """Experts that add nothing change nothing: whichever is tried first, the order is that of the canvas."""
    model, experts = adapted(dense(2, 2), size=0.0)
    lab = asked(model, experts, *images(5))
    for removal in (True, False):
        assert [step.cell for step in greedy(lab, removal)] == [None, (0, 0), (0, 1), (1, 0), (1, 1)]


def test_both_curves_meet_at_their_ends(both: tuple[WhatIf, ByHand]) -> None:
    lab, _ = both
    down, up = greedy(lab, True), greedy(lab, False)
    assert down[0].loss == up[-1].loss
    assert down[-1].loss == up[0].loss


def test_whoever_asked_can_leave_between_two_tries(both: tuple[WhatIf, ByHand]) -> None:
    lab, slow = both

    class Gone(Exception):
        pass

    def leaves(done: int, total: int) -> None:
        if done == 7:
            raise Gone

    for act in (lambda: greedy(lab, True, leaves), lambda: each_off(lab, [[c] for c in existing(PLAN)] * 2, leaves)):
        with pytest.raises(Gone):
            act()
    assert lab.ask(all_on(PLAN)).loss == pytest.approx(slow.loss(()), rel=1e-5)


# ---------------------------------------------------------------- who decides


def test_deciding_equals_the_loop(both: tuple[WhatIf, ByHand]) -> None:
    lab, slow = both
    found = image_importance(lab)
    on = slow.logits(())
    for i in range(11):
        said = int(on[i].argmax())
        assert int(found.predicted[i]) == said
        assert float(found.margin[i]) == pytest.approx(_margin(on[i], said), abs=1e-5)
        for cell in existing(PLAN):
            off = slow.logits([cell])[i]
            assert float(found.without[cell][i]) == pytest.approx(_margin(off, said), abs=1e-5)
            assert int(found.instead[cell][i]) == int(off.argmax())
            assert (float(found.without[cell][i]) < 0) is (int(off.argmax()) != said)


def _margin(logits: torch.Tensor, said: int) -> float:
    values = logits.tolist()
    return values[said] - max(v for c, v in enumerate(values) if c != said)


def test_margin_of_a_class() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [0.0, -1.0, 3.0]])
    assert margins(logits, torch.tensor([1, 0])).tolist() == [1.5, -3.0]
