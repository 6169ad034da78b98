"""Split a network so that its frozen first part is computed only once.

Everything before the first adapted block is frozen, and without augmentation its output for an image never changes,
up to the first block with a drop path (`unvarying`): recipes drop paths of frozen blocks as well.
`split` divides a network there; the trainer keeps the output of the first part and runs only the second. Vision
transformers and MLP-Mixers can be split before each block, any other network only before the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

Part = Callable[[torch.Tensor], torch.Tensor]


def depth(model: nn.Module) -> int:
    """The last split position, before the head: the number of blocks, 1 for a network of stages such as Swin."""
    blocks: Any = getattr(model, "blocks", None)
    return 1 if blocks is None else len(blocks)


def unvarying(model: nn.Module) -> int:
    """How many first blocks compute the same in training as in evaluation: those before timm's first drop path.

    timm's rates rise from 0 in block 0, so that this is 1 for a vision transformer with drop paths. Without any it is
    `depth(model)`.
    """
    blocks: Any = getattr(model, "blocks", [model])
    drops = (any(isinstance(m, DropPath) and m.drop_prob for m in block.modules()) for block in blocks)
    return next((number for number, varies in enumerate(drops) if varies), depth(model))


def split(model: nn.Module, block: int) -> tuple[Part, Part]:
    """Split a network in front of a block. The two parts in sequence give the output of `model(images)`.

    Args:
        model: a network of timm.
        block: 0 to `depth(model)`, which splits before the head, or -1: not even the patch embedding is in the first
            part. With -1, and with any smaller number than `depth(model)` if the network cannot be split between
            blocks, the first part returns the images unchanged.

    Returns:
        The first part, from images to the input of the block, and the second, from there to the logits.
    """
    network: Any = model  # timm's networks share no declared type
    stem = _stem(model)
    if block < 0:
        return _unchanged, model
    if stem is None:
        if block >= depth(model):
            return network.forward_features, network.forward_head
        return _unchanged, model

    def first(images: torch.Tensor) -> torch.Tensor:
        return network.blocks[:block](stem(images))

    def second(tokens: torch.Tensor) -> torch.Tensor:
        return network.forward_head(network.norm(network.blocks[block:](tokens)))

    return first, second


def pieces(model: nn.Module, block: int) -> tuple[Part, ...]:
    """The second part of `split(model, block)` as a sequence: one piece per block and one for norm and head.

    A network that cannot be split between blocks has a single piece. The pieces in sequence give the output of the
    second part bit for bit.
    """
    if _stem(model) is None:
        return (split(model, block)[1],)
    network: Any = model
    return (*network.blocks[block:], lambda tokens: network.forward_head(network.norm(tokens)))


def _unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


def _stem(model: Any) -> Part | None:
    """From images to the input of block 0; None for a network whose blocks are not a plain sequence.

    A subclass that overrides timm's `forward_features` may do anything in it, so it is not split.
    """
    forward_features = getattr(type(model), "forward_features", None)
    if forward_features is VisionTransformer.forward_features:
        return lambda x: model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    return model.stem if forward_features is MlpMixer.forward_features else None
