"""A linear probe adds nothing to the network."""

from __future__ import annotations

from torch import nn

from mlae_lab.methods.adapter import Adapter, Batches
from mlae_lab.methods.linear import LinearProbe


def attach(model: nn.Module, method: LinearProbe, seed: int, batches: Batches | None = None) -> Adapter:
    """An adapter without parameters."""
    return Adapter(model, seed)
