"""The learning rate over a run."""

from __future__ import annotations

import math


def cosine(progress: float, warmup: float = 0.0) -> float:
    """Factor of the base learning rate: linear rise over the share `warmup`, then a cosine to 0.

    progress: share of the run that is done, [0, 1]. The paper names the cosine and no warm-up.
    """
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
