"""Compute once what no training step can change.

Everything below the first adapted block is frozen, and without augmentation its output for a
image never changes. `split` cuts a network there; the trainer keeps what enters the cut and
runs only what lies behind it. Vision transformers and MLP-Mixers can be cut before each block; any
other network only at its end, below the head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlae_lab.core.plan import MaskPlan

Part = Callable[[torch.Tensor], torch.Tensor]


def depth(model: nn.Module) -> int:
    """The last place of a cut, below the head: the number of blocks, 1 for a network of stages such as Swin."""
    return len(model.blocks) if hasattr(model, "blocks") else 1


def first_block(plan: MaskPlan | None, blocks: int) -> int:
    """Number (from 0) of the first block that holds an expert; `blocks` if none does.

    blocks: as `depth` gives it. A target outside `blocks.<number>`, as in Swin, counts as block 0.
    """
    if plan is None:
        return blocks
    numbers = [blocks]
    for target, kept in zip(plan.targets, plan.kept, strict=False):
        words = target.split(".")
        if kept:
            numbers.append(int(words[1]) if words[0] == "blocks" else 0)
    return min(numbers)


def split(model: nn.Module, block: int) -> tuple[Part, Part]:
    """(images -> what enters block number `block`, the same -> logits).

    block: 0 to `depth(model)`; at the end of the range the first part gives what the head reads.
    Where a network cannot be cut between blocks, any block below the end means nothing cached:
    the first part hands the images on. The two parts in turn give what `model(images)` gives.
    """
    stem = _stem(model)
    if stem is None:
        if block >= depth(model):
            return model.forward_features, model.forward_head
        return _unchanged, model

    def before(images: torch.Tensor) -> torch.Tensor:
        return model.blocks[:block](stem(images))

    def behind(tokens: torch.Tensor) -> torch.Tensor:
        return model.forward_head(model.norm(model.blocks[block:](tokens)))

    return before, behind


def pieces(model: nn.Module, block: int) -> tuple[Part, ...]:
    """What lies behind the cut at `block`, in the smallest parts that follow one another: one for each block and one
    for norm and head. One part, all of it, where the network cannot be cut between blocks. In turn they give what the
    second part of `split(model, block)` gives, bit for bit."""
    if _stem(model) is None:
        return (split(model, block)[1],)
    return (*model.blocks[block:], lambda tokens: model.forward_head(model.norm(tokens)))


def _unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


def _stem(model: nn.Module) -> Part | None:
    """Images to what enters block 0; None for a network whose blocks are not simply one after another.

    A subclass that overrides timm's `forward_features` may do anything in it, so it is not cut.
    """
    own = type(model).forward_features if hasattr(model, "forward_features") else None
    if own is VisionTransformer.forward_features:
        return lambda x: model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    return model.stem if own is MlpMixer.forward_features else None
