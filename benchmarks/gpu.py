"""One check of everything that matters on a GPU, in under 8 minutes.

    python -m benchmarks gpu [--out gpu.json] [--device cuda|cpu] [--quick]

Prints a table and writes JSON with chip, versions and commit. Sections:

    First run         the default run on the bundled backbone: launch to first step, steps per second, total
    Training step     ViT-B/16, 224 pixels, batch 64, 12 x 8 experts, bf16: time, peak memory, share of the measured
                      bf16 matrix rate; the same for other ways to compute the layer and for the linear probe
    Evaluation        throughput of ViT-B/16 with experts unmerged and merged, by batch size
    What-if           a toggle of one expert of ViT-B/16, compared with a full pass
    Stop and resume   a run that is stopped, resumed and ended by *Stop now*; the memory that this frees

ViT-B/16 has random weights, which do not change the cost. Times are medians of synchronised calls. A section that fails
or exceeds its time limit is recorded as one sentence, with what it measured before; the others still run, and the exit
status is 1. `--device cpu --quick` runs the same code on a CPU with a small network.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import torch

from benchmarks import gpu_network, gpu_runs
from benchmarks.timing import Measurement
from mlae_lab.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[1]
REPEAT_SECONDS = 15.0  # between two SectionTimeouts of one section: longer than it takes to stop a run
PACKAGES = ("torch", "torchvision", "timm", "numpy")


@dataclass(frozen=True)
class Section:
    """One part of the benchmark. limit: seconds on a GPU; the limits add up to less than 8 minutes."""

    name: str
    limit: float
    measure: Callable[[], Iterator[Measurement]]


@dataclass
class Result:
    """What a section measured. error: one sentence for a section that did not reach its end."""

    name: str
    seconds: float = 0.0
    error: str | None = None
    measurements: list[Measurement] = field(default_factory=list)


def sections(store: RunStore, device: torch.device, quick: bool) -> list[Section]:
    """All sections, in the order in which they run."""
    size = gpu_network.QUICK if quick else gpu_network.FULL
    return [
        Section("First run", 120, lambda: gpu_runs.first_run(store, device.type, quick)),
        Section("Training step", 100, lambda: gpu_network.training_step(size, device)),
        Section("Evaluation", 60, lambda: gpu_network.evaluation(size, device)),
        Section("What-if", 60, lambda: gpu_network.what_if(size, device)),
        Section("Stop and resume", 110, lambda: gpu_runs.stop_and_resume(store, device.type, quick)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file to write (gpu.json)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small network and few steps, to try the benchmark out")
    options = parser.parse_args(arguments)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as the worker: its first GPU is the first one here
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "This machine has no CUDA GPU that torch can use: run the benchmark where there is one, or add "
            "`--device cpu --quick` to try it on the CPU.",
            file=sys.stderr,
        )
        return 2
    device = torch.device(options.device)
    size = gpu_network.QUICK if options.quick else gpu_network.FULL
    report: dict[str, object] = {
        "benchmark": "gpu",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "device": device.type,
        "chip": chip(device),
        "versions": versions(device),
        "quick": options.quick,
        "network": f"{size.backbone.removesuffix('.random')}, random weights",
    }
    for key, value in report.items():
        print(f"{key:<12}{', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    began = time.monotonic()
    results: list[Result] = []
    with gpu_runs.temporary_store() as store:
        for section in sections(store, device, options.quick):
            result = run(section, factor=1 if device.type == "cuda" else 4)
            show(result)
            results.append(result)
            report["seconds"] = round(time.monotonic() - began, 1)
            report["sections"] = [
                asdict(r) | {"measurements": [m._asdict() for m in r.measurements]} for r in results
            ]  # written after every section: a crash loses only the one that it happens in
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{report['seconds']} s in all, written to {options.out}")
    return 1 if any(result.error for result in results) else 0


def run(section: Section, factor: int = 1) -> Result:
    """Measure one section; whatever goes wrong becomes the error of its result. factor: of its time limit."""
    result, began = Result(section.name), time.monotonic()
    try:
        with time_limit(section.limit * factor):
            for measurement in section.measure():
                result.measurements.append(measurement)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        result.error = f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."
    result.seconds = round(time.monotonic() - began, 1)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


class SectionTimeout(Exception):
    """A section exceeded its time limit. It is not a TimeoutError, which `except OSError` would catch."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise SectionTimeout in the block after so many seconds, and again until the block ends."""

    def expire(*_: object) -> None:
        raise SectionTimeout(f"the section did not end within {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def show(result: Result) -> None:
    """Print one section as a part of the table."""
    print(f"\n{result.name:<50}{result.seconds:>12.1f} s")
    for name, value, unit in result.measurements:
        number = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
        print(f"  {name:<48}{number:>12} {unit}")
    if result.error:
        print(f"  not completed: {result.error}")
    sys.stdout.flush()


# ---------------------------------------------------------------- where it ran


def chip(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(device: torch.device) -> dict[str, str]:
    """Python, the packages that decide speed, and for a GPU CUDA, cuDNN and the driver."""
    installed = {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
    if device.type == "cuda":
        installed |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        installed["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return installed


def commit() -> str:
    """The commit of this checkout, with `-dirty` for one that was changed; "unknown" outside of one."""
    return _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _output(*command: str) -> str:
    """The first line that a command prints, "unknown" where it fails."""
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return completed.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
