"""How much each expert adds to the output of its frozen layer.

    contribution of expert i = mean over tokens of ‖λ_i B_i A_i x‖ / ‖W x + bias‖

measured with all experts on, as at inference. `by_token` is that fraction and the only place that computes it: the
live grid, a class and a single image differ in the tokens that they average. A hook reads the layer's input; the model
is left unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.experts import MLAELinear


def by_token(layer: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    """‖λ_i B_i A_i x‖ / ‖W x + bias‖ of each token and expert: x (N, d_in) to (N, E) float32."""
    frozen = torch.nn.functional.linear(x, layer.base.weight.float(), layer.base.bias)
    return added(layer, x) / frozen.norm(dim=1, keepdim=True).clamp_min(1e-12)


def added(layer: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    """‖λ_i B_i A_i x‖ of each token and expert, from the small matrices A x and BᵀB: x (N, d_in) to (N, E).

    In float32 even under autocast: it costs little, and 16 bits would change the third digit.
    """
    with torch.autocast(x.device.type, enabled=False):
        experts = len(layer.columns)
        low = (x @ layer.a.t()).reshape(len(x), experts, layer.rank)
        up = layer.b.reshape(-1, experts, layer.rank)
        gram = torch.einsum("oer,oes->ers", up, up)
        return torch.einsum("ner,ers,nes->ne", low, gram, low).clamp_min(0).sqrt() * layer.coefficient.abs()


class Contribution:
    """Each expert's contribution over the tokens seen, image by image."""

    def __init__(self) -> None:
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._tokens: dict[str, list[torch.Tensor]] = {}

    def add(self, target: str, layer: MLAELinear, x: torch.Tensor) -> None:
        """Add the input tokens of a layer: x (images, ..., d_in), or one token (d_in,)."""
        x = x.detach().float()
        x = x[None] if x.ndim == 1 else x
        share = by_token(layer, x.reshape(-1, x.shape[-1])).reshape(len(x), -1, len(layer.columns))
        self._sums.setdefault(target, []).append(share.sum(1))
        self._tokens.setdefault(target, []).append(torch.full((len(x), 1), share.shape[1], device=share.device))

    @property
    def means(self) -> dict[str, torch.Tensor]:
        """Mean over all tokens seen: target to (E,), on the CPU."""
        return self.means_of()

    def means_of(self, first: int | None = None) -> dict[str, torch.Tensor]:
        """The same over the tokens of the first images only."""
        return {
            t: (torch.cat(s)[:first].sum(0) / torch.cat(self._tokens[t])[:first].sum()).cpu()
            for t, s in self._sums.items()
        }

    @property
    def images(self) -> dict[str, torch.Tensor]:
        """Mean over the tokens of each image, in the order seen: target to (images, E), on the CPU."""
        return {t: (torch.cat(s) / torch.cat(self._tokens[t])).cpu() for t, s in self._sums.items()}


@contextmanager
def recording(layers: Mapping[str, MLAELinear], into: Contribution | None = None) -> Iterator[Contribution]:
    """While open, every forward pass adds to the contribution that is yielded: `into`, or a new one."""
    contribution = Contribution() if into is None else into
    hooks = []
    try:
        for target, layer in layers.items():

            def record(module, inputs, target=target):
                with torch.no_grad():
                    contribution.add(target, module, inputs[0])

            hooks.append(layer.register_forward_pre_hook(record))
        yield contribution
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def by_image(
    network: Callable[[torch.Tensor], torch.Tensor], entering: torch.Tensor, layers: Mapping[str, MLAELinear]
) -> dict[str, torch.Tensor]:
    """Contribution of each expert to each image: target to (images, E), on the CPU.

    Args:
        network: a function that passes `entering` through all of `layers`, with the experts in eval mode.
        entering: its input, (images, ...).
        layers: target name to layer.
    """
    with recording(layers) as contribution:
        network(entering)
    return contribution.images


def on_canvas(plan: MaskPlan, layers: Mapping[str, MLAELinear], values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(images, E) of each target on the plan's canvas: (images, rows, columns), nan where no expert exists."""
    images = len(next(iter(values.values()))) if values else 0
    canvas = torch.full((images, plan.rows, plan.columns), torch.nan)
    for target, value in values.items():
        canvas[:, plan.targets.index(target), list(layers[target].columns)] = value.float()
    return canvas


def by_class(canvas: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Mean over the images of each class.

    Args:
        canvas: (images, rows, columns).
        labels: (images,) class numbers.
        classes: their number.

    Returns:
        (classes, rows, columns); nan where no expert exists and for a class without images.
    """
    member = torch.nn.functional.one_hot(labels.cpu(), classes).to(canvas.dtype)  # (images, classes)
    exists = ~canvas[:1].isnan()
    sums = torch.einsum("pk,prc->krc", member, canvas.nan_to_num())
    means = sums / member.sum(0)[:, None, None]
    return means.where(exists, torch.nan)
