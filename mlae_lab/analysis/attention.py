"""Where an image is seen: what each expert adds at every patch, and what the network attends to.

    feature map of expert i at patch t    ‖λ_i B_i A_i x_t‖            signed, for rank 1: λ_i ‖b_i‖ a_iᵀx_t
    attention to patch t                  Σ_s r_s A_st                 A: mean over heads of softmax(q kᵀ / √d)
    attention rollout                     rᵀ Ã_L ⋯ Ã_2 Ã_1             Ã = (A + I) / 2   (Abnar and Zuidema 2020)

r says which tokens the head reads: the class token alone, or all patches evenly where the network averages them.
The paper (figures 6 and 7) shows "feature attention maps" of experts and does not define them; both readings are here.
Hooks read what passes, the attention matrix itself included, so nothing of timm's arithmetic is written twice; the
model is left as it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from mlae_lab.analysis.activation import added
from mlae_lab.errors import LabError
from mlae_lab.model.experts import MLAELinear, experts_off


class NoMap(LabError):
    """A network or a layer that has no such map; its text is the one sentence of why."""


@dataclass(frozen=True)
class ExpertMaps:
    """Feature maps of the experts of one layer, on the grid of patches.

    columns: canvas columns (from 0) of the experts. added: (images, E, height, width), at least 0.
    signed: the same with the sign along b_i, None for experts of rank above 1, which have no single direction.
    """

    columns: tuple[int, ...]
    added: torch.Tensor
    signed: torch.Tensor | None


@dataclass(frozen=True)
class BlockAttention:
    """Attention of one block to the patches, from the tokens that the head reads.

    trained: as the run left it; frozen: no expert anywhere; none: this layer's experts off and all other layers as
    trained. Each (images, height, width). alone: (images, E, height, width), in this layer only expert i on.
    """

    trained: torch.Tensor
    frozen: torch.Tensor
    none: torch.Tensor
    alone: torch.Tensor


# ---------------------------------------------------------------- the tokens of a network


def grid_of(model: nn.Module, tokens: int) -> tuple[int, int]:
    """Height and width of the patch grid of a network whose blocks see so many tokens; NoMap where they form none."""
    patches = tokens - prefix(model)
    stem = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    grid = getattr(stem, "grid_size", None)
    if grid and grid[0] * grid[1] == patches:
        return int(grid[0]), int(grid[1])
    side = int(max(patches, 0) ** 0.5)
    if side and side * side == patches:
        return side, side
    raise NoMap(f"{tokens} tokens of this network form no grid of patches, so there is no map of them")


def prefix(model: nn.Module) -> int:
    """Tokens in front of the patches: class, register and distillation tokens."""
    return int(getattr(model, "num_prefix_tokens", 0))


def reader(model: nn.Module, tokens: int) -> torch.Tensor:
    """r, (tokens,), which sums to 1: the class token alone, or the patches evenly where the network pools otherwise."""
    first = prefix(model)
    read = torch.zeros(tokens)
    if getattr(model, "global_pool", "") == "token" and first:
        read[0] = 1
    else:
        read[first:] = 1 / (tokens - first)
    return read


def reader_in_words(model: nn.Module) -> str:
    """Which tokens `reader` chose, for a screen."""
    if getattr(model, "global_pool", "") == "token" and prefix(model):
        return "the class token, which the head reads"
    return "the patches, evenly: the head reads no class token"


def why_no_attention(model: nn.Module) -> str:
    """One sentence, "" where every block attends over all tokens at once."""
    name = type(model).__name__
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        return f"{name} has no blocks that attend over the whole image, so there is no attention map and no rollout"
    if not all(isinstance(_dropout(block), nn.Module) and hasattr(block.attn, "fused_attn") for block in blocks):
        return f"the blocks of {name} hold no attention over tokens, so there is no attention map and no rollout"
    return ""


def _dropout(block: nn.Module) -> nn.Module | None:
    """The layer that the attention matrix goes through on its way to the values."""
    return getattr(getattr(block, "attn", None), "attn_drop", None)


# ---------------------------------------------------------------- feature maps


@torch.no_grad()
def expert_maps(model: nn.Module, target: str, images: torch.Tensor) -> ExpertMaps:
    """Feature maps of the experts of a layer. target: its name; images: (n, 3, side, side), normalised.

    Raises NoMap where what enters the layer is not one vector for each patch.
    """
    layer = model.get_submodule(target)
    if not isinstance(layer, MLAELinear):
        raise NoMap(f"{target} holds no expert, so there is nothing to map: choose a layer with experts")
    if "mlp_tokens" in target:
        raise NoMap(f"{target} mixes the patches of one channel: an expert there has no place in the image")
    seen: list[torch.Tensor] = []
    with _watching([layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))]):
        model(images)
    x = seen[0].float()
    if len(x) != len(images):
        raise NoMap(f"{target} works in windows, not on the whole image, so there is no map of its experts")
    if x.ndim == 3:
        x = x[:, prefix(model) :].reshape(len(x), *grid_of(model, x.shape[1]), -1)
    flat = x.reshape(-1, x.shape[-1])
    shape = (*x.shape[:3], len(layer.columns))
    size = added(layer, flat).reshape(shape).permute(0, 3, 1, 2)
    signed = None
    if layer.rank == 1:
        with torch.autocast(flat.device.type, enabled=False):
            along = (flat @ layer.a.t()) * (layer.coefficient * layer.b.norm(dim=0))
        signed = along.reshape(shape).permute(0, 3, 1, 2)
    return ExpertMaps(layer.columns, size, signed)


# ---------------------------------------------------------------- attention


@torch.no_grad()
def attention_of(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Mean over heads of every block's attention matrix: a list of (n, tokens, tokens), rows sum to 1.

    Raises NoMap for a network without attention over all its tokens.
    """
    _must_attend(model)
    found: list[torch.Tensor] = []
    with _unfused(model.blocks), _watching([_reads(block, found) for block in model.blocks]):
        model(images)
    return found


