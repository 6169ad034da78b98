"""Evaluation of the network during training, and the statistics of its experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mlae_lab.analysis.activation import Contribution, recording
from mlae_lab.core.events import MAX_IMAGES_RECORDED, Canvas, ExpertStats, packed
from mlae_lab.errors import LabError
from mlae_lab.model.inject import Experts
from mlae_lab.training.setup import Setup

CONTRIBUTION_IMAGES = 256  # the first of the evaluation images


class Diverged(LabError):
    """A loss is no longer finite; the text names the quantity, the step and what to try."""


class OutOfTime(Exception):
    """An evaluation was interrupted before it was complete, so it has no result."""


@dataclass(frozen=True)
class EvaluationResult:
    """Result of one evaluation.

    Attributes:
        accuracy: Top-1 accuracy in percent.
        loss: Mean cross-entropy.
        contribution: By target, one value for each expert.
        predicted: Class number with the highest probability, for each sample image.
        confidence: That probability, [0, 1].
        correct: As of `Evaluation`.
    """

    accuracy: float
    loss: float
    contribution: dict[str, torch.Tensor]
    predicted: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    correct: str = ""


@torch.no_grad()
def evaluate(
    setup: Setup, may_continue: Callable[[], bool] = lambda: True, indices: Sequence[int] = ()
) -> EvaluationResult:
    """Evaluate on the evaluation images, all experts on.

    The contribution of the experts is computed on the first 256 images; it costs a second pass through each target.

    Args:
        setup: The network and its data.
        may_continue: Called after every piece of the images but the last; False raises OutOfTime.
        indices: Of the sample images whose predictions are wanted, in ascending order.

    Raises:
        Diverged: If the loss is not finite.
        OutOfTime: If `may_continue` returned False.
    """
    setup.adapter.train(False)
    loss, evaluated, images = 0.0, 0, len(setup.evaluation)
    correct: list[bool] = []
    contribution = Contribution()
    predicted: list[int] = []
    confidence: list[float] = []
    for chunk, labels in setup.evaluation.chunks():
        layers = setup.experts.layers if setup.experts and evaluated < CONTRIBUTION_IMAGES else {}
        with autocast(setup), recording(layers, contribution):
            logits = setup.behind(chunk).float()
        correct += (logits.argmax(1) == labels).tolist()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        in_chunk = [index - evaluated for index in indices if evaluated <= index < evaluated + len(labels)]
        if in_chunk:
            best = logits[in_chunk].softmax(1).max(1)
            predicted += best.indices.tolist()
            confidence += [round(value, 4) for value in best.values.tolist()]
        evaluated += len(labels)
        if evaluated < images and not may_continue():
            raise OutOfTime
    if not math.isfinite(loss):
        raise Diverged(f"the evaluation loss is {loss}: try a learning rate below {setup.config.learning_rate:g}")
    return EvaluationResult(
        100 * sum(correct) / images,
        loss / images,
        contribution.means_of(CONTRIBUTION_IMAGES),
        tuple(predicted),
        tuple(confidence),
        packed(correct) if images <= MAX_IMAGES_RECORDED else "",
    )


@torch.no_grad()
def search_accuracy(setup: Setup, may_continue: Callable[[], bool] = lambda: True) -> float:
    """Top-1 accuracy in percent on the images that a search may use: held out of training, or under "val" those of val.

    Args:
        setup: With its adapter in eval mode.
        may_continue: As for `evaluate`.

    Raises:
        OutOfTime: If `may_continue` returned False.
    """
    correct, images = 0, search_images(setup)
    for number, (chunk, labels) in enumerate(_search_chunks(setup)):
        if number and not may_continue():
            raise OutOfTime
        with autocast(setup):
            correct += int((setup.behind(chunk).argmax(1) == labels).sum())
    return 100 * correct / images


def search_images(setup: Setup) -> int:
    """Number of the images that a search uses."""
    return len(setup.evaluation) if setup.held_out is None else len(setup.held_out)


def _search_chunks(setup: Setup) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    assert setup.config.protocol == "val" or setup.held_out is not None  # never the images that are reported on
    if setup.held_out is None:
        yield from setup.evaluation.chunks()
        return
    for chosen in setup.held_out.split(setup.train.at_once):
        yield setup.train.as_tested(chosen), setup.train.labels[chosen]


def expert_stats(
    experts: Experts, epoch: int, contribution: dict[str, torch.Tensor], gradient: dict[str, torch.Tensor]
) -> ExpertStats:
    """Arrange per-layer values on the plan's canvas, None where no expert exists."""
    plan, sampler = experts.plan, experts.sampler
    share = sampler.active_steps / max(1, sampler.steps)

    def canvas(values: dict[str, torch.Tensor]) -> Canvas:
        rows: list[list[float | None]] = [[None] * plan.columns for _ in range(plan.rows)]
        for row, target in enumerate(plan.targets):
            if target in experts.layers:
                for column, value in zip(experts.layers[target].columns, values[target].tolist(), strict=True):
                    rows[row][column] = round(value, 6)
        return tuple(map(tuple, rows))

    return ExpertStats(
        epoch=epoch,
        active_share=canvas({t: share[plan.targets.index(t), list(e.columns)] for t, e in experts.layers.items()}),
        contribution=canvas(contribution),
        coefficient=canvas({t: layer.coefficient.detach().cpu() for t, layer in experts.layers.items()}),
        gradient=canvas(gradient),
    )


def autocast(setup: Setup) -> torch.autocast:
    """The autocast context of a setup's precision."""
    return torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision is torch.bfloat16)
