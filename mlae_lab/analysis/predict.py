"""Predictions for an image, and the training images that are most similar to the network.

    similarity of two images = cos(z, z')        z: the input of the head for an image, (width,)

The last layer is linear in z, so it separates images with similar z least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.model.experts import MLAELinear, experts_off

Network = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def read_by_head(network: Network, head: nn.Linear, entering: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, classes) and input of the head (n, width), both float32.

    Args:
        network: a function from `entering` to the logits.
        head: the last layer.
        entering: input of the network, n images.
    """
    inputs: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        logits = network(entering).float()
    finally:
        hook.remove()
    return logits, inputs[0].float().flatten(1)


def nearest(query: torch.Tensor, rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and indices of the `count` rows (n, width) that are most similar to a query (width,), in this order."""
    cosine = F.normalize(rows, dim=1) @ F.normalize(query, dim=0)
    best = cosine.topk(min(count, len(rows)))
    return best.values, best.indices


def without_each_layer(
    network: Network, layers: Mapping[str, MLAELinear], entering: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """For each layer its target and the probabilities (n, classes) with all its experts off and all others on."""
    for target, layer in layers.items():
        with torch.no_grad(), experts_off({target: layer}):
            probability = network(entering).float().softmax(1)
        yield target, probability
