"""Expert importance, compared with loops that write every state into the network and run all of it."""

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
from mlae_lab.core.plan import first_block
from mlae_lab.model.frozen_prefix import split
from mlae_lab.model.inject import Experts
from tests.analysis.conftest import full_pass

PLAN = allocation((2, 0, 3))


@torch.no_grad()
def what_if(model, experts: Experts, x: torch.Tensor, labels: torch.Tensor, chunk: int = 4) -> WhatIf:
    before, _ = split(model, first_block(experts.plan, len(model.blocks)))
    return WhatIf(model, experts, torch.cat([before(part) for part in x.split(chunk)]), labels, chunk=chunk)


@torch.no_grad()
def by_hand(model, experts: Experts, x: torch.Tensor, off: set[Cell]) -> torch.Tensor:
    """Logits with these experts' λ at 0, all images one by one."""
    for (row, column), layer, position in _positions(experts):
        layer.coefficient[position] *= 0.0 if (row, column) in off else 1.0
    return torch.cat([model(image[None]) for image in x])


def _positions(experts: Experts):
    for row, target in enumerate(experts.plan.targets):
        layer = experts.layers.get(target)
        for position, column in enumerate(layer.columns if layer else ()):
            yield (row, column), layer, position


class ByHand:
    """Accuracy and loss of any set of experts with λ restored afterwards; results are cached."""

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
def whatif_and_loop(adapted: Callable, images: Callable) -> tuple[WhatIf, ByHand]:
    model, experts = adapted(PLAN)
    x, labels = images(11)
    return what_if(model, experts, x, labels), ByHand(model, experts, x, labels)


# ---------------------------------------------------------------- leave one out


