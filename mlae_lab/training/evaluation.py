"""How good a network is now, and what each expert does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mlae_lab.analysis.activation import recording
from mlae_lab.core.events import Canvas, ExpertStats
from mlae_lab.errors import LabError
from mlae_lab.model.inject import Experts
from mlae_lab.training.setup import Setup


class Diverged(LabError):
    """Training left the finite numbers; the text names the quantity, the step and a way out."""


class OutOfTime(Exception):
    """An evaluation was told to end before it was through: there is no number."""


@dataclass(frozen=True)
class Measured:
    """accuracy: top-1 in percent; loss: mean cross-entropy; contribution: by target, one value for each expert;
    guess, confidence: class number and probability of the images asked for."""

    accuracy: float
    loss: float
    contribution: dict[str, torch.Tensor]
    predicted: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()


@torch.no_grad()
def evaluate(setup: Setup, may_go_on: Callable[[], bool] = lambda: True, indices: Sequence[int] = ()) -> Measured:
    """Measure on the evaluation images, all experts on.

    Contribution is read off the first 256 of them; it costs a second pass through each target.
    places: of the images whose answers are wanted, rising.
    may_go_on: asked after every 256 images but the last; False raises OutOfTime.
    """
    train_mode(setup.experts, False)
    right, loss, measured, images = 0, 0.0, 0, len(setup.evaluation)
    contribution: dict[str, torch.Tensor] = {}
    predicted: list[int] = []
    confidence: list[float] = []
    for number, (chunk, truth) in enumerate(setup.evaluation.chunks()):
        sample_images = setup.experts.layers if setup.experts and number == 0 else {}
        with autocast(setup), recording(sample_images) as found:
            logits = setup.behind(chunk).float()
        contribution |= found.means
        right += int((logits.argmax(1) == truth).sum())
        loss += F.cross_entropy(logits, truth, reduction="sum").item()
        of_interest = [at - measured for at in indices if measured <= at < measured + len(truth)]
        if of_interest:
            best = logits[of_interest].softmax(1).max(1)
            predicted += best.indices.tolist()
            confidence += [round(value, 4) for value in best.values.tolist()]
        measured += len(truth)
        if measured < images and not may_go_on():
            raise OutOfTime
    if not math.isfinite(loss):
        raise Diverged(f"the evaluation loss is {loss}: try a learning rate below {setup.config.learning_rate:g}")
    return Measured(100 * right / images, loss / images, contribution, tuple(predicted), tuple(confidence))


def expert_stats(
    experts: Experts, epoch: int, contribution: dict[str, torch.Tensor], gradient: dict[str, torch.Tensor]
) -> ExpertStats:
    """Put per-layer numbers on the plan's canvas, None where no expert exists."""
    plan, sampler = experts.plan, experts.sampler
    share = sampler.active_steps / max(1, sampler.steps)

    def canvas(values: dict[str, torch.Tensor]) -> Canvas:
        rows: list[list[float | None]] = [[None] * plan.columns for _ in range(plan.rows)]
        for row, target in enumerate(plan.targets):
            if target in experts.layers:
                for column, value in zip(experts.layers[target].columns, values[target].tolist(), strict=False):
                    rows[row][column] = round(value, 6)
        return tuple(map(tuple, rows))

    return ExpertStats(
        epoch=epoch,
        active_share=canvas({t: share[plan.targets.index(t), list(e.columns)] for t, e in experts.layers.items()}),
        contribution=canvas(contribution),
        coefficient=canvas({t: layer.coefficient.detach().cpu() for t, layer in experts.layers.items()}),
        gradient=canvas(gradient),
    )


def train_mode(experts: Experts | None, on: bool) -> None:
    """Only the experts know two modes; the frozen backbone stays in eval mode throughout."""
    for layer in experts.layers.values() if experts else ():
        layer.train(on)


def autocast(setup: Setup) -> torch.autocast:
    return torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision is torch.bfloat16)
