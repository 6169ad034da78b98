"""The devices that runs take in turn, found without torch: all CPU cores are one, each GPU is one."""

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
    """id: what CUDA_VISIBLE_DEVICES takes; memory: in bytes, 0 where nobody said."""

    id: str
    name: str
    memory: int = 0


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that its processes may use, as nvidia-smi lists them; asked once."""
    try:
        words = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
        listed = subprocess.run(words, capture_output=True, text=True, timeout=20)
        found = (
            [_gpu(line) for line in listed.stdout.splitlines() if line.count(",") >= 3] if not listed.returncode else []
        )
    except (OSError, subprocess.TimeoutExpired):
        found = []
    if not found and Path("/proc/driver/nvidia/gpus").is_dir():
        found = [(str(i), "", Gpu(str(i), "GPU")) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(gpu for _, _, gpu in found)
    chosen = []
    for word in filter(None, map(str.strip, allowed.split(","))):
        match = [gpu for index, uuid, gpu in found if word == index or (uuid and uuid.startswith(word))]
        if not match:
            break  # CUDA too takes only what stands before the first name that it does not know
        chosen.append(match[0])
    return tuple(chosen)


def _gpu(line: str) -> tuple[str, str, Gpu]:
    index, uuid, *name, memory = (word.strip() for word in line.split(","))
    bytes_ = int(memory) * 2**20 if memory.isdigit() else 0
    return index, uuid, Gpu(index, ", ".join(name), bytes_)


@lru_cache(maxsize=1)
def torch_takes_gpus() -> bool:
    """Whether the torch that is installed was built for GPUs, by its version file; True where that says nothing."""
    try:
        found = util.find_spec("torch")
        return (
            found is None or not found.origin or built_for_gpus((Path(found.origin).parent / "version.py").read_text())
        )
    except (OSError, ValueError):
        return True


def built_for_gpus(version_file: str) -> bool:
    """What torch/version.py says: `cuda` and `hip` are None in a build for the processor alone."""
    said = re.findall(r"^(?:cuda|hip)\b[^=\n]*=[ \t]*(\S+)", version_file, re.MULTILINE)
    return not said or any(value != "None" for value in said)


def kind(name: str) -> str:
    """ "cpu" or "cuda": which queue a run with this device setting joins; "auto" is a GPU where torch can use one."""
    if name == "auto":
        return "cuda" if gpus() and torch_takes_gpus() else "cpu"
    return name


def slots(device: str) -> tuple[str, ...]:
    """The places at which runs of one queue can be at once: ("cpu",), or ("cuda:0", "cuda:1", ...) by GPU.

    Without a GPU a run that wants one gets a slot all the same, so that it can say itself what is wrong.
    """
    if device == "cpu":
        return ("cpu",)
    return tuple(f"cuda:{gpu.id}" for gpu in gpus()) or ("cuda:0",)


_busy: dict[str, tuple[float, float]] = {}
_busy_lock = threading.Lock()


def load(slot: str) -> str | None:
    """How busy a device is: "1.9 of 2 cores" since the last look, or "83 %, 4.1 GB" of a GPU. None where nobody says.

    slot: as `slots` names it.
    """
    if slot.startswith("cuda"):
        try:
            words = ["nvidia-smi", f"--id={slot.partition(':')[2]}", "--query-gpu=utilization.gpu,memory.used"]
            found = subprocess.run(
                [*words, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=2
            ).stdout.split(",")
            return f"{int(found[0])} %, {int(found[1]) / 1024:.1f} GB"
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
            return None
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        cores = os.cpu_count() or 1
        total, idle = sum(map(float, words)), float(words[3]) + float(words[4])
    except (OSError, ValueError, IndexError):
        return None
    with _busy_lock:
        before = _busy.get(slot)
        _busy[slot] = (total, idle)
    if before is None or total <= before[0]:
        return None
    return f"{cores * (1 - (idle - before[1]) / (total - before[0])):.1f} of {cores} cores"
