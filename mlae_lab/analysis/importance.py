"""Which experts matter: leave one out, what the gradient would have guessed, greedy curves, and who decides an image.

    change of expert i    = loss(f_i = 0) - loss(f = 1)            exact: one evaluation for each expert
    first-order estimate  = -∂loss/∂f_i at f = 1                   one backward pass for all of them

with f_i the factor of λ_i b_i a_iᵀ (paper, equations 4 and 5). A layer's estimate is the sum over its experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mlae_lab.analysis.whatif import Outcome, WhatIf
from mlae_lab.core.expert_state import Cell, Factors, all_on, existing, scaled, with_cells
from mlae_lab.model.experts import factored

ProgressCallback = Callable[[int, int], None]
GRADIENT_CHUNK = 16  # images in one backward pass, which holds all activations of ViT-B/16: 2 GB


def silent(done: int, total: int) -> None:
    """Progress that nobody hears."""


# ---------------------------------------------------------------- leave one out


def each_off(lab: WhatIf, groups: Sequence[Sequence[Cell]], on_progress: ProgressCallback = silent) -> list[Outcome]:
    """What the network says with one group of experts off, for each group, the others on.

    tell: called before each evaluation; it may raise, which ends it.
    """
    on = all_on(lab.plan)
    order = sorted(range(len(groups)), key=lambda i: -min((lab.piece_of[row] for row, _ in groups[i]), default=0))
    found: list[Outcome | None] = [None] * len(groups)
    for done, i in enumerate(order):
        on_progress(done, len(groups))
        found[i] = lab.try_out(with_cells(on, groups[i], 0.0))
    return found


def layers_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by their rows, rising; rows without any are left out."""
    return [[cell for cell in cells if cell[0] == row] for row in sorted({row for row, _ in cells})]


