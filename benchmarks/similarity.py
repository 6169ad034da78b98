"""What cosines and spectra cost from the factors, and by building the matrices: time and memory, one after the other.

    python benchmarks/similarity.py [--layers 12] [--d-in 768] [--d-out 2304] [--experts 8 14] [--repeats 5]

Random factors at the shapes of ViT-B/16's qkv. Time is the median over the repeats; memory the most that was allocated
above what was there before, as torch's CPU allocator counts it. Both ways are compared: the largest difference of a
cosine, and of a singular value relative to the largest, is printed with them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.analysis.similarity import cosines
from mlae_lab.analysis.spectrum import spectrum

Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # a (E, d_in), b (d_out, E), coefficient (E,)


def from_factors(layers: list[Layer]) -> list[torch.Tensor]:
    return [cosines(*layer) for layer in layers]


def built(layers: list[Layer]) -> list[torch.Tensor]:
    """Every expert as a d_out x d_in matrix, flattened; then the cosines of the vectors."""
    found = []
    for a, b, coefficient in layers:
        flat = torch.stack(
            [(s * torch.outer(column, row)).flatten() for s, column, row in zip(coefficient, b.t(), a, strict=False)]
        )
        flat = torch.nn.functional.normalize(flat.double(), dim=1)
        found.append(flat @ flat.t())
    return found


def values_from_factors(layers: list[Layer]) -> list[torch.Tensor]:
    return [spectrum(*layer).values for layer in layers]


def values_built(layers: list[Layer]) -> list[torch.Tensor]:
    """The singular values of ΔW as a d_out x d_in matrix."""
    return [torch.linalg.svdvals(((b * s) @ a).double())[: len(s)] for a, b, s in layers]


def most_memory(way: Callable[[list[Layer]], object], layers: list[Layer]) -> int:
    """Bytes allocated at once, beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        way(layers)
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def main() -> None:
    chosen = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen.add_argument("--layers", type=int, default=12)
    chosen.add_argument("--d-in", type=int, default=768)
    chosen.add_argument("--d-out", type=int, default=2304)
    chosen.add_argument("--experts", type=int, nargs="+", default=[8, 14])
    chosen.add_argument("--repeats", type=int, default=5)
    chosen = chosen.parse_args()
    print(f"{chosen.layers} layers, {chosen.d_in} -> {chosen.d_out}, {torch.get_num_threads()} threads")
    for experts in chosen.experts:
        draw = torch.Generator().manual_seed(experts)
        layers = [
            (
                torch.randn(experts, chosen.d_in, generator=draw),
                torch.randn(chosen.d_out, experts, generator=draw),
                torch.randn(experts, generator=draw),
            )
            for _ in range(chosen.layers)
        ]
        for what, fast, slow in (
            ("cosines", from_factors, built),
            ("singular values", values_from_factors, values_built),
        ):
            seconds: dict[Callable, list[float]] = {fast: [], slow: []}
            answers = {}
            for _ in range(chosen.repeats):
                for way in (fast, slow):
                    began = time.perf_counter()
                    answers[way] = way(layers)
                    seconds[way].append(time.perf_counter() - began)
            apart = max(
                float((one - other).abs().max() / (1 if what == "cosines" else other[0]))
                for one, other in zip(answers[fast], answers[slow], strict=False)
            )
            words = [
                f"{name} {1000 * statistics.median(seconds[way]):8.1f} ms {most_memory(way, layers) / 1e6:8.2f} MB"
                for name, way in (("factors", fast), ("matrices", slow))
            ]
            print(f"{experts:>3} experts  {what:<16} {'   '.join(words)}   apart {apart:.1e}", flush=True)


if __name__ == "__main__":
    main()
