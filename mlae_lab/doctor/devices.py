"""The section Devices: processor, memory, GPUs, and what torch makes of them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator

from mlae_lab.core.units import format_bytes
from mlae_lab.doctor import versions
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, some, trouble
from mlae_lab.doctor.machine import memory, processor
from mlae_lab.doctor.torch_check import TorchReport, check_torch
from mlae_lab.runs import devices

LITTLE_MEMORY = 1_000_000_000  # bytes; torch alone takes half of it


def section(context: Context) -> Iterator[Finding]:
    """What this machine has to compute with; torch is loaded for a deep look only."""
    model, flags = processor()
    yield good("processor", model)
    everything = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything
    yield good("cores", f"{cores}" + (f" of {everything} for this process" if cores != everything else ""))
    yield _memory_finding()
    products = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    slow = "not in hardware: runs on the CPU take float32" if flags else "unknown: runs on the CPU take float32"
    yield (
        good("bfloat16 on the CPU", f"in hardware ({', '.join(products)})")
        if products
        else note("bfloat16 on the CPU", slow)
    )
    found = devices.gpus()
    for gpu in found:
        size = format_bytes(gpu.memory) if gpu.memory else "memory unknown"
        yield good(f"GPU {gpu.id}", f"{gpu.name}, {size}")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        yield note("CUDA_VISIBLE_DEVICES", f"{chosen or 'empty'}: runs see these GPUs only")
    if not found:
        if chosen is None and shutil.which("nvidia-smi"):
            yield note("GPU", "nvidia-smi is installed and lists none", "type `nvidia-smi` to see why")
        else:
            yield good("GPU", "none: runs take the CPU")
    answer = context.torch or (check_torch() if context.deep else None)
    if answer is None and found and not devices.torch_takes_gpus():
        yield trouble("torch", "built without CUDA: runs take the CPU", _other_build())
    elif answer is None:
        yield note("torch", "not tried", "`mlae_lab doctor --deep` or the button on the Doctor page loads and tests it")
    else:
        yield from _torch_findings(answer, len(found))


def _other_build() -> str:
    return (
        f"replace it by a CUDA build: `{versions.pip('--force-reinstall', 'torch', 'torchvision')}`, or choose one for "
        "your driver on https://pytorch.org/get-started"
    )


def _torch_findings(answer: TorchReport, listed: int) -> Iterator[Finding]:
    """listed: how many GPUs the driver has for this process."""
    afresh = versions.pip("--force-reinstall", "torch", "torchvision")
    if answer.failure:
        tested = versions.REQUIREMENTS
        install = versions.pip("-r", str(tested)) if tested.is_file() else afresh
        yield trouble(
            "torch",
            answer.failure,
            f'type `{shlex.quote(sys.executable)} -c "import torch"` to see it all, then install the tested versions: '
            f"`{install}`",
        )
        return
    built = f"for CUDA {answer.cuda}" if answer.cuda else "without CUDA"
    when = time.strftime("%H:%M", time.localtime(answer.at))
    yield good(
        "torch",
        f"{answer.version} {built} loads in {answer.seconds:.1f} s and multiplies on {answer.threads} "
        f"thread{'s' if answer.threads != 1 else ''}, tested at {when}",
    )
    seen, said = len(answer.gpus), f" ({answer.warning})" if answer.warning else ""
    if seen:
        yield good("torch on the GPU", f"sees {some(list(answer.gpus))}")
    for sentence in answer.broken:
        yield trouble(
            "torch on the GPU",
            sentence,
            "install a torch that was built for this GPU: https://pytorch.org/get-started says which",
        )
    if seen < listed:
        if not answer.cuda:
            cure = _other_build()
        else:
            cure = (
                f"update the NVIDIA driver until it knows CUDA {answer.cuda}, or install a torch built for an older "
                "CUDA (https://pytorch.org/get-started)"
            )
        yield trouble("torch on the GPU", f"torch sees {seen} of {listed} GPUs of the driver{said}", cure)
    elif seen > listed:
        yield note(
            "torch on the GPU",
            "the driver's list has fewer GPUs than torch, so `auto` may take the CPU",
            "choose `--device cuda` for runs on the GPU",
        )


def _memory_finding() -> Finding:
    total, available = memory()
    if not total:
        return note("memory", "unknown")
    value = f"{format_bytes(total)}, {'free unknown' if available is None else f'{format_bytes(available)} available'}"
    if available is not None and available < LITTLE_MEMORY:
        return note("memory", value, "close other programs before a run: torch alone takes half a gigabyte")
    return good("memory", value)
