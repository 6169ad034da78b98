"""Sections of the GPU benchmark that need no worker: training step, evaluation and what-if of one network."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.networks import Network, branch, expert_step, layer_forward, merged_autograd, network, probe_step
from benchmarks.timing import Measurement, peak_memory, reset_peak_memory
from benchmarks.whatif import Case
from mlae_lab.core.budget import step_cost
from mlae_lab.model.inject import merge, remove
from mlae_lab.training.setup import choose_precision
from mlae_lab.training.throughput import images_per_second, median_seconds

CLASSES = 100


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        backbone: a name of the catalog; `.random` for random weights, which need no file.
        batch: images of a training step.
        steps: timed training steps of each variant.
        matrix: side of the square matrices of the matrix rate.
        evaluation_batches: batch sizes of the evaluation.
        repeats: timed passes of each evaluation batch size.
        whatif_images: images of the what-if.
    """

    backbone: str
    batch: int
    steps: int
    matrix: int
    evaluation_batches: tuple[int, ...]
    repeats: int
    whatif_images: int


FULL = Size("vit_base_patch16_224.random", 64, 20, 8192, (1, 4, 16, 256), 20, 200)
QUICK = Size("lab_vit_12x128.random", 2, 2, 256, (1, 4), 2, 2)


def training_step(size: Size, device: torch.device) -> Iterator[Measurement]:
    """Time, peak memory and share of the matrix rate of a training step, with 12 x 8 experts in bf16.

    On a CPU without bf16 instructions everything here is in float32.

    Variants: the experts as in this lab; their branch left to autograd, as in peft; the merged weight left to autograd;
    the linear probe on the frozen backbone.

        share of the matrix rate = 2 B T c / (time of the step x matrix rate)
        matrix rate              = 2 n³ / time of an n x n x n product in bf16, n = 8192, measured here

    B: images of a batch; T: tokens of an image; c: multiply-adds of a step per token (`core.budget.step_cost`). A
    linear layer counts d_in d_out forward and d_in d_out backward: only the gradient of its input, because frozen
    weights have no gradient. Attention counts 2 T w forward and 4 T w backward for width w, E experts of rank k count
    3 E k (d_in + d_out). The probe counts the forward pass alone. Patch embedding, norms, head and optimizer are not
    counted. The two autograd variants are rated by the same c, although the merged one also computes ∂loss/∂W.
    """
    net = _network(size, device)
    rate = matrix_rate(size.matrix, device, net.precision)
    yield Measurement(
        f"matrix rate, {str(net.precision).removeprefix('torch.')}, {size.matrix}³", rate / 1e12, "TFLOP/s"
    )
    cost = step_cost(net.experts.plan, net.entry)
    assert cost is not None
    assert net.entry.tokens is not None
    images, labels = net.images(size.batch), torch.randint(CLASSES, (size.batch,)).to(device)
    step = expert_step(net, images, labels)
    for name, forward, macs in (
        ("experts", None, cost.total),
        ("branch left to autograd", branch, cost.total),
        ("merged weight left to autograd", merged_autograd, cost.total),
        ("linear probe", None, cost.forward),
    ):
        if name == "linear probe":
            remove(net.model)
            step = probe_step(net, images, labels)
        reset_peak_memory(device)
        with layer_forward(forward):
            seconds = median_seconds(step, device, size.steps, warmup=2)
        yield Measurement(f"{name}: time", 1000 * seconds, "ms")
        yield Measurement(f"{name}: throughput", size.batch / seconds, "images/s")
        yield Measurement(f"{name}: peak memory", peak_memory(device) / 2**30, "GiB")
        flop = 2 * size.batch * net.entry.tokens * macs
        yield Measurement(f"{name}: of the matrix rate", 100 * flop / (seconds * rate), "%")


def _network(size: Size, device: torch.device) -> Network:
    return network(size.backbone, CLASSES, device, choose_precision("auto", device))


def matrix_rate(side: int, device: torch.device, precision: torch.dtype) -> float:
    """FLOP per second of a square matrix product."""
    a, b = (torch.randn(side, side, dtype=precision, device=device) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: a @ b, device, repeats=10, warmup=3)


def evaluation(size: Size, device: torch.device) -> Iterator[Measurement]:
    """Throughput of a forward pass with experts in their layers, then merged into the weights."""
    net = _network(size, device)
    for state in ("unmerged", "merged"):
        if state == "merged":
            merge(net.model)
        for batch in size.evaluation_batches:
            rate = images_per_second(net.model, net.images(batch), net.precision, size.repeats)
            yield Measurement(f"{state}, batch {batch}", rate, "images/s")


def what_if(size: Size, device: torch.device) -> Iterator[Measurement]:
    """Time to switch one expert off, one toggle per layer, and of the full pass that it replaces."""
    case = Case(_network(size, device), size.whatif_images)
    yield Measurement(f"first answer, {size.whatif_images} images", 1000 * case.first_answer(), "ms")
    toggles = case.toggles(rounds=1)
    rows = len(toggles)
    last_third = [toggle.seconds for toggle in toggles if toggle.row >= rows - rows // 3]
    yield Measurement("full pass", 1000 * statistics.median(toggle.full_pass for toggle in toggles), "ms")
    yield Measurement("toggle in the last third of layers", 1000 * statistics.median(last_third), "ms")
    yield Measurement("toggle in any layer", 1000 * statistics.median(toggle.seconds for toggle in toggles), "ms")
    yield Measurement("slowest toggle", 1000 * max(toggle.seconds for toggle in toggles), "ms")
    identical = sum(toggle.identical for toggle in toggles)
    yield Measurement("answers identical to the full pass", 100 * identical / rows, "%")
