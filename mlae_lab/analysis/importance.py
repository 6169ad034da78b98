"""Expert importance: leave one out, the gradient's estimate, greedy curves, and importance for single images.

    change of expert i    = loss(f_i = 0) - loss(f = 1)            exact: one evaluation for each expert
    first-order estimate  = -∂loss/∂f_i at f = 1                   one backward pass for all of them

with f_i the factor of λ_i b_i a_iᵀ (paper, equations 4 and 5). A layer's estimate is the sum over its experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mlae_lab.analysis.whatif import Outcome, WhatIf
from mlae_lab.core.expert_state import Cell, Factors, all_on, existing, scaled, with_cells
from mlae_lab.core.progress import ProgressCallback, silent
from mlae_lab.model.experts import factored

# ---------------------------------------------------------------- leave one out


def each_off(whatif: WhatIf, groups: Sequence[Sequence[Cell]], on_progress: ProgressCallback = silent) -> list[Outcome]:
    """The outcome with one group of experts off and the others on, for each group.

    Args:
        whatif: the network on its images.
        groups: of experts.
        on_progress: called before each evaluation with (done, total); an exception that it raises stops it.
    """
    on = all_on(whatif.plan)
    order = sorted(range(len(groups)), key=lambda i: -min((whatif.piece_of[row] for row, _ in groups[i]), default=0))
    outcomes: dict[int, Outcome] = {}
    for done, i in enumerate(order):
        on_progress(done, len(groups))
        outcomes[i] = whatif.evaluate(with_cells(on, groups[i], 0.0))
    return [outcomes[i] for i in range(len(groups))]


def layers_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells grouped by row, in ascending order; rows without cells are left out."""
    return [[cell for cell in cells if cell[0] == row] for row in sorted({row for row, _ in cells})]


