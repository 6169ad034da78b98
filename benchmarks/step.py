"""The cost of a training step beyond its matrix products, for each way to compute the experts.

    python -m benchmarks step

One process, one network (the bundled ViT, batch 64), all variants one after the other, several rounds, medians.
"products" multiplies matrices of exactly the shapes that the step needs and does nothing else: forward and the gradient
of the activations of all frozen layers, attention, and the experts' own gradients. The others are whole steps through
`training.trainer.fit`, which differ in how the experts join their layer:

    low-rank backward   this lab: merged forward, low-rank backward (model.experts.MaskedLinear)
    branch              W x + b (λ m (a x)) left to autograd, as in peft's LoRA and the authors' layer
    merged, autograd    (W + ΔW) x left to autograd, which builds the full gradient of W
    bfloat16            this lab under autocast (the branch form)
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.networks import Forward, branch, layer_forward, merged_autograd
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import uniform
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

BATCH, TOKENS, WIDTH, HEADS, LAYERS, RANK = 64, 37, 128, 4, 12, 8
ROUNDS, STEPS = 5, 6


def step_times(precision: str, forward: Forward | None = None) -> list[float]:
    """Seconds of each of STEPS steps, after two warm-up steps."""
    config = RunConfig(
        "digits", uniform(0.5), backbone="lab_vit_12x128.random", epochs=2, precision=precision, evaluations=1
    )
    times: list[float] = []
    last = None
    with layer_forward(forward):
        for event in fit(prepare(config)):
            if isinstance(event, TrainStep):
                now = time.perf_counter()
                if last is not None and event.step > 2:
                    times.append(now - last)
                last = now
                if len(times) == STEPS:
                    break
    return times


def product_times(dtype: torch.dtype) -> list[float]:
    """Seconds of all matrix products of one step."""
    n, d, head = BATCH * TOKENS, WIDTH, WIDTH // HEADS
    x = {k: torch.randn(n, k * d, dtype=dtype) for k in (1, 3, 4)}
    weights = [torch.randn(o * d, i * d, dtype=dtype) for i, o in ((1, 3), (1, 1), (1, 4), (4, 1))]
    low, a, b = (torch.randn(*s, dtype=dtype) for s in ((n, RANK), (RANK, d), (3 * d, RANK)))
    query = torch.randn(BATCH * HEADS, TOKENS, head, dtype=dtype)
    scores = torch.randn(BATCH * HEADS, TOKENS, TOKENS, dtype=dtype)
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        for layer in range(LAYERS):
            for w in weights:
                d_out, d_in = w.shape[0] // d, w.shape[1] // d
                _ = x[d_in] @ w.t()
                if layer or w is not weights[0]:  # nothing below the first layer needs a gradient
                    _ = x[d_out] @ w
            _ = b @ a, x[3] @ b, x[1] @ a.t(), low.t() @ x[1], x[3].t() @ low
            _ = query @ query.mT, scores @ query
            _ = query @ query.mT, scores.mT @ query, scores @ query, scores.mT @ query
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    reference = "low-rank backward (this lab)"
    variants = {
        "products, float32": lambda: product_times(torch.float32),
        reference: lambda: step_times("float32"),
        "branch, as peft and the authors": lambda: step_times("float32", branch),
        "merged, left to autograd": lambda: step_times("float32", merged_autograd),
        "products, bfloat16": lambda: product_times(torch.bfloat16),
        "bfloat16 (this lab)": lambda: step_times("bfloat16"),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, measure in variants.items():
            times[name].append(statistics.median(measure()))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH} x {TOKENS} tokens, width {WIDTH}"
    )
    base = statistics.median(times[reference])
    print(f"{'':<34}{'ms per step':>12}{'range':>16}{'of this lab':>13}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        interval = f"{min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f}"
        print(f"{name:<34}{median * 1e3:>12.1f}{interval:>16}{median / base:>12.2f}x")


if __name__ == "__main__":
    main()
