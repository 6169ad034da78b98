"""Estimated memory of activations, and how many images a network may take at once.

Per image and block, a forward pass holds inputs and outputs of the block's linear layers, tokens · Σ (d_in + d_out)
numbers, and without a fused kernel two attention matrices, 2 · heads · tokens². A backward pass keeps about three
quarters of the first and one attention matrix of every block from the first one with an expert. Numbers are float32.
"""

from __future__ import annotations

import re
from functools import cache

from mlae_lab.core import machine
from mlae_lab.core.backbones import Backbone, Rows

FLOAT = 4  # bytes of one number
LARGEST_PIECE = 4 * 2**30  # bytes: 256 images of ViT-B/16 at 224 pixels take 3.4 GB
IMAGES_AT_ONCE = 256
FUSED_FROM = 400  # tokens: below, two matrix products are faster on a CPU than its fused kernel (benchmarks/step.py)
_KEPT_BACKWARD = 0.75
_STAGE = re.compile(r"(?:layers|stages)\.(\d+)\.")
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def attention_is_fused(backbone: Backbone, device: str) -> bool:
    """Whether attention uses a fused kernel, which never holds the tokens x tokens matrices. device: cpu or cuda."""
    return device != "cpu" or (backbone.tokens or 0) >= FUSED_FROM


def evaluation_bytes(backbone: Backbone, fused: bool) -> int:
    """Peak memory of the activations of one image in a forward pass without gradients."""
    largest = max(_elements(backbone, rows) for rows in _blocks(backbone))
    return FLOAT * (largest + (0 if fused else 2 * _attention(backbone)) + 3 * backbone.image_size**2)


def training_bytes(backbone: Backbone, first: int, fused: bool) -> int:
    """Memory of the activations of one image in a training step.

    Args:
        backbone: The network.
        first: The first trained block, from 0 (`Method.first_block`); the number of blocks if only the head is trained,
            which keeps its inputs only.
        fused: See `attention_is_fused`.
    """
    if first >= backbone.layers:
        return FLOAT * backbone.width
    first = max(0, first)
    kept = 0.0
    for rows in _blocks(backbone):
        blocks = rows[0].count - (first if rows[0].pattern.startswith("blocks.*.") else 0)
        kept += blocks * (_KEPT_BACKWARD * _elements(backbone, rows) + (0 if fused else _attention(backbone)))
    return round(FLOAT * kept) + evaluation_bytes(backbone, fused)


def images_at_once(bytes_per_image: int, most: int = IMAGES_AT_ONCE, limit: int | None = None) -> int:
    """How many images a pass may take: at least 1, at most `most`, and no more than `limit` bytes (`piece_bytes`)."""
    return max(1, min(most, (piece_bytes() if limit is None else limit) // max(1, bytes_per_image)))


@cache
def piece_bytes() -> int:
    """Bytes that the activations of one pass may take here: a quarter of the memory, at most `LARGEST_PIECE`."""
    return min(LARGEST_PIECE, (machine_bytes() or 4 * LARGEST_PIECE) // 4)


def machine_bytes() -> int | None:
    """The memory of this machine, or the limit of this container or job; None where neither is known."""
    return machine.memory()[0] or None


def _blocks(backbone: Backbone) -> list[list[Rows]]:
    """The linear layers, grouped by the block (or stage) that they are in."""
    groups: dict[str, list[Rows]] = {}
    for rows in backbone.linears:
        groups.setdefault(rows.pattern.rpartition(".*.")[0] or rows.pattern, []).append(rows)
    return list(groups.values())


def _elements(backbone: Backbone, rows: list[Rows]) -> int:
    return tokens_in(backbone, rows[0].pattern) * sum(row.d_in + row.d_out for row in rows)


def tokens_in(backbone: Backbone, pattern: str) -> int:
    """Tokens of one image in the block that a pattern of `Rows` names.

    A network of stages begins with patches of 4 x 4 and halves the grid in each.
    """
    if backbone.tokens:
        return backbone.tokens
    stage = _STAGE.match(pattern)
    patch = 4 * 2 ** int(stage[1]) if stage else 16
    return max(1, backbone.image_size // patch) ** 2


def _attention(backbone: Backbone) -> int:
    """Numbers in the attention matrices of one block; windows, as in Swin, are small."""
    return backbone.heads * backbone.tokens**2 if backbone.tokens else 0