def to_patches(model: nn.Module, attention: torch.Tensor) -> torch.Tensor:
    """Attention to each patch from the tokens that the head reads. attention: (n, tokens, tokens) or (n, tokens) of
    rows already joined. Returns (n, height, width); what goes to class and register tokens is left out."""
    if attention.ndim == 3:
        attention = torch.einsum("s,nst->nt", reader(model, attention.shape[-1]).to(attention), attention)
    grid = grid_of(model, attention.shape[-1])
    return attention[:, prefix(model) :].reshape(len(attention), *grid)


def rollout(model: nn.Module, attention: Sequence[torch.Tensor]) -> torch.Tensor:
    """rᵀ Ã_L ⋯ Ã_1 on the patches, (n, height, width). attention: of `attention_of`, from the first block on."""
    tokens = attention[0].shape[-1]
    row = reader(model, tokens).to(attention[0]).expand(len(attention[0]), tokens)
    for matrix in reversed(attention):  # a row times a matrix: the full product is never needed
        row = (row + torch.einsum("ns,nst->nt", row, matrix)) / 2
    return to_patches(model, row)


@torch.no_grad()
def block_attention(
    model: nn.Module, layers: Mapping[str, MLAELinear], target: str, images: torch.Tensor
) -> BlockAttention:
    """What the block of a qkv layer attends to with and without its experts. target: a name in `layers`.

    What enters the block is the same for `none` and `alone`, so only this block is computed again for each expert.
    Raises NoMap for a network without attention, and for experts that sit behind it in their block.
    """
    _must_attend(model)
    words = target.split(".")
    if words[0] != "blocks" or words[2:] != ["attn", "qkv"]:
        raise NoMap(f"{target} does not make queries and keys: its experts change no attention of their own block")
    layer, block = layers[target], model.blocks[int(words[1])]
    entered: list[tuple] = []
    found: list[torch.Tensor] = []
    with _unfused([block]):
        hook = block.register_forward_pre_hook(lambda module, *given: entered.append(given), with_kwargs=True)
        with _watching([_reads(block, found), hook]):
            model(images)
        with experts_off(layers), _watching([_reads(block, found)]):
            model(images)
        inputs, named = entered[0]
        with _watching([_reads(block, found)]):
            for kept in [(), *((i,) for i in range(len(layer.columns)))]:
                with experts_off({target: layer}, {target: kept}):
                    block(*inputs, **named)
    trained, frozen, none, *alone = (to_patches(model, matrix) for matrix in found)
    return BlockAttention(trained, frozen, none, torch.stack(alone, 1))


def _must_attend(model: nn.Module) -> None:
    if reason := why_no_attention(model):
        raise NoMap(reason)


def _reads(block: nn.Module, found: list[torch.Tensor]):
    def read(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0].float().mean(1))

    return _dropout(block).register_forward_pre_hook(read)


@contextmanager
def _watching(hooks: Sequence) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _unfused(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While open, these blocks write their attention matrix down; a fused kernel never does."""
    before = [block.attn.fused_attn for block in blocks]
    try:
        for block in blocks:
            block.attn.fused_attn = False
        yield
    finally:
        for block, fused in zip(blocks, before, strict=False):
            block.attn.fused_attn = fused
