"""What a network says of an image, and which training images it takes for most alike.

    likeness of two images = cos(z, z')        z: what the head reads of an image, (width,)

The last layer is linear in z, so images that lie close in it are told apart least.
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
    """(logits (n, classes), what the head reads (n, width)), float32. network: takes `entering` to the logits."""
    found: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    try:
        logits = network(entering).float()
    finally:
        hook.remove()
    return logits, found[0].float().flatten(1)


def nearest(one: torch.Tensor, all: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and places of the `count` rows of all, (n, width), that lie nearest to one, (width,); nearest first."""
    cosine = F.normalize(all, dim=1) @ F.normalize(one, dim=0)
    best = cosine.topk(min(count, len(all)))
    return best.values, best.indices


def without_each_layer(
    network: Network, layers: Mapping[str, MLAELinear], entering: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """(target, probabilities (n, classes)) with all experts of that layer off and all others on, layer by layer.

    Between two of them the network is as it was found.
    """
    for target, layer in layers.items():
        with torch.no_grad(), experts_off({target: layer}):
            probability = network(entering).float().softmax(1)
        yield target, probability
