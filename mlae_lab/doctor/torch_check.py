"""Ask torch what it can do, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

TORCH_SECONDS = 60.0  # patience with torch


@dataclass(frozen=True)
class TorchReport:
    """What torch said in a process of its own. at: when, seconds since 1970; seconds: to load; cuda: the version it
    was built for, "" without; gpus: names, in its order; broken: one sentence for each GPU that cannot multiply;
    warning: what it warned about; failure: one sentence where there was no answer."""

    at: float
    version: str = ""
    seconds: float = 0.0
    threads: int = 0
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    warning: str = ""
    failure: str = ""


_QUESTION = """
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
    """Load torch in another process and multiply on every device. Never raises. seconds: patience."""
    now = time.time()
    chosen = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # the order of nvidia-smi
    try:
        done = subprocess.run(
            [sys.executable, "-c", _QUESTION], env=chosen, cwd=sys.prefix, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return TorchReport(now, failure=f"no answer within {seconds:g} s")
    except OSError as error:
        return TorchReport(now, failure=f"no process could be started ({error})")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        return TorchReport(now, failure=f"torch cannot be used, {ended}: {said[-1].strip() if said else 'not a word'}")
    warning = next((line.partition("Warning:")[2].strip() for line in said if "Warning:" in line), "")
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        told["gpus"], told["broken"] = tuple(told["gpus"]), tuple(told["broken"])
        return TorchReport(now, warning=warning, **told)
    except (ValueError, IndexError, KeyError, TypeError):
        return TorchReport(now, failure="torch gave no answer that can be read")
