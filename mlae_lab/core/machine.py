"""Processor and memory of this machine, as the operating system reports them."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def processor() -> tuple[str, set[str]]:
    """The name of the processor and its flags (empty if unknown)."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine(), set()
    fields = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


@cache
def multiply_adds_per_second() -> float:
    """Multiply-adds a second of this processor in float32 matrix products of a ViT's size, measured once (0.1 s)."""
    import numpy as np

    a, b = np.ones((512, 768), np.float32), np.ones((768, 768), np.float32)
    seconds, until = [], time.perf_counter() + 0.1
    while not seconds or time.perf_counter() < until:
        began = time.perf_counter()
        np.matmul(a, b)
        seconds.append(time.perf_counter() - began)
    return a.size * b.shape[1] / min(seconds)


def memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int | None]:
    """Total and available memory of this process in bytes; a lower limit of a container or a job counts.

    Args:
        proc: The folder of the process file system.
        groups: The folder of the control groups.

    Returns:
        Total (0 if unknown) and available (None if unknown).
    """
    try:
        fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
        total, available = int(fields["MemTotal"]) * 1024, int(fields["MemAvailable"]) * 1024
    except (OSError, KeyError, ValueError):
        size = _output("sysctl", "-n", "hw.memsize")
        return (int(size), None) if size.isdigit() else (0, None)
    for limit, used in _limits(proc, groups):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every control group that this process is in, version 2 or 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0" and not kinds:
            top, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        innermost = top / path.lstrip("/")
        for group in (innermost, *innermost.parents):
            try:
                limit, used = int((group / names[0]).read_text()), int((group / names[1]).read_text())
                cache = re.search(rf"^{names[2]} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
                yield limit, used - (int(cache[1]) if cache else 0)  # the system frees that cache on demand
            except (OSError, ValueError):
                pass  # this group has no limit
            if group == top:
                break


def _output(*words: str) -> str:
    """The output of a small program, "" if it is missing or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