def first_order(lab: WhatIf) -> dict[Cell, float]:
    """The estimate -∂loss/∂f of each expert on the images of `lab`, loss being the mean cross-entropy."""
    tensors = {layer: factor.requires_grad_() for layer, factor in lab.tensors(all_on(lab.plan)).items()}
    total = {layer: torch.zeros_like(factor) for layer, factor in tensors.items()}
    at = 0
    with torch.enable_grad(), factored(tensors):
        for chunk in lab.inputs:
            for x in chunk.split(GRADIENT_CHUNK):
                truth = lab.labels[at : at + len(x)]
                at += len(x)
                with lab.compute():
                    for piece in lab.pieces:
                        x = piece(x)
                loss = F.cross_entropy(x.float(), truth, reduction="sum")
                for layer, slope in zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=False):
                    total[layer] -= slope
    found = {}
    for row, target in enumerate(lab.plan.targets):
        layer = lab.experts.layers.get(target)
        if layer is not None:
            values = (total[layer] / len(lab.labels)).tolist()
            found |= {(row, column): value for column, value in zip(layer.columns, values, strict=False)}
    return found


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Correlation of two series of the same length; None where one does not vary or there are fewer than two pairs."""
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
    given = torch.tensor(values, dtype=torch.float64)
    below = (given[None, :] < given[:, None]).sum(1)
    same = (given[None, :] == given[:, None]).sum(1)
    return (below + (same - 1) / 2).tolist()


# ---------------------------------------------------------------- greedy curves


@dataclass(frozen=True)
class Step:
    """One step of a greedy curve. cell: removed or added, None for the start; kept: experts on after it; accuracy in
    percent, loss: mean cross-entropy."""

    cell: Cell | None
    kept: int
    accuracy: float
    loss: float


def greedy(lab: WhatIf, removal: bool, on_progress: ProgressCallback = silent) -> list[Step]:
    """Remove (or, from none, add) one expert after the other, each time the one that leaves the lowest loss.

    Every step tries every expert that is left, so each is exact, though the whole need not be the best order. Equal
    losses go by layer and column. A try ends early where its loss is above the best one's already.
    E experts take E (E + 1) / 2 tries. tell: called before each with (done, total); it may raise, which ends it.
    """
    left = list(existing(lab.plan))
    state: Factors = all_on(lab.plan) if removal else scaled(all_on(lab.plan), 0.0)
    start = lab.ask(state)
    steps = [Step(None, len(left) if removal else 0, start.accuracy, start.loss)]
    total, done = len(left) * (len(left) + 1) // 2, 0
    hope = {cell: (-lab.piece_of[cell[0]], 0.0) for cell in left}  # the likely best first, so that the rest ends early
    while left:
        best: tuple[float, Cell, Outcome] | None = None
        for cell in sorted(left, key=hope.__getitem__):
            on_progress(done, total)
            done += 1
            lab.ask(state)  # kept already, unless somebody asked for another state meanwhile
            found = lab.try_out(with_cells(state, [cell], 0.0 if removal else 1.0), best[0] if best else math.inf)
            hope[cell] = (0, found.loss_sum if found else math.inf)
            if found is not None and (best is None or (found.loss_sum, cell) < best[:2]):
                best = found.loss_sum, cell, found
        _, cell, found = best
        left.remove(cell)
        state = with_cells(state, [cell], 0.0 if removal else 1.0)
        steps.append(Step(cell, steps[-1].kept + (-1 if removal else 1), found.accuracy, found.loss))
    return steps


def by_estimate(lab: WhatIf, on_progress: ProgressCallback = silent) -> list[Step]:
    """Remove one expert after the other in the order of the first-order estimate at f = 1, the smallest first.

    Each step is measured exactly, only the order is guessed: E evaluations and one backward pass in place of the
    E (E + 1) / 2 tries of `greedy`. Equal estimates go by layer and column.
    """
    predicted = first_order(lab)
    order = sorted(predicted, key=lambda cell: (predicted[cell], cell))
    state, now = all_on(lab.plan), lab.trained
    steps = [Step(None, len(order), now.accuracy, now.loss)]
    for done, cell in enumerate(order):
        on_progress(done, len(order))
        state = with_cells(state, [cell], 0.0)
        now = lab.ask(state)
        steps.append(Step(cell, steps[-1].kept - 1, now.accuracy, now.loss))
    return steps


def agreement(removal: Sequence[Step], predicted: Mapping[Cell, float]) -> float | None:
    """Spearman correlation of the place at which a curve takes an expert away with its first-order estimate; 1: the
    same order."""
    cells = [step.cell for step in removal if step.cell is not None]
    return spearman(list(range(len(cells))), [predicted[cell] for cell in cells])


# ---------------------------------------------------------------- who decides an image


@dataclass(frozen=True)
class ImageImportance:
    """Who decides each of N images.

    predicted: the class that the whole network says, (N,). margin: its logit minus the largest other, (N,).
    without: by expert, the same margin of the same class with that expert off, (N,); below 0 the image flips.
    instead: by expert, the class that is predicted then, (N,).
    """

    predicted: torch.Tensor
    margin: torch.Tensor
    without: dict[Cell, torch.Tensor]
    instead: dict[Cell, torch.Tensor]


def image_importance(lab: WhatIf, on_progress: ProgressCallback = silent) -> ImageImportance:
    """How far each expert carries the decision on each image of `lab`."""
    cells = existing(lab.plan)
    on = lab.trained
    off = dict(zip(cells, each_off(lab, [[cell] for cell in cells], on_progress), strict=False))
    return ImageImportance(
        on.predicted,
        margins(on.logits, on.predicted),
        {cell: margins(found.logits, on.predicted) for cell, found in off.items()},
        {cell: found.predicted for cell, found in off.items()},
    )


def margins(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Logit of the given class minus the largest other one, (N,). logits: (N, C), C at least 2; classes: (N,)."""
    own = logits.gather(1, classes[:, None])
    others = logits.scatter(1, classes[:, None], -math.inf)
    return (own - others.amax(1, keepdim=True)).squeeze(1)
