"""Cosines and spectra from the factors, compared with building the matrices: time and memory.

    python -m benchmarks similarity [--layers 12] [--d-in 768] [--d-out 2304] [--experts 8 14] [--repeats 5]

Random factors in the shapes of ViT-B/16's qkv. Time is the median over the repeats; memory is the most that was
allocated on top of the initial allocation, as torch's CPU allocator counts it. The largest difference between the two
methods is printed too: of a cosine, or of a singular value relative to the largest one.
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
Method = Callable[[list[Layer]], list[torch.Tensor]]


def cosines_from_factors(layers: list[Layer]) -> list[torch.Tensor]:
    return [cosines(*layer) for layer in layers]


def cosines_from_matrices(layers: list[Layer]) -> list[torch.Tensor]:
    """Every expert as a d_out x d_in matrix, flattened; then the cosines of the vectors."""
    results = []
    for a, b, coefficient in layers:
        flat = torch.stack(
            [(s * torch.outer(column, row)).flatten() for s, column, row in zip(coefficient, b.t(), a, strict=True)]
        )
        flat = torch.nn.functional.normalize(flat.double(), dim=1)
        results.append(flat @ flat.t())
    return results


def values_from_factors(layers: list[Layer]) -> list[torch.Tensor]:
    return [spectrum(*layer).values for layer in layers]


def values_from_matrices(layers: list[Layer]) -> list[torch.Tensor]:
    """The singular values of ΔW as a d_out x d_in matrix."""
    return [torch.linalg.svdvals(((b * s) @ a).double())[: len(s)] for a, b, s in layers]


def peak_bytes(method: Method, layers: list[Layer]) -> int:
    """The most that a method has allocated at any moment."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        method(layers)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]  # the stub lacks it
            peak = max(peak, current)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--d-in", type=int, default=768)
    parser.add_argument("--d-out", type=int, default=2304)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 14])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.layers} layers, {options.d_in} -> {options.d_out}, {torch.get_num_threads()} threads")
    for experts in options.experts:
        generator = torch.Generator().manual_seed(experts)
        layers = [
            (
                torch.randn(experts, options.d_in, generator=generator),
                torch.randn(options.d_out, experts, generator=generator),
                torch.randn(experts, generator=generator),
            )
            for _ in range(options.layers)
        ]
        for quantity, from_factors, from_matrices in (
            ("cosines", cosines_from_factors, cosines_from_matrices),
            ("singular values", values_from_factors, values_from_matrices),
        ):
            seconds: dict[Method, list[float]] = {from_factors: [], from_matrices: []}
            results: dict[Method, list[torch.Tensor]] = {}
            for _ in range(options.repeats):
                for method in (from_factors, from_matrices):
                    began = time.perf_counter()
                    results[method] = method(layers)
                    seconds[method].append(time.perf_counter() - began)
            difference = max(
                float((fast - slow).abs().max() / (1 if quantity == "cosines" else slow[0]))
                for fast, slow in zip(results[from_factors], results[from_matrices], strict=True)
            )
            columns = [
                f"{name} {1000 * statistics.median(seconds[method]):8.1f} ms {peak_bytes(method, layers) / 1e6:8.2f} MB"
                for name, method in (("factors", from_factors), ("matrices", from_matrices))
            ]
            print(
                f"{experts:>3} experts  {quantity:<16} {'   '.join(columns)}   difference {difference:.1e}", flush=True
            )


if __name__ == "__main__":
    main()
