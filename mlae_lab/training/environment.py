"""What the numbers of a training depend on besides its settings: kept in checkpoints and compared when a run resumes.

The number of threads is not among it: a resumed run on the same machine gives the same numbers with any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

_NAMES = {
    "device": "device", "gpu": "GPU", "cpu": "CPU instructions", "torch": "torch", "precision": "precision",
    "float32_products": "precision of float32 products",
}  # fmt: skip


def environment_of(device: torch.device, precision: torch.dtype) -> dict[str, str]:
    """The environment of a training in this process, by name as text."""
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cpu": torch.backends.cpu.get_cpu_capability() + (" with bfloat16" if multiplies_bfloat16() else ""),
        "torch": torch.__version__,
        "precision": str(precision).removeprefix("torch."),
        "float32_products": torch.get_float32_matmul_precision(),
    }


def multiplies_bfloat16() -> bool:
    """Whether the CPU has native products of bfloat16 numbers (AMX or AVX-512)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def change_note(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What has changed between two parts of a training, in sentences; "" if nothing has.

    Args:
        before: Of the part before the checkpoint; a checkpoint of an earlier version lacks names.
        now: Of this process.
    """
    changes = [
        f"{title} {now[name] or 'none'} (before: {before[name] or 'none'})"
        for name, title in _NAMES.items()
        if name in before and name in now and before[name] != now[name]
    ]
    if not changes:
        return ""
    kept = f"the precision {now['precision']} is kept, but " if before.get("precision") == now["precision"] else ""
    return (
        f"Resumed in another environment: {', '.join(changes)}. {kept[:1].upper()}{kept[1:]}"
        f"{'the' if kept else 'The'} numbers may differ from those of an uninterrupted run."
    )
