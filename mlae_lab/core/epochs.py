"""How images, steps and epochs of a training relate."""

from __future__ import annotations


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Optimizer steps in one pass over the training images; the last batch may be smaller."""
    return -(-images // batch_size)


def images_seen(step: int, images: int, batch_size: int) -> int:
    """Training images, counted as often as they were used, in the first `step` steps."""
    epochs, rest = divmod(step, steps_per_epoch(images, batch_size))
    return epochs * images + rest * batch_size
