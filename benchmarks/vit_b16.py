"""One training step at the paper's full shape: ViT-B/16, 224 pixels, batch 64, 12 x 8 experts on qkv.

    python benchmarks/vit_b16.py [--device cuda] [--steps 10] [--batch-size 64]

Random weights, since a step costs the same with any. Prints time per step and peak memory, beside the same
step with the experts' branch left to autograd as peft's LoRA does it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core.patterns import uniform
from mlae_lab.model.backbones import build
from mlae_lab.model.experts import MLAELinear
from mlae_lab.model.inject import inject
from mlae_lab.training.setup import choose_device, choose_precision


def branch(layer: MLAELinear, x: torch.Tensor) -> torch.Tensor:
    """The same layer, all of it left to autograd."""
    low = F.linear(x, layer.a.to(x.dtype)) * layer.scale().to(x.dtype)
    return layer.base(x) + F.linear(low, layer.b.to(x.dtype))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--device", default="auto")
    ask.add_argument("--precision", default="auto")
    ask.add_argument("--steps", type=int, default=10)
    ask.add_argument("--batch-size", type=int, default=64)
    chosen = ask.parse_args()
    device = choose_device(chosen.device)
    precision = choose_precision(chosen.precision, device)
    model = build("vit_base_patch16_224.random", 100, 0).to(device)
    experts = inject(model, uniform(0.5), 0)
    head = model.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW([*experts.parameters(), *head.parameters()], lr=5e-4, fused=True)
    for layer in experts.layers.values():
        layer.train()
    images = torch.randn(chosen.batch_size, 3, 224, 224, device=device)
    labels = torch.randint(100, (chosen.batch_size,), device=device)
    lab_forward = MLAELinear.forward
    print(
        f"torch {torch.__version__}, {device}, {precision}, batch {chosen.batch_size}, {torch.get_num_threads()} threads"
    )
    for name, forward in (("this lab", lab_forward), ("branch, as peft", branch)):
        MLAELinear.forward = forward
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(chosen.steps + 1):
            began = time.perf_counter()
            experts.sample()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16):
                loss = F.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            seconds.append(time.perf_counter() - began)
        memory = (
            torch.cuda.max_memory_allocated() if device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )  # fmt: skip
        step = statistics.median(seconds[1:])  # the first one warms up
        print(
            f"{name:<18}{1000 * step:10.0f} ms per step{chosen.batch_size / step:9.1f} images/s{memory / 2**30:8.2f} GiB peak"
        )
    MLAELinear.forward = lab_forward


if __name__ == "__main__":
    main()
