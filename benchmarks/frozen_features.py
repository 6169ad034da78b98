"""Preparing a run from frozen features on disk, compared with computing them.

    python -m benchmarks frozen_features [--repeats 3]

For each run: the median time of `prepare` without a file, and with the file that an earlier run left. Also in the
table: a mask whose first layer has experts, which has nothing to keep and must not become slower.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation, uniform
from mlae_lab.environment import FEATURES
from mlae_lab.training.setup import prepare

BASE = RunConfig("fashion", uniform(0.5), device="cpu", precision="float32")
RUNS = {
    "linear probe": replace(BASE, method="linear"),
    "experts in the upper four layers": replace(BASE, plan=allocation((0,) * 8 + (8,) * 4, drop_rate=0.5)),
    "experts in all layers": BASE,
}


def seconds(config: RunConfig, folder: str) -> tuple[float, float]:
    """Seconds of `prepare`, of the processor and by the clock. folder: as in $MLAE_LAB_FEATURES."""
    os.environ[FEATURES] = folder
    cpu, began = time.process_time(), time.monotonic()
    prepare(config)
    return time.process_time() - cpu, time.monotonic() - began


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks frozen_features", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    seconds(BASE, "off")  # torch and the images are loaded
    print("run                                 computed s   from disk s   ratio   on disk MB   (processor time)")
    for name, config in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds(config, folder)  # leaves the file
            pairs = [(seconds(config, "off")[0], seconds(config, folder)[0]) for _ in range(repeats)]
            size = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
        computed, loaded = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        print(f"{name:<34}{computed:12.2f}{loaded:14.2f}{loaded / computed:8.2f}{size / 1e6:13.1f}")
