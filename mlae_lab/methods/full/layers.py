"""Training of the network's own parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mlae_lab.methods.adapter import Adapter, Batches, copied
from mlae_lab.methods.full import FullFineTuning
from mlae_lab.model.weight_files import classifier


class OwnParameters(Adapter):
    """Adapter that trains parameters of the network itself, outside its head.

    Their frozen values are kept on the CPU for `remove`.

    Args:
        model: The network.
        seed: Of the run.
        chosen: Whether a parameter is trained, by its name.
    """

    def __init__(self, model: nn.Module, seed: int, chosen: Callable[[str], bool]) -> None:
        super().__init__(model, seed)
        of_head = {id(parameter) for parameter in classifier(model).parameters()}
        self._frozen: dict[str, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            if id(parameter) not in of_head and chosen(name):
                self._frozen[name] = parameter.detach().to("cpu", copy=True)
                self.train_parameter(name, parameter)

    def merge(self) -> None:
        """The trained values are the network's weights already."""
        for parameter in self.parameters().values():
            parameter.requires_grad_(False)
        self._frozen.clear()

    def remove(self) -> None:
        for name, value in self._frozen.items():
            parameter = self.model.get_parameter(name).requires_grad_(False)
            copied(parameter, value, name)
        self._frozen.clear()


def attach(model: nn.Module, method: FullFineTuning, seed: int, batches: Batches | None = None) -> OwnParameters:
    """Train every parameter of a network."""
    return OwnParameters(model, seed, lambda name: True)
