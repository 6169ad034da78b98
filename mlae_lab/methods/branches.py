"""Where a method acts in a block: after a residual branch, parallel to it, or on the output of the whole block.

A block of timm computes x + drop_path1(attention(norm1(x))) and then x + drop_path2(MLP(norm2(x))). Whatever scales a
branch (LayerScale, γ of BEiT) comes before its `drop_path`, so the output of that module is what is added to the
residual stream, also in blocks with the norm at the end of the branch.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.methods.adapter import Adapter, AttachError

BRANCHES = ("attn", "mlp")
_RECORDED: ContextVar[torch.Tensor | None] = ContextVar("input of the branch that is computed", default=None)


class Projection(nn.Module):
    """Linear layer (..., d_in) -> (..., d_out) with float32 parameters that computes in the dtype of its input.

    Weight (d_out, d_in) and bias (d_out,) start at zero: the caller fills them in.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Parallel(nn.Module):
    """f(x) + g(x) of a frozen f and a trained g."""

    def __init__(self, base: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.base, self.own = base, own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.own(x)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), CLIP's approximation of GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Wrapper(nn.Module):
    """A frozen module in another one, with its attributes: `model.blocks[0].attn` stays what it is."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":  # not there yet
                raise
            return getattr(self.base, name)


class Behind(Wrapper):
    """own(base(x)): a module on the output of a frozen one."""

    def __init__(self, base: nn.Module, own: nn.Module) -> None:
        super().__init__(base)
        self.own = own

    def forward(self, *inputs: Any, **options: Any) -> torch.Tensor:
        return self.own(self.base(*inputs, **options))


class _Recorded(Wrapper):
    """A frozen module whose input or output the parallel module at the end of the branch takes."""

    def __init__(self, base: nn.Module, output: bool) -> None:
        super().__init__(base)
        self.output = output

    def forward(self, x: torch.Tensor, *inputs: Any, **options: Any) -> torch.Tensor:
        y = self.base(x, *inputs, **options)
        _RECORDED.set(y if self.output else x)
        return y


class _Parallel(Wrapper):
    """base(x) + own(what was recorded in this branch)."""

    def __init__(self, base: nn.Module, own: nn.Module) -> None:
        super().__init__(base)
        self.own = own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        recorded = _RECORDED.get()
        assert recorded is not None
        _RECORDED.set(None)  # no tensor is kept after the branch
        return self.base(x) + self.own(recorded)


def width_of(name: str, block: nn.Module) -> int:
    """Features of a token. Raises AttachError for a block without attention, MLP or the place after each."""
    try:
        for part in (*BRANCHES, *map(_end, BRANCHES)):
            block.get_submodule(part)
        return int(block.get_submodule("mlp.fc1").get_parameter("weight").shape[1])
    except AttributeError as error:
        raise AttachError(f"{name} is a {type(block).__name__} without attention, then MLP: choose a ViT") from error


def after(adapter: Adapter, name: str, block: nn.Module, branch: str, own: nn.Module) -> None:
    """Put a module on the output of a branch: x + own(branch(x)).

    Args:
        adapter: Takes the module's tensors, as `<name>.<branch>`.
        name: Of the block.
        block: Of the network.
        branch: "attn" or "mlp".
        own: (..., D) -> (..., D).
    """
    adapter.add(f"{name}.{branch}", own)
    adapter.replace(f"{name}.{_end(branch)}", Behind(block.get_submodule(_end(branch)), own))


def parallel(adapter: Adapter, name: str, block: nn.Module, branch: str, own: nn.Module, normed: bool) -> None:
    """Add a module parallel to a branch: x + branch(x) + own(input).

    Args:
        adapter: Takes the module's tensors, as `<name>.<branch>`.
        name: Of the block.
        block: Of the network.
        branch: "attn" or "mlp".
        own: (..., D) -> (..., D).
        normed: Whether its input is the output of the branch's norm, otherwise the residual stream. Where the norm
            ends the branch, attention and MLP take the residual stream, and so does `own`.
    """
    norm = f"norm{BRANCHES.index(branch) + 1}"
    order = [child for child, _ in block.named_children()]
    if norm not in order:
        raise AttachError(f"{name} is a {type(block).__name__} without {norm}: choose a ViT")
    norm_first = order.index(norm) < order.index(branch)
    start, output = (norm, normed) if norm_first else (branch, False)
    adapter.add(f"{name}.{branch}", own)
    adapter.replace(f"{name}.{start}", _Recorded(block.get_submodule(start), output))
    adapter.replace(f"{name}.{_end(branch)}", _Parallel(block.get_submodule(_end(branch)), own))


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    """A new parameter from U(-bound, bound), rounded in another way than by `uniform_`."""
    return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) * bound)


def uniform_(weight: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a CPU tensor with U(-bound, bound)."""
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)


def _end(branch: str) -> str:
    return f"drop_path{BRANCHES.index(branch) + 1}"
