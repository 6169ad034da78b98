"""Time and memory of work on a device."""

from __future__ import annotations

import resource
from typing import NamedTuple

import torch


class Measurement(NamedTuple):
    """One number of a benchmark."""

    name: str
    value: float
    unit: str


def reset_peak_memory(device: torch.device) -> None:
    """Start a new maximum; on a CPU the maximum is of the whole process and cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch allocated on a GPU, or the largest resident size of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
