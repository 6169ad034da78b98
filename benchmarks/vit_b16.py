"""One training step at the paper's full shape: ViT-B/16, 224 pixels, batch 64, 12 x 8 experts on qkv.

    python -m benchmarks vit_b16 [--device cuda] [--steps 10] [--batch-size 64]

Random weights, since they do not change the cost of a step. Prints time per step and peak memory, and the same for a
step in which autograd handles the experts' branch, as in peft's LoRA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.networks import branch, expert_step, layer_forward, network
from benchmarks.timing import peak_memory, reset_peak_memory
from mlae_lab.training.setup import choose_device, choose_precision
from mlae_lab.training.throughput import median_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    net = network("vit_base_patch16_224.random", 100, device, precision)
    step = expert_step(net, net.images(options.batch_size), torch.randint(100, (options.batch_size,)).to(device))
    print(
        f"torch {torch.__version__}, {device}, {precision}, batch {options.batch_size}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, forward in (("this lab", None), ("branch, as peft", branch)):
        reset_peak_memory(device)
        with layer_forward(forward):
            seconds = median_seconds(step, device, options.steps)
        print(
            f"{name:<18}{1000 * seconds:10.0f} ms per step{options.batch_size / seconds:9.1f} images/s"
            f"{peak_memory(device) / 2**30:8.2f} GiB peak"
        )


if __name__ == "__main__":
    main()
