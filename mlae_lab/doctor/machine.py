"""What the operating system says of this machine: its processor and its memory."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path


def processor() -> tuple[str, set[str]]:
    """The model's name and the CPU's flags, none where nobody says."""
    try:
        told = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine(), set()
    fields = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", told, re.MULTILINE))
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


def memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, int | None]:
    """Bytes that this process may have, and bytes that are available now (None where nobody says).

    A container's or a job's limit counts where it is lower. (0, None) where nothing is known.
    """
    try:
        told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
        total, available = int(told["MemTotal"]) * 1024, int(told["MemAvailable"]) * 1024
    except (OSError, KeyError, ValueError):
        said = _said("sysctl", "-n", "hw.memsize")
        return (int(said), None) if said.isdigit() else (0, None)
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
        place = top / path.lstrip("/")
        for here in (place, *place.parents):
            try:
                limit, used = int((here / names[0]).read_text()), int((here / names[1]).read_text())
                cache = re.search(rf"^{names[2]} (\d+)$", (here / "memory.stat").read_text(), re.MULTILINE)
                yield limit, used - (int(cache[1]) if cache else 0)  # that much is given back when it is wanted
            except (OSError, ValueError):
                pass  # no limit there
            if here == top:
                break


def _said(*words: str) -> str:
    """What a small program prints, "" where it is missing or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
