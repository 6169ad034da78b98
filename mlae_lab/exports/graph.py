"""The network as a graph of tensor operations, for any number of images."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from mlae_lab.core.export_formats import ExportError
from mlae_lab.exports.export import Export


class Classifier(nn.Module):
    """The network with the names that the graph shows: images (n, 3, size, size) to logits (n, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)


def traced(export: Export) -> torch.export.ExportedProgram:
    """The graph; merged where the method can be merged.

    Raises:
        ExportError: torch.export cannot follow the network.
    """
    if export.can_merge:
        export.merge()
    export.report("tracing the network")
    batch = torch.export.Dim("batch", min=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own internals
            return torch.export.export(
                Classifier(export.network.model).eval(), (export.images,), dynamic_shapes=({0: batch},), strict=False
            )
    except Exception as error:  # of any kind, from inside torch
        others = "peft, timm or safetensors" if export.can_merge else "the archive and mlae_lab.load"
        text = " ".join(str(error).split())[:200]
        raise ExportError(
            f"torch.export cannot follow this network ({type(error).__name__}: {text}): use {others}"
        ) from error
