"""The loss of a training step: cross-entropy with label smoothing, class weights and mixup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from mlae_lab.core.config import RunConfig


@dataclass(frozen=True)
class Mix:
    """How mixup combines the images of a batch: share · image + (1 - share) · partner (Zhang et al. 2018).

    Attributes:
        partners: (k,) places in the batch, a permutation.
        share: Of the image itself, sampled from Beta(α, α), [0, 1].
    """

    partners: torch.Tensor
    share: float

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """The mixed batch. batch: (k, ...) float."""
        return self.share * batch + (1 - self.share) * batch[self.partners]


def mix_of_step(config: RunConfig, step: int, images: int, device: torch.device) -> Mix | None:
    """The mix of a training step, None without mixup.

    It depends on seed and step only, so a resumed run needs no state of a generator.

    Args:
        config: Of the run.
        step: Number of the step.
        images: In its batch.
        device: Of the batch.
    """
    if not config.mixup:
        return None
    generator = np.random.default_rng((config.seed, step))
    share = float(generator.beta(config.mixup, config.mixup))
    return Mix(torch.from_numpy(generator.permutation(images)).to(device), share)


class Objective:
    """Cross-entropy as a run's config asks for it.

    Args:
        config: Of the run.
        labels: (n,) class numbers of the training images.
        classes: Number of classes.
    """

    def __init__(self, config: RunConfig, labels: torch.Tensor, classes: int) -> None:
        self.smoothing = config.label_smoothing
        self.weights = class_weights(labels, classes) if config.class_balance == "loss" else None

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over a batch, weighted by class.

        Args:
            logits: (k, classes).
            labels: (k,) class numbers.
        """
        return F.cross_entropy(logits.float(), labels, self.weights, label_smoothing=self.smoothing)

    def parts(self, labels: torch.Tensor, mix: Mix | None, number: int) -> Iterator[Part]:
        """The parts of a batch for gradient accumulation; their losses add up to that of the batch.

        Args:
            labels: (k,) class numbers of the batch.
            mix: Of the batch.
            number: Of parts, at most; a small batch has fewer.
        """
        size = -(-len(labels) // number)
        targets = [(labels, 1.0)] if mix is None else [(labels, mix.share), (labels[mix.partners], 1 - mix.share)]
        totals = [self._weight(wanted) for wanted, _ in targets]
        for at in range(0, len(labels), size):
            part = slice(at, at + size)
            yield Part(
                self,
                part,
                tuple(
                    (wanted[part], share * self._weight(wanted[part]) / total)
                    for (wanted, share), total in zip(targets, totals, strict=True)
                ),
            )

    def _weight(self, labels: torch.Tensor) -> float:
        return float(len(labels)) if self.weights is None else self.weights[labels].sum().item()


@dataclass(frozen=True)
class Part:
    """A part of a batch.

    Attributes:
        objective: The loss.
        images: Places of its images in the batch.
        targets: Labels of these images and the factor of their loss, two of them with mixup.
    """

    objective: Objective
    images: slice
    targets: tuple[tuple[torch.Tensor, float], ...]

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """What the part adds to the batch's loss. logits: (k, classes) of its images."""
        (labels, factor), *others = self.targets
        loss = self.objective(logits, labels) * factor
        for labels, factor in others:
            loss = loss + self.objective(logits, labels) * factor
        return loss


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weight of each class in the loss: n / (K · n_c) for n_c of n images and the K classes that have any; else 0.

    Args:
        labels: (n,) class numbers.
        classes: Number of classes.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    weights = len(labels) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, torch.zeros_like(weights))


def order_of_epoch(config: RunConfig, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images of an epoch in their order: (n,) places in `labels`, on the CPU.

    A permutation; with balanced sampling n images with replacement, every class equally often in expectation.

    Args:
        config: Of the run.
        labels: (n,) class numbers of the training images.
        generator: On the CPU.
    """
    if config.class_balance != "sampling":
        return torch.randperm(len(labels), generator=generator)
    labels = labels.cpu()
    weights = class_weights(labels, int(labels.max()) + 1)[labels]
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)
