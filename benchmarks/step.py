"""What one training step costs beyond its matrix products, and beside what one would pick instead.

    python benchmarks/step.py

One process, one network (the bundled ViT, batch 64), all variants in turn, several rounds, medians.
"products" multiplies matrices of exactly the shapes that the step needs and does nothing else:
forward and the gradient of the activations of all frozen layers, attention, and the experts' own
gradients. The others are whole steps through `training.trainer.fit`, which differ in how the
experts join their layer:

    low-rank backward   this lab: merged forward, low-rank backward (model.experts._MaskedLinear)
    branch              W x + b (λ m (a x)) left to autograd, as peft's LoRA and the authors' layer do it
    merged, autograd    (W + ΔW) x left to autograd, which builds the full gradient of W
    bfloat16            this lab under autocast (the branch form)
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import uniform
from mlae_lab.model.experts import MLAELinear
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

BATCH, TOKENS, WIDTH, HEADS, LAYERS, RANK = 64, 37, 128, 4, 12, 8
ROUNDS, STEPS = 5, 6


def branch(self: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, self.base.weight, self.base.bias) + F.linear(F.linear(x, self.a) * self.scale(), self.b)


def merged_autograd(self: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, self.base.weight + (self.b * self.scale()) @ self.a, self.base.bias)


def step_times(precision: str, forward=None) -> list[float]:
    """Seconds of each of STEPS steps, after two for warming up."""
    original = MLAELinear.forward
    if forward is not None:
        MLAELinear.forward = forward
    try:
        config = RunConfig("digits", plan=uniform(0.5), backbone="lab_vit_12x128.random", epochs=2, precision=precision,
                           evaluations=1)  # fmt: skip
        events = fit(prepare(config))
        times, last = [], None
        for event in events:
            if isinstance(event, TrainStep):
                now = time.perf_counter()
                if last is not None and event.step > 2:
                    times.append(now - last)
                last = now
                if len(times) == STEPS:
                    return times
    finally:
        MLAELinear.forward = original
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
                out, into = w.shape[0] // d, w.shape[1] // d
                x[into] @ w.t()
                if layer or w is not weights[0]:  # nothing below the first layer needs a gradient
                    x[out] @ w
            b @ a, x[3] @ b, x[1] @ a.t(), low.t() @ x[1], x[3].t() @ low
            query @ query.mT, scores @ query
            query @ query.mT, scores.mT @ query, scores @ query, scores.mT @ query
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    variants = {
        "products, float32": lambda: product_times(torch.float32),
        "low-rank backward (this lab)": lambda: step_times("float32"),
        "branch, as peft and the authors": lambda: step_times("float32", branch),
        "merged, left to autograd": lambda: step_times("float32", merged_autograd),
        "products, bfloat16": lambda: product_times(torch.bfloat16),
        "bfloat16 (this lab)": lambda: step_times("bfloat16"),
    }
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            found[name].append(statistics.median(run()))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH} x {TOKENS} tokens, width {WIDTH}"
    )
    base = statistics.median(found["low-rank backward (this lab)"])
    print(f"{'':<34}{'ms per step':>12}{'range':>16}{'of this lab':>13}")
    for name, times in found.items():
        middle = statistics.median(times)
        spread = f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}"
        print(f"{name:<34}{middle * 1e3:>12.1f}{spread:>16}{middle / base:>12.2f}x")


if __name__ == "__main__":
    main()