def test_leave_one_out_equals_the_loop(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, loop = whatif_and_loop
    cells = existing(PLAN)
    groups = [[cell] for cell in cells] + layers_of(cells)
    progress: list[tuple[int, int]] = []
    result = each_off(whatif, groups, lambda done, total: progress.append((done, total)))
    assert len(groups) == 7
    assert progress == [(i, 7) for i in range(7)]
    for group, outcome in zip(groups, result, strict=True):
        assert outcome.accuracy == pytest.approx(loop.accuracy(group))
        assert outcome.loss == pytest.approx(loop.loss(group), rel=1e-5)
    assert len({round(outcome.loss, 6) for outcome in result}) == 7  # they differ, so a wrong order would show


def test_layers_are_rows_that_have_experts() -> None:
    assert layers_of(existing(PLAN)) == [[(0, 0), (0, 1)], [(2, 0), (2, 1), (2, 2)]]
    assert layers_of([]) == []


def test_estimate_is_the_slope_at_one(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, _ = whatif_and_loop
    result = first_order(whatif)
    assert set(result) == set(existing(PLAN))
    on, step = all_on(PLAN), 1e-2
    for cell, estimate in result.items():
        up, down = (full_pass(whatif, with_cells(on, [cell], 1 + s)).loss for s in (step, -step))
        assert estimate == pytest.approx(-(up - down) / (2 * step), rel=0.01, abs=1e-3)


def test_small_experts_are_estimated_well(adapted: Callable, images: Callable) -> None:
    """For small λ b aᵀ the loss is almost linear: change and estimate agree."""
    model, experts = adapted(PLAN, size=1e-2)
    whatif = what_if(model, experts, *images(11))
    predicted = first_order(whatif)
    exact = [o.loss - whatif.trained.loss for o in each_off(whatif, [[cell] for cell in predicted])]
    assert pearson(exact, list(predicted.values())) > 0.999


def test_the_estimate_leaves_no_gradient_behind(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, _ = whatif_and_loop
    first_order(whatif)
    assert all(p.grad is None for p in whatif.model.parameters())


def test_correlations_equal_their_definitions() -> None:
    x, y = [1.0, 2.0, 2.0, 5.0, -3.0], [0.5, 1.0, 3.0, 2.5, 0.5]
    assert pearson(x, y) == pytest.approx(correlation(x, y))
    assert spearman(x, y) == pytest.approx(correlation([1.0, 2.5, 2.5, 4.0, 0.0], [0.5, 2.0, 4.0, 3.0, 0.5]))
    assert spearman(x, [math.exp(v) for v in x]) == pytest.approx(1)
    assert pearson([1.0, 1.0], [1.0, 2.0]) is None
    assert pearson([1.0], [2.0]) is None
    assert spearman([], []) is None


# ---------------------------------------------------------------- greedy


def slow_greedy(loop: ByHand, removal: bool) -> list[tuple[Cell | None, int, float, float]]:
    every = set(existing(PLAN))
    off = set() if removal else set(every)
    curve = [(None, len(every - off), loop.accuracy(off), loop.loss(off))]
    while len(curve) <= len(every):
        candidates = every - off if removal else off
        cell = min(candidates, key=lambda c: (loop.loss(off ^ {c}), c))
        off = off ^ {cell}
        curve.append((cell, len(every - off), loop.accuracy(off), loop.loss(off)))
    return curve


@pytest.mark.parametrize("removal", [True, False])
def test_greedy_curves_equal_the_loop(whatif_and_loop: tuple[WhatIf, ByHand], removal: bool) -> None:
    whatif, loop = whatif_and_loop
    reports: list[tuple[int, int]] = []
    result = greedy(whatif, removal, lambda done, total: reports.append((done, total)))
    expected = slow_greedy(loop, removal)
    assert [step.cell for step in result] == [cell for cell, *_ in expected]
    assert [step.kept for step in result] == [kept for _, kept, *_ in expected]
    for step, (_, _, accuracy, loss) in zip(result, expected, strict=True):
        assert step.accuracy == pytest.approx(accuracy)
        assert step.loss == pytest.approx(loss, rel=1e-5)
    assert reports == [(i, 15) for i in range(15)]


def test_curve_by_estimate_is_evaluated_step_by_step(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, loop = whatif_and_loop
    predicted = first_order(whatif)
    reports: list[tuple[int, int]] = []
    result = by_estimate(whatif, lambda done, total: reports.append((done, total)))
    order = sorted(existing(PLAN), key=lambda cell: (predicted[cell], cell))
    assert [step.cell for step in result] == [None, *order]
    assert reports == [(i, 5) for i in range(5)]
    for number, step in enumerate(result):
        assert step.kept == 5 - number
        assert step.loss == pytest.approx(loop.loss(set(order[:number])), rel=1e-5)
        assert step.accuracy == pytest.approx(loop.accuracy(set(order[:number])))
    assert agreement(result, predicted) == pytest.approx(1.0)
    assert agreement([result[0], *result[:0:-1]], predicted) == pytest.approx(-1.0)


def test_equal_experts_are_ordered_by_layer_and_column(adapted: Callable, images: Callable) -> None:
    """Experts that add nothing change nothing, so the order is that of the canvas."""
    model, experts = adapted(dense(2, 2), size=0.0)
    whatif = what_if(model, experts, *images(5))
    for removal in (True, False):
        assert [step.cell for step in greedy(whatif, removal)] == [None, (0, 0), (0, 1), (1, 0), (1, 1)]


def test_curves_have_the_same_ends(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, _ = whatif_and_loop
    down, up = greedy(whatif, True), greedy(whatif, False)
    assert down[0].loss == up[-1].loss
    assert down[-1].loss == up[0].loss


def test_progress_callback_can_stop_the_evaluation(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, loop = whatif_and_loop

    class Gone(Exception):
        pass

    def leaves(done: int, total: int) -> None:
        if done == 7:
            raise Gone

    for act in (
        lambda: greedy(whatif, True, leaves),
        lambda: each_off(whatif, [[c] for c in existing(PLAN)] * 2, leaves),
    ):
        with pytest.raises(Gone):
            act()
    assert whatif.outcome(all_on(PLAN)).loss == pytest.approx(loop.loss(()), rel=1e-5)


# ---------------------------------------------------------------- importance for single images


def test_image_importance_equals_the_loop(whatif_and_loop: tuple[WhatIf, ByHand]) -> None:
    whatif, loop = whatif_and_loop
    result = image_importance(whatif)
    on = loop.logits(())
    for i in range(11):
        top = int(on[i].argmax())
        assert int(result.predicted[i]) == top
        assert float(result.margin[i]) == pytest.approx(_margin(on[i], top), abs=1e-5)
        for cell in existing(PLAN):
            off = loop.logits([cell])[i]
            assert float(result.without[cell][i]) == pytest.approx(_margin(off, top), abs=1e-5)
            assert int(result.instead[cell][i]) == int(off.argmax())
            assert (float(result.without[cell][i]) < 0) is (int(off.argmax()) != top)


def _margin(logits: torch.Tensor, top: int) -> float:
    values = logits.tolist()
    return values[top] - max(v for c, v in enumerate(values) if c != top)


def test_margin_of_a_class() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [0.0, -1.0, 3.0]])
    assert margins(logits, torch.tensor([1, 0])).tolist() == [1.5, -3.0]
