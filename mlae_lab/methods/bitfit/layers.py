"""Training of the network's biases."""

from __future__ import annotations

from torch import nn

from mlae_lab.methods.adapter import Batches
from mlae_lab.methods.bitfit import BitFit
from mlae_lab.methods.full.layers import OwnParameters


def attach(model: nn.Module, method: BitFit, seed: int, batches: Batches | None = None) -> OwnParameters:
    """Train every parameter named bias, without the head's."""
    return OwnParameters(model, seed, lambda name: name.rpartition(".")[2] == "bias")
