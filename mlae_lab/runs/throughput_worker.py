"""The process that measures Table 3: `python -m mlae_lab.runs.throughput_worker DEVICE BACKBONE METHOD...`.

It prints JSON lines: first where it measures, then one for each method, state and batch.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata

import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.machine import processor
from mlae_lab.core.patterns import fitted, uniform
from mlae_lab.errors import LabError
from mlae_lab.runs.throughput import BATCHES
from mlae_lab.training.setup import choose_device, choose_precision
from mlae_lab.training.throughput import throughput


def main() -> int:
    """Measure the methods that the command line names. Returns 2 for a wrong request."""
    name, backbone, *methods = sys.argv[1:]
    try:
        device = choose_device(name)
        precision = choose_precision("auto", device)
        chip = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()[0]
        _print(
            chip=chip, device=device.type, precision=str(precision).removeprefix("torch."),
            threads=torch.get_num_threads(), torch=metadata.version("torch"),
        )  # fmt: skip
        for method in methods:
            config = RunConfig("digits", method=method, backbone=backbone)
            if config.has_mask:  # all experts are on in inference, whatever p
                config = RunConfig("digits", fitted(uniform(0.5), config.plan.targets), backbone=backbone)
            for merged, batch, rate in throughput(
                config, BATCHES, device, precision, 20 if device.type == "cuda" else 3
            ):
                _print(method=method, merged=merged, batch=batch, rate=rate)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _print(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())
