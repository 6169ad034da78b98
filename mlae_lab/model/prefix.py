"""Compute once what no training step can change.

Everything below the first adapted block is frozen, and without augmentation its output for a
picture never changes. `split` cuts a vision transformer there; the trainer keeps the tokens
that enter the cut and runs only what lies behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.core.plan import MaskPlan

Part = Callable[[torch.Tensor], torch.Tensor]


def first_block(plan: MaskPlan | None, blocks: int) -> int:
    """Number (from 0) of the first block that holds an expert; `blocks` if none does."""
    if plan is None:
        return blocks
    numbers = [blocks]
    for target, kept in zip(plan.targets, plan.kept):
        words = target.split(".")
        if kept:
            numbers.append(int(words[1]) if words[0] == "blocks" else 0)
    return min(numbers)


def split(model: VisionTransformer, block: int) -> tuple[Part, Part]:
    """(pictures -> tokens that enter block number `block`, those tokens -> logits).

    block: 0 to len(model.blocks); at the end of the range the tokens are the last block's output.
    The two parts in turn give what `model(pictures)` gives.
    """

    def before(pictures: torch.Tensor) -> torch.Tensor:
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pictures))))
        return model.blocks[:block](tokens)

    def behind(tokens: torch.Tensor) -> torch.Tensor:
        return model.forward_head(model.norm(model.blocks[block:](tokens)))

    return before, behind
