"""Maps over the image: what each expert adds at every patch, and what the network attends to.

    feature map of expert i at patch t    ‖λ_i B_i A_i x_t‖            signed, for rank 1: λ_i ‖b_i‖ a_iᵀx_t
    attention to patch t                  Σ_s r_s A_st                 A: mean over heads of softmax(q kᵀ / √d)
    attention rollout                     rᵀ Ã_L ⋯ Ã_2 Ã_1             Ã = (A + I) / 2   (Abnar and Zuidema 2020)

r says which tokens the head reads: the class token alone, or all patches with equal weight where the network averages
them. The paper (figures 6 and 7) shows "feature attention maps" of experts without a definition; both interpretations
are here. Hooks read the activations, the attention matrix included, so timm's arithmetic is not duplicated; the model
is left unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from mlae_lab.analysis.activation import added
from mlae_lab.errors import LabError
from mlae_lab.model.experts import MLAELinear, experts_off


class NoMap(LabError):
    """A network or a layer that has no such map; its text is the one sentence of why."""


@dataclass(frozen=True)
class ExpertMaps:
    """Feature maps of the experts of one layer, on the grid of patches.

    Attributes:
        columns: canvas columns (from 0) of the experts.
        added: (images, E, height, width), at least 0.
        signed: the same with the sign along b_i; None for a rank above 1, where an expert has no single direction.
    """

    columns: tuple[int, ...]
    added: torch.Tensor
    signed: torch.Tensor | None


@dataclass(frozen=True)
class BlockAttention:
    """Attention of one block to the patches, from the tokens that the head reads.

    Attributes:
        trained: as trained, (images, height, width).
        frozen: all experts of the network off, (images, height, width).
        none: this layer's experts off, all other layers as trained, (images, height, width).
        alone: in this layer only expert i on, (images, E, height, width).
    """

    trained: torch.Tensor
    frozen: torch.Tensor
    none: torch.Tensor
    alone: torch.Tensor


# ---------------------------------------------------------------- the tokens of a network


def grid_of(model: nn.Module, tokens: int) -> tuple[int, int]:
    """Height and width of the patch grid of a network with this number of tokens. Raises NoMap if they form none."""
    patches = tokens - prefix(model)
    stem = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    grid = getattr(stem, "grid_size", None)
    if grid and grid[0] * grid[1] == patches:
        return int(grid[0]), int(grid[1])
    width = int(max(patches, 0) ** 0.5)
    if width and width * width == patches:
        return width, width
    raise NoMap(f"{tokens} tokens of this network form no grid of patches, so there is no map of them")


def prefix(model: nn.Module) -> int:
    """Tokens in front of the patches: class, register and distillation tokens."""
    return int(getattr(model, "num_prefix_tokens", 0))


def reader(model: nn.Module, tokens: int) -> torch.Tensor:
    """r, (tokens,), which sums to 1: the class token alone, or all patches with equal weight for another pooling."""
    first = prefix(model)
    weights = torch.zeros(tokens)
    if getattr(model, "global_pool", "") == "token" and first:
        weights[0] = 1
    else:
        weights[first:] = 1 / (tokens - first)
    return weights


def reader_in_words(model: nn.Module) -> str:
    """The tokens that `reader` selects, as text."""
    if getattr(model, "global_pool", "") == "token" and prefix(model):
        return "the class token, which the head reads"
    return "all patches with equal weight, as the head reads no class token"


def why_no_attention(model: nn.Module) -> str:
    """Why a network has no attention maps, in one sentence; "" if every block attends over all tokens."""
    name = type(model).__name__
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        return f"{name} has no blocks that attend over the whole image, so there is no attention map and no rollout"
    if not all(_dropout(block) is not None and hasattr(block.attn, "fused_attn") for block in blocks):
        return f"the blocks of {name} hold no attention over tokens, so there is no attention map and no rollout"
    return ""


def _dropout(block: nn.Module) -> nn.Module | None:
    """The layer that is applied to the attention matrix before the values."""
    layer = getattr(getattr(block, "attn", None), "attn_drop", None)
    return layer if isinstance(layer, nn.Module) else None


# ---------------------------------------------------------------- feature maps


@torch.no_grad()
def expert_maps(model: nn.Module, target: str, images: torch.Tensor) -> ExpertMaps:
    """Feature maps of the experts of a layer.

    Args:
        model: with experts, in eval mode.
        target: name of the layer.
        images: (n, 3, size, size), normalised.

    Raises:
        NoMap: the input of the layer is not one vector per patch.
    """
    layer = model.get_submodule(target)
    if not isinstance(layer, MLAELinear):
        raise NoMap(f"{target} has no experts, so there is nothing to map: choose a layer with experts")
    if "mlp_tokens" in target:
        raise NoMap(f"{target} mixes the patches of one channel: an expert there has no position in the image")
    inputs: list[torch.Tensor] = []
    with _removing([layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))]):
        model(images)
    x = inputs[0].to(layer.a.dtype)  # float32 under autocast too
    if len(x) != len(images):
        raise NoMap(f"{target} works in windows, not on the whole image, so there is no map of its experts")
    if x.ndim == 3:
        x = x[:, prefix(model) :].reshape(len(x), *grid_of(model, x.shape[1]), -1)
    flat = x.reshape(-1, x.shape[-1])
    shape = (*x.shape[:3], len(layer.columns))
    norms = added(layer, flat).reshape(shape).permute(0, 3, 1, 2)
    signed = None
    if layer.rank == 1:
        with torch.autocast(flat.device.type, enabled=False):
            along = (flat @ layer.a.t()) * (layer.coefficient * layer.b.norm(dim=0))
        signed = along.reshape(shape).permute(0, 3, 1, 2)
    return ExpertMaps(layer.columns, norms, signed)


# ---------------------------------------------------------------- attention


@torch.no_grad()
def attention_of(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Mean over heads of every block's attention matrix: a list of (n, tokens, tokens), whose rows sum to 1.

    Raises NoMap for a network without attention over all its tokens.
    """
    blocks = _blocks(model)
    matrices: list[torch.Tensor] = []
    with _unfused(blocks), _removing([_record(block, matrices) for block in blocks]):
        model(images)
    return matrices


