"""Time and memory of work on a device."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Measurement(NamedTuple):
    """One number of a benchmark."""

    name: str
    value: float
    unit: str


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of one call, the device synchronised before and after."""
    _synchronise(device)
    began = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - began


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int, warmup: int = 1) -> float:
    """Median wall-clock time of several calls, after some that are not counted."""
    for _ in range(warmup):
        work()
    return statistics.median(seconds_of(work, device) for _ in range(repeats))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new maximum; on a CPU the maximum is of the whole process and cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch allocated on a GPU, or the largest resident size of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
