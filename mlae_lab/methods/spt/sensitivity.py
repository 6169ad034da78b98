"""Which weights of a network are tuned: the sensitivity pass, and the choice within a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import KINDS
from mlae_lab.methods.adapter import AttachError, Batches
from mlae_lab.methods.spt import ALPHA, BETA

_NEVER = ("patch_embed", "pos_embed", "cls_token", "reg_token")


@dataclass(frozen=True)
class Piece:
    """A matrix or vector that is chosen as a whole or weight by weight; q, k and v are separate pieces.

    Attributes:
        module: Name of the module.
        parameter: "weight" or "bias".
        first: First row within the parameter.
        shape: (d_out, d_in) or (length,).
    """

    module: str
    parameter: str
    first: int
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the parameter in the network."""
        return f"{self.module}.{self.parameter}"

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def start(self) -> int:
        """Position of its first weight in the flattened parameter."""
        return self.first * math.prod(self.shape[1:])


def pieces(model: nn.Module) -> list[Piece]:
    """Linear layers of the blocks, and all norms and biases outside patch embedding and head, in a fixed order."""
    return list(_pieces(model))


def _pieces(model: nn.Module) -> Iterator[Piece]:
    head = _head(model)[0]
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        if module == head or name.startswith(_NEVER) or own not in ("weight", "bias"):
            continue
        linear = module.startswith("blocks.") and module.endswith(KINDS)
        if linear or (parameter.ndim == 1 and (own == "bias" or "norm" in module)):
            rows = len(parameter) // 3 if module.endswith("attn.qkv") else len(parameter)
            for first in range(0, len(parameter), rows):
                yield Piece(module, own, first, (rows, *parameter.shape[1:]))


def _head(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the classifier."""
    for name, module in model.named_modules():
        if module is model.get_classifier() and isinstance(module, nn.Linear):  # pyright: ignore[reportCallIssue] - timm
            return name, module
    raise AttachError(f"{type(model).__name__} has no linear head: choose a vision transformer of timm")


def sensitivity(model: nn.Module, batches: Batches, number: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Σ g² of each weight over batches of images, g the gradient of the cross-entropy with a new head.

    The network is not changed.

    Args:
        model: In eval mode.
        batches: Passes over training images.
        number: At most so many batches.
        generator: Of the head, N(0, 0.02²) with bias 0: with a head of zeros all gradients would be 0.

    Returns:
        By name of the parameter, for those of `pieces`, in its shape.

    Raises:
        AttachError: There is no batch.
    """
    name, head = _head(model)
    device = head.weight.device
    replaced = {f"{name}.weight": 0.02 * torch.randn(head.weight.shape, generator=generator).to(device)}
    if head.bias is not None:
        replaced[f"{name}.bias"] = torch.zeros_like(head.bias)
    frozen = dict(model.named_parameters())
    names = list(dict.fromkeys(piece.name for piece in pieces(model)))
    weights = {key: frozen[key].detach().requires_grad_() for key in names}
    totals = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    count = 0
    for images, labels in islice(batches(), number):
        with torch.enable_grad():
            logits = torch.func.functional_call(model, weights | replaced, (images.to(device),))
            loss = F.cross_entropy(logits, labels.to(device))
            gradients = torch.autograd.grad(loss, list(weights.values()))
        for key, gradient in zip(names, gradients, strict=True):
            totals[key].addcmul_(gradient, gradient)
        count += 1
    if not count:
        raise AttachError("the sensitivity pass got no images: give it batches of the training images")
    return totals


def choose(
    scores: Mapping[str, torch.Tensor],
    choices: Sequence[Piece],
    budget: int,
    module: Callable[[int, int], int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is tuned whole, and which other weights are tuned.

    Of the τ most sensitive weights, those in a matrix with at least module/ALPHA of them are replaced by its module,
    and a vector with at least length/BETA of them is tuned whole. Of the values of τ in steps of 1 % of the budget, the
    one that uses most of the budget is taken. The authors' steps are 20,000, and they take the value that is nearest to
    the budget, on either side of it.

    Args:
        scores: As `sensitivity` gives them.
        choices: As `pieces` gives them.
        budget: The most parameters.
        module: (d_in, d_out) of a matrix to the parameters of its module.

    Returns:
        For each piece, 1 where it is tuned whole (int64), and the positions of the other tuned weights in the
        concatenation of all pieces, ascending (int64).
    """
    flat = torch.cat([scores[p.name].flatten()[p.start : p.start + p.size].cpu() for p in choices])
    starts = torch.tensor([p.size for p in choices]).cumsum(0)
    sizes = torch.tensor([module(p.shape[1], p.shape[0]) if len(p.shape) == 2 else p.size for p in choices])
    least = sizes / torch.tensor([ALPHA if len(p.shape) == 2 else BETA for p in choices])
    grid = sorted({min(math.ceil(budget * step / 100), len(flat)) for step in range(1, 400)})
    order = flat.topk(grid[-1]).indices
    owner = torch.bucketize(order, starts, right=True)
    best, used = (torch.zeros_like(sizes), order[:0]), -1
    for number in grid:
        counts = owner[:number].bincount(minlength=len(sizes))
        whole = (counts >= least) & (counts > 0)
        total = int(torch.where(whole, sizes, counts).sum())
        if used < total <= budget:
            best, used = (whole.long(), order[:number][~whole[owner[:number]]].sort().values), total
    return best
