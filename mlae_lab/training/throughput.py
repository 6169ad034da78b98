"""Images per second of inference with a method in the network, and with its update merged into the weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from mlae_lab.core.config import RunConfig
from mlae_lab.core.memory import attention_is_fused
from mlae_lab.core.method import Trait
from mlae_lab.methods.adapter import attach
from mlae_lab.model.backbones import build, set_fused_attention, set_image_size

CLASSES = 100


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


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_per_second(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype, repeats: int, warmup: int = 2
) -> float:
    """Throughput of a network in evaluation mode, by the median time of a forward pass.

    Args:
        model: On the device of the images.
        images: (batch, 3, size, size) float32.
        precision: float32, or bfloat16 for autocast.
        repeats: Timed passes.
        warmup: Passes before them.
    """

    @torch.no_grad()
    def forward() -> torch.Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
            return model(images)

    return len(images) / median_seconds(forward, images.device, repeats, warmup)


def throughput(
    config: RunConfig, batches: Sequence[int], device: torch.device, precision: torch.dtype, repeats: int
) -> Iterator[tuple[bool, int, float]]:
    """Throughput of a method, before its training: values of weights do not change the cost.

    Args:
        config: The method and the backbone; a name that ends in ".random" needs no weights.
        batches: Numbers of images at once.
        device: Where it is measured.
        precision: As of `images_per_second`.
        repeats: As of `images_per_second`.

    Yields:
        (whether merged, batch, images per second).
    """
    entry = config.network
    model = build(config.backbone, CLASSES, 0)
    set_image_size(model, entry.image_size)
    kinds = [type(module) for module in model.modules()]
    adapter = attach(model, config.tuning, 0)
    is_merged = kinds == [type(module) for module in model.modules()]  # it trains the network's own weights
    model.to(device).eval()
    if device.type == "cpu":
        set_fused_attention(model, attention_is_fused(entry, device.type))  # as in training
    for merged in [False] * (not is_merged) + [True] * (Trait.MERGEABLE in config.tuning.traits):
        if merged:
            adapter.merge()
        for batch in batches:
            images = torch.randn(batch, 3, entry.image_size, entry.image_size).to(device)
            yield merged, batch, images_per_second(model, images, precision, repeats)
