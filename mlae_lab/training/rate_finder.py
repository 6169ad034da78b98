"""A learning-rate finder: a short training whose rate rises from step to step (Smith 2017, arXiv:1506.01186)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from mlae_lab.core.rate_curve import DIVERGED, SMOOTHING, RatePoint, rates
from mlae_lab.training.objective import order_of_epoch
from mlae_lab.training.setup import Setup
from mlae_lab.training.trainer import Training


def rate_curve(setup: Setup) -> Iterator[RatePoint]:
    """Train with a rising rate and yield a point after each step; ends early where the loss diverges.

    The evaluation images are not used.

    Args:
        setup: Of the run; it is trained, so it is of no use afterwards.
    """
    training = Training(setup)
    training.adapter.train(True)
    average, lowest = 0.0, math.inf
    waiting: list[torch.Tensor] = []
    planned = rates(setup.config.optimizer)
    for step, rate in enumerate(planned):
        if not waiting:
            order = order_of_epoch(setup.config, setup.train.labels[training.trained], training.order)
            waiting = [*training.trained[order.to(setup.device)].split(setup.config.batch_size)]
        training.position = replace(training.position, step=step)
        loss = training.advance(waiting.pop(0), rate, step / len(planned))[2].item()
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        lowest = min(lowest, smoothed)
        if not math.isfinite(loss) or smoothed > DIVERGED * lowest:
            return
        yield RatePoint(rate, loss, smoothed)
