"""How much each expert adds to what its frozen layer says.

    contribution of expert i = mean over tokens of ‖λ_i B_i A_i x‖ / ‖W x + bias‖

measured with all experts on, as at inference. A hook reads the layer's input; the model is left
as it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from mlae_lab.model.experts import MLAELinear


class Contribution:
    """Running mean of each expert's contribution over the tokens seen. means: target to (E,)."""

    def __init__(self) -> None:
        self._sum: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}

    def add(self, target: str, layer: MLAELinear, x: torch.Tensor) -> None:
        """Count the tokens x, (..., d_in), that enter a layer."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        frozen = torch.nn.functional.linear(flat, layer.base.weight.float(), layer.base.bias)
        experts = len(layer.columns)
        low = (flat @ layer.a.t()).reshape(len(flat), experts, layer.rank)
        up = layer.b.reshape(-1, experts, layer.rank)
        gram = torch.einsum("oer,oes->ers", up, up)
        norm = torch.einsum("ner,ers,nes->ne", low, gram, low).clamp_min(0).sqrt() * layer.coefficient.abs()
        share = (norm / frozen.norm(dim=1, keepdim=True).clamp_min(1e-12)).sum(0)
        self._sum[target] = self._sum.get(target, torch.zeros_like(share)) + share
        self._tokens[target] = self._tokens.get(target, 0) + len(flat)

    @property
    def means(self) -> dict[str, torch.Tensor]:
        return {target: (total / self._tokens[target]).cpu() for target, total in self._sum.items()}


@contextmanager
def recording(layers: Mapping[str, MLAELinear]) -> Iterator[Contribution]:
    """While open, every forward pass adds to the contribution that is handed out."""
    found = Contribution()
    hooks = []
    try:
        for target, layer in layers.items():

            def read(module, inputs, target=target):
                with torch.no_grad():
                    found.add(target, module, inputs[0])

            hooks.append(layer.register_forward_pre_hook(read))
        yield found
    finally:
        for hook in hooks:
            hook.remove()