def to_patches(model: nn.Module, attention: torch.Tensor) -> torch.Tensor:
    """Attention to each patch from the tokens that the head reads.

    Args:
        model: whose attention it is.
        attention: (n, tokens, tokens), or (n, tokens) already weighted by `reader`.

    Returns:
        (n, height, width), without the attention to class and register tokens.
    """
    if attention.ndim == 3:
        attention = torch.einsum("s,nst->nt", reader(model, attention.shape[-1]).to(attention), attention)
    grid = grid_of(model, attention.shape[-1])
    return attention[:, prefix(model) :].reshape(len(attention), *grid)


def rollout(model: nn.Module, attention: Sequence[torch.Tensor]) -> torch.Tensor:
    """rᵀ Ã_L ⋯ Ã_1 on the patches, (n, height, width). `attention` is the result of `attention_of`."""
    tokens = attention[0].shape[-1]
    row = reader(model, tokens).to(attention[0]).expand(len(attention[0]), tokens)
    for matrix in reversed(attention):  # row times matrix: the full product is never needed
        row = (row + torch.einsum("ns,nst->nt", row, matrix)) / 2
    return to_patches(model, row)


@torch.no_grad()
def block_attention(
    model: nn.Module, layers: Mapping[str, MLAELinear], target: str, images: torch.Tensor
) -> BlockAttention:
    """Attention of the block of a qkv layer with and without its experts.

    The input of the block is the same for `none` and `alone`, so only this block is computed again for each expert.

    Args:
        model: with experts, in eval mode.
        layers: all layers with experts, by target name.
        target: the qkv layer, a name in `layers`.
        images: (n, 3, size, size), normalised.

    Raises:
        NoMap: the network has no attention, or the experts come after the attention of their block.
    """
    blocks = _blocks(model)
    names = target.split(".")
    if names[0] != "blocks" or names[2:] != ["attn", "qkv"]:
        raise NoMap(f"{target} does not make queries and keys: its experts do not change the attention of their block")
    layer, block = layers[target], blocks[int(names[1])]
    block_inputs: list[tuple[tuple, dict]] = []
    matrices: list[torch.Tensor] = []
    with _unfused([block]):
        hook = block.register_forward_pre_hook(
            lambda module, args, kwargs: block_inputs.append((args, kwargs)), with_kwargs=True
        )
        with _removing([_record(block, matrices), hook]):
            model(images)
        with experts_off(layers), _removing([_record(block, matrices)]):
            model(images)
        args, kwargs = block_inputs[0]
        with _removing([_record(block, matrices)]):
            for on in [(), *((i,) for i in range(len(layer.columns)))]:
                with experts_off({target: layer}, {target: on}):
                    block(*args, **kwargs)
    trained, frozen, none, *alone = (to_patches(model, matrix) for matrix in matrices)
    return BlockAttention(trained, frozen, none, torch.stack(alone, 1))


def _blocks(model: Any) -> Sequence[nn.Module]:
    """The blocks of a network. Raises NoMap if they do not attend over all tokens."""
    if reason := why_no_attention(model):
        raise NoMap(reason)
    return model.blocks


def _record(block: nn.Module, matrices: list[torch.Tensor]) -> RemovableHandle:
    """Append the mean over heads of a block's attention matrix to a list in every forward pass."""

    def record(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        matrices.append(args[0].float().mean(1))

    dropout = _dropout(block)
    assert dropout is not None
    return dropout.register_forward_pre_hook(record)


@contextmanager
def _removing(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks on leaving."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _unfused(blocks: Sequence[Any]) -> Iterator[None]:
    """While open, these blocks compute their attention matrix explicitly; a fused kernel does not."""
    before = [block.attn.fused_attn for block in blocks]
    try:
        for block in blocks:
            block.attn.fused_attn = False
        yield
    finally:
        for block, fused in zip(blocks, before, strict=True):
            block.attn.fused_attn = fused
