"""Test torch in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

TORCH_SECONDS = 60.0  # timeout


@dataclass(frozen=True)
class TorchReport:
    """The result of a test of torch.

    Attributes:
        at: Time of the test in seconds since 1970.
        version: Of torch.
        seconds: To load torch.
        threads: That torch uses.
        cuda: Version that torch was built for, "" without CUDA.
        gpus: Names in the order of torch.
        broken: One sentence for each GPU that cannot multiply.
        warning: A warning of torch.
        failure: One sentence if there was no result, else "".
    """

    at: float
    version: str = ""
    seconds: float = 0.0
    threads: int = 0
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    warning: str = ""
    failure: str = ""


_SCRIPT = """
import json, time
began = time.monotonic()
import torch
seconds, gpus, broken = time.monotonic() - began, [], []
def multiplies(device):
    ones = torch.ones(64, 64, device=device)
    if (ones @ ones).sum().item() != 64.0 ** 3:
        raise RuntimeError("a product of ones comes out wrong")
multiplies("cpu")
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    gpus.append(torch.cuda.get_device_name(i))
    try:
        multiplies(f"cuda:{i}")
    except Exception as error:
        broken.append(f"{gpus[-1]}: {error}".splitlines()[0])
print(json.dumps({"version": torch.__version__, "seconds": seconds, "threads": torch.get_num_threads(),
                  "cuda": torch.version.cuda or "", "gpus": gpus, "broken": broken}))
"""


def check_torch(seconds: float = TORCH_SECONDS) -> TorchReport:
    """Load torch in another process and multiply on every device. Never raises. seconds: timeout."""
    now = time.time()
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi orders them
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], env=environment, cwd=sys.prefix, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return TorchReport(now, failure=f"no answer within {seconds:g} s")
    except OSError as error:
        return TorchReport(now, failure=f"no process could be started ({error})")
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        return TorchReport(
            now, failure=f"torch cannot be used, {ended}: {errors[-1].strip() if errors else 'no message'}"
        )
    warning = next((line.partition("Warning:")[2].strip() for line in errors if "Warning:" in line), "")
    try:
        fields = json.loads(done.stdout.splitlines()[-1])
        fields["gpus"], fields["broken"] = tuple(fields["gpus"]), tuple(fields["broken"])
        return TorchReport(now, warning=warning, **fields)
    except (ValueError, IndexError, KeyError, TypeError):
        return TorchReport(now, failure="torch gave no readable answer")
