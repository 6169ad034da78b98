"""An exponential moving average of the trained parameters, which is evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from mlae_lab.methods.adapter import copied

_PREFIX = "average."  # of its tensors in a checkpoint


class WeightAverage:
    """The average θ̄ of parameters θ: θ̄ ← d · θ̄ + (1 - d) · θ after each step, with d = min(decay, (1 + t) / (10 + t)).

    Args:
        parameters: By name; the average begins with their values.
        decay: Largest decay, [0, 1); 0: no average, and nothing is kept.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.average = {name: value.detach().clone() for name, value in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step. step: its number t, from 0."""
        if self.average:
            decay = min(self.decay, (1 + step) / (10 + step))
            for name, average in self.average.items():
                average.lerp_(self.parameters[name].detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the network has the averaged parameters."""
        if not self.average:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._set(self.average)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def state(self) -> dict[str, torch.Tensor]:
        """The average, as a checkpoint keeps it."""
        return {f"{_PREFIX}{name}": value for name, value in self.average.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], same: bool) -> None:
        """Take the average of a checkpoint. same: whether its parameters are these; else it begins with their values.

        Raises:
            KeyError, ValueError: A tensor is missing or has another shape.
        """
        for name, average in self.average.items():
            if same and f"{_PREFIX}{name}" in tensors:  # a branch may have begun to average
                copied(average, tensors[f"{_PREFIX}{name}"], name)
            else:
                average.copy_(self.parameters[name].detach())
