"""The devices that runs are queued for, detected without torch: all CPU cores are one, each GPU is one."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """A GPU. id: for CUDA_VISIBLE_DEVICES; memory: in bytes, 0 if unknown."""

    id: str
    name: str
    memory: int = 0


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that this process may use, as nvidia-smi lists them; queried once."""
    try:
        command = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20)
        lines = [] if listing.returncode else listing.stdout.splitlines()
        listed = [_gpu(line) for line in lines if line.count(",") >= 3]
    except (OSError, subprocess.TimeoutExpired):
        listed = []
    if not listed and Path("/proc/driver/nvidia/gpus").is_dir():
        listed = [(str(i), "", Gpu(str(i), "GPU")) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpu for _, _, gpu in listed)
    chosen = []
    for name in filter(None, map(str.strip, visible.split(","))):
        matches = [gpu for index, uuid, gpu in listed if name == index or (uuid and uuid.startswith(name))]
        if not matches:
            break  # CUDA, too, ignores everything from the first unknown name on
        chosen.append(matches[0])
    return tuple(chosen)


def _gpu(line: str) -> tuple[str, str, Gpu]:
    """(index, uuid, GPU) of a line of nvidia-smi."""
    index, uuid, *name, memory = (cell.strip() for cell in line.split(","))
    bytes_ = int(memory) * 2**20 if memory.isdigit() else 0
    return index, uuid, Gpu(index, ", ".join(name), bytes_)


@lru_cache(maxsize=1)
def torch_takes_gpus() -> bool:
    """Whether the installed torch was built for GPUs, by its version file; True if that is unknown."""
    try:
        spec = util.find_spec("torch")
        return spec is None or not spec.origin or built_for_gpus((Path(spec.origin).parent / "version.py").read_text())
    except (OSError, ValueError):
        return True


def built_for_gpus(version_file: str) -> bool:
    """Whether torch/version.py is of a build for GPUs: `cuda` and `hip` are None in a CPU build."""
    values = re.findall(r"^(?:cuda|hip)\b[^=\n]*=[ \t]*(\S+)", version_file, re.MULTILINE)
    return not values or any(value != "None" for value in values)


def kind(name: str) -> str:
    """The queue, "cpu" or "cuda", of a run with this device setting; "auto" is "cuda" if torch can use a GPU."""
    if name == "auto":
        return "cuda" if gpus() and torch_takes_gpus() else "cpu"
    return name


def slots(device: str) -> tuple[str, ...]:
    """The slots of a queue, one active run each: ("cpu",), or ("cuda:0", "cuda:1", ...), one per GPU.

    "cuda" has a slot even without a GPU: a run that needs one starts and fails with a reason.
    """
    if device == "cpu":
        return ("cpu",)
    return tuple(f"cuda:{gpu.id}" for gpu in gpus()) or ("cuda:0",)


_busy: dict[str, tuple[float, float]] = {}
_busy_lock = threading.Lock()


def load(slot: str) -> str | None:
    """The utilization of a slot: "1.9 of 2 cores" since the last call, or "83 %, 4.1 GB" of a GPU; None if unknown."""
    if slot.startswith("cuda"):
        try:
            command = ["nvidia-smi", f"--id={slot.partition(':')[2]}", "--query-gpu=utilization.gpu,memory.used"]
            cells = subprocess.run(
                [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=2
            ).stdout.split(",")
            return f"{int(cells[0])} %, {int(cells[1]) / 1024:.1f} GB"
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
            return None
    try:
        times = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        cores = os.cpu_count() or 1
        total, idle = sum(map(float, times)), float(times[3]) + float(times[4])
    except (OSError, ValueError, IndexError):
        return None
    with _busy_lock:
        before = _busy.get(slot)
        _busy[slot] = (total, idle)
    if before is None or total <= before[0]:
        return None
    return f"{cores * (1 - (idle - before[1]) / (total - before[0])):.1f} of {cores} cores"