def first_order(whatif: WhatIf) -> dict[Cell, float]:
    """The estimate -∂loss/∂f of each expert on the images of `whatif`; the loss is the mean cross-entropy."""
    tensors = {layer: factor.requires_grad_() for layer, factor in whatif.tensors(all_on(whatif.plan)).items()}
    total = {layer: torch.zeros_like(factor) for layer, factor in tensors.items()}
    start = 0
    with torch.enable_grad(), factored(tensors):
        for chunk in whatif.inputs:
            for x in chunk.split(whatif.gradient_chunk):
                truth = whatif.labels[start : start + len(x)]
                start += len(x)
                with whatif.compute():
                    for piece in whatif.pieces:
                        x = piece(x)
                loss = F.cross_entropy(x.float(), truth, reduction="sum")
                for layer, slope in zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True):
                    total[layer] -= slope
    estimates = {}
    for row, target in enumerate(whatif.plan.targets):
        layer = whatif.experts.layers.get(target)
        if layer is not None:
            values = (total[layer] / len(whatif.labels)).tolist()
            estimates |= {(row, column): value for column, value in zip(layer.columns, values, strict=True)}
    return estimates


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Correlation of two series of the same length; None if one is constant or there are fewer than two pairs."""
    if len(x) < 2:
        return None
    a, b = (torch.tensor(values, dtype=torch.float64) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return None if size < 1e-300 else max(-1.0, min(1.0, float(a @ b) / size))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson correlation of the ranks; equal values share their mean rank."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: Sequence[float]) -> list[float]:
    series = torch.tensor(values, dtype=torch.float64)
    lower = (series[None, :] < series[:, None]).sum(1)
    equal = (series[None, :] == series[:, None]).sum(1)
    return (lower + (equal - 1) / 2).tolist()


# ---------------------------------------------------------------- greedy curves


@dataclass(frozen=True)
class Step:
    """One step of a greedy curve.

    Attributes:
        cell: the expert that was removed or added, None for the start.
        kept: experts that are on after it.
        accuracy: top-1 in percent.
        loss: mean cross-entropy.
    """

    cell: Cell | None
    kept: int
    accuracy: float
    loss: float


def greedy(whatif: WhatIf, removal: bool, on_progress: ProgressCallback = silent) -> list[Step]:
    """Remove experts one by one (or add them, starting from none), each time the one that leaves the lowest loss.

    Each step is exact, as it evaluates every remaining expert, but the whole order need not be the best one. Equal
    losses are ordered by layer and column. An evaluation ends early once its loss exceeds the best one. E experts take
    E (E + 1) / 2 evaluations.

    Args:
        whatif: the network on its images.
        removal: whether to remove experts rather than to add them.
        on_progress: called before each evaluation with (done, total); an exception that it raises stops it.
    """
    left = list(existing(whatif.plan))
    state: Factors = all_on(whatif.plan) if removal else scaled(all_on(whatif.plan), 0.0)
    start = whatif.outcome(state)
    steps = [Step(None, len(left) if removal else 0, start.accuracy, start.loss)]
    total, done = len(left) * (len(left) + 1) // 2, 0
    priority = {cell: (-whatif.piece_of[cell[0]], 0.0) for cell in left}  # likely best first, so that others end early
    while left:
        best: tuple[float, Cell, Outcome] | None = None
        for cell in sorted(left, key=priority.__getitem__):
            on_progress(done, total)
            done += 1
            whatif.outcome(state)  # kept already, unless another state was asked for meanwhile
            outcome = whatif.try_out(with_cells(state, [cell], 0.0 if removal else 1.0), best[0] if best else math.inf)
            priority[cell] = (0, outcome.loss_sum if outcome else math.inf)
            if outcome is not None and (best is None or (outcome.loss_sum, cell) < best[:2]):
                best = outcome.loss_sum, cell, outcome
        assert best is not None, "the first evaluation has no limit"
        _, cell, outcome = best
        left.remove(cell)
        state = with_cells(state, [cell], 0.0 if removal else 1.0)
        steps.append(Step(cell, steps[-1].kept + (-1 if removal else 1), outcome.accuracy, outcome.loss))
    return steps


def by_estimate(whatif: WhatIf, on_progress: ProgressCallback = silent) -> list[Step]:
    """Remove experts one by one in the order of the first-order estimate at f = 1, the smallest first.

    Each step is evaluated exactly, only the order is estimated: E evaluations and one backward pass instead of the
    E (E + 1) / 2 evaluations of `greedy`. Equal estimates are ordered by layer and column.
    """
    predicted = first_order(whatif)
    order = sorted(predicted, key=lambda cell: (predicted[cell], cell))
    state, now = all_on(whatif.plan), whatif.trained
    steps = [Step(None, len(order), now.accuracy, now.loss)]
    for done, cell in enumerate(order):
        on_progress(done, len(order))
        state = with_cells(state, [cell], 0.0)
        now = whatif.outcome(state)
        steps.append(Step(cell, steps[-1].kept - 1, now.accuracy, now.loss))
    return steps


def agreement(removal: Sequence[Step], predicted: Mapping[Cell, float]) -> float | None:
    """Spearman correlation of the step at which a curve removes an expert with its first-order estimate.

    1 means the same order.
    """
    cells = [step.cell for step in removal if step.cell is not None]
    return spearman(list(range(len(cells))), [predicted[cell] for cell in cells])


# ---------------------------------------------------------------- importance for single images


@dataclass(frozen=True)
class ImageImportance:
    """Importance of each expert for each of N images.

    Attributes:
        predicted: class predicted by the whole network, (N,).
        margin: logit of that class minus the largest other one, (N,).
        without: by expert, the same margin of the same class with that expert off, (N,); below 0 the prediction flips.
        instead: by expert, the class that is predicted with that expert off, (N,).
    """

    predicted: torch.Tensor
    margin: torch.Tensor
    without: dict[Cell, torch.Tensor]
    instead: dict[Cell, torch.Tensor]


def image_importance(whatif: WhatIf, on_progress: ProgressCallback = silent) -> ImageImportance:
    """How much each expert contributes to the prediction for each image of `whatif`."""
    cells = existing(whatif.plan)
    on = whatif.trained
    off = dict(zip(cells, each_off(whatif, [[cell] for cell in cells], on_progress), strict=True))
    return ImageImportance(
        on.predicted,
        margins(on.logits, on.predicted),
        {cell: margins(outcome.logits, on.predicted) for cell, outcome in off.items()},
        {cell: outcome.predicted for cell, outcome in off.items()},
    )


def margins(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Logit of the given class minus the largest other one, (N,).

    Args:
        logits: (N, C), C at least 2.
        classes: (N,).
    """
    selected = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -math.inf)
    return (selected - others.amax(1, keepdim=True)).squeeze(1)
