"""The evaluation with the highest accuracy so far: for early stopping and for the best adapter."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_NAME = "best_epoch"  # of its tensor in a checkpoint


class BestEpoch:
    """The best evaluation, by accuracy and, if it is equal, by loss.

    Attributes:
        accuracy: In percent; -1 before the first evaluation.
        loss: Mean cross-entropy.
        epoch: From 1; 0 before the first evaluation.
        since: Evaluations since then.
    """

    def __init__(self) -> None:
        self.accuracy, self.loss, self.epoch, self.since = -1.0, 0.0, 0, 0

    def add(self, epoch: int, accuracy: float, loss: float) -> None:
        """Take in an evaluation."""
        if (accuracy, -loss) > (self.accuracy, -self.loss):
            self.accuracy, self.loss, self.epoch, self.since = accuracy, loss, epoch, 0
        else:
            self.since += 1

    def state(self) -> dict[str, torch.Tensor]:
        """As a checkpoint keeps it."""
        values = [self.accuracy, self.loss, self.epoch, self.since]
        return {_NAME: torch.tensor(values, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the state of a checkpoint; one that has none was written by a run without it."""
        if _NAME in tensors:
            accuracy, loss, epoch, since = tensors[_NAME].tolist()
            self.accuracy, self.loss, self.epoch, self.since = accuracy, loss, int(epoch), int(since)
