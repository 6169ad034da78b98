"""The learning rate over a run."""

from __future__ import annotations

import math


def cosine(progress: float, warmup: float = 0.0) -> float:
    """Factor of the base learning rate: linear warm-up, then a cosine to 0. The paper uses the cosine without warm-up.

    Args:
        progress: Share of the run that is done, [0, 1].
        warmup: Share of the run over which the learning rate rises, [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
