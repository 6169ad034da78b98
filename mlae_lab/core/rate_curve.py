"""The curve of a learning-rate finder: the loss while the rate rises, and the rate that it suggests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOWEST, HIGHEST = 1e-5, 1.0  # learning rates of AdamW
OF_SGD = 100.0  # times these
STEPS = 60
SMOOTHING = 0.9  # of the moving average of the loss
DIVERGED = 4.0  # times the lowest smoothed loss: the search ends
_LEAST = 10  # points of a curve that can suggest anything


@dataclass(frozen=True)
class RatePoint:
    """One step: its learning rate, its loss, and the moving average of the losses up to it."""

    rate: float
    loss: float
    smoothed: float


def bounds(optimizer: str) -> tuple[float, float]:
    """The lowest and the highest rate of a search. optimizer: "adamw" or "sgd"."""
    factor = OF_SGD if optimizer == "sgd" else 1.0
    return factor * LOWEST, factor * HIGHEST


def rates(optimizer: str, steps: int = STEPS) -> list[float]:
    """The rates of the steps, rising by equal factors. Arguments: as `bounds`; the number of steps."""
    low, high = bounds(optimizer)
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def suggested(points: Sequence[RatePoint]) -> float | None:
    """A tenth of the rate with the lowest smoothed loss, rounded to one digit; None for a curve without a fall.

    The lowest point lies at the edge of divergence; a tenth of it is the rule of Smith (2018) for a peak rate.

    Args:
        points: In the order of the steps.
    """
    if len(points) < _LEAST:
        return None
    lowest = min(points[1:], key=lambda point: point.smoothed)
    if lowest.smoothed >= 0.98 * points[0].smoothed:
        return None
    return float(f"{lowest.rate / 10:.0e}")
