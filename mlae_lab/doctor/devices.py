"""The section Devices: processor, memory, GPUs, and the devices that torch can use."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator

from mlae_lab.core.machine import memory, processor
from mlae_lab.core.units import format_bytes
from mlae_lab.doctor import versions
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, shortened, trouble
from mlae_lab.doctor.torch_check import TorchReport, check_torch
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import devices

LITTLE_MEMORY = 1_000_000_000  # bytes; torch alone takes half of it


def section(context: Context) -> Iterator[Finding]:
    """The hardware of this machine; torch is loaded only by a deep examination."""
    model, flags = processor()
    yield good("processor", model)
    total = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    yield good("cores", f"{cores}" + (f" of {total} for this process" if cores != total else ""))
    yield _memory_finding()
    instructions = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    if instructions:
        yield good("bfloat16 on the CPU", f"in hardware ({', '.join(instructions)})")
    else:
        support = "not in hardware" if flags else "unknown"
        yield note("bfloat16 on the CPU", f"{support}: runs on the CPU use float32")
    gpus = devices.gpus()
    for gpu in gpus:
        size = format_bytes(gpu.memory) if gpu.memory else "memory unknown"
        yield good(f"GPU {gpu.id}", f"{gpu.name}, {size}")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        yield note("CUDA_VISIBLE_DEVICES", f"{chosen or 'empty'}: runs see only these GPUs")
    if not gpus:
        if chosen is None and shutil.which("nvidia-smi"):
            yield note("GPU", "nvidia-smi is installed and lists no GPU", "type `nvidia-smi` to see why")
        else:
            yield good("GPU", "none: runs use the CPU")
    report = context.torch or (check_torch() if context.deep else None)
    if report is None and gpus and not devices.torch_takes_gpus():
        yield trouble("torch", "built without CUDA: runs use the CPU", _install_cuda_build())
    elif report is None:
        yield note(
            "torch", "not tested", f"`{PROGRAM} doctor --deep` or the button on the Doctor page loads and tests it"
        )
    else:
        yield from _torch_findings(report, len(gpus))


def _install_cuda_build() -> str:
    return (
        f"replace it with a CUDA build: `{versions.pip('--force-reinstall', 'torch', 'torchvision')}`, or choose one "
        "for your driver on https://pytorch.org/get-started"
    )


def _torch_findings(report: TorchReport, driver_gpus: int) -> Iterator[Finding]:
    """Findings of a report of torch. driver_gpus: how many GPUs the driver lists for this process."""
    reinstall = versions.pip("--force-reinstall", "torch", "torchvision")
    if report.failure:
        tested = versions.REQUIREMENTS
        install = versions.pip("-r", str(tested)) if tested.is_file() else reinstall
        yield trouble(
            "torch",
            report.failure,
            f'type `{shlex.quote(sys.executable)} -c "import torch"` to see the whole error, then install '
            f"the tested versions: `{install}`",
        )
        return
    built = f"for CUDA {report.cuda}" if report.cuda else "without CUDA"
    when = time.strftime("%H:%M", time.localtime(report.at))
    yield good(
        "torch",
        f"{report.version} {built} loads in {report.seconds:.1f} s and multiplies on {report.threads} "
        f"thread{'s' if report.threads != 1 else ''}, tested at {when}",
    )
    seen, warning = len(report.gpus), f" ({report.warning})" if report.warning else ""
    if seen:
        yield good("torch on the GPU", f"sees {shortened(list(report.gpus))}")
    for sentence in report.broken:
        yield trouble(
            "torch on the GPU",
            sentence,
            "install a torch build for this GPU: choose one on https://pytorch.org/get-started",
        )
    if seen < driver_gpus:
        if not report.cuda:
            cure = _install_cuda_build()
        else:
            cure = (
                f"update the NVIDIA driver until it supports CUDA {report.cuda}, or install a torch build for an older "
                "CUDA (https://pytorch.org/get-started)"
            )
        yield trouble("torch on the GPU", f"torch sees {seen} of {driver_gpus} GPUs of the driver{warning}", cure)
    elif seen > driver_gpus:
        yield note(
            "torch on the GPU",
            "the driver lists fewer GPUs than torch, so `auto` may choose the CPU",
            "choose `--device cuda` for runs on the GPU",
        )


def _memory_finding() -> Finding:
    total, available = memory()
    if not total:
        return note("memory", "unknown")
    value = f"{format_bytes(total)}, " + (
        "free unknown" if available is None else f"{format_bytes(available)} available"
    )
    if available is not None and available < LITTLE_MEMORY:
        return note("memory", value, "close other programs before a run: torch alone needs half a gigabyte")
    return good("memory", value)
