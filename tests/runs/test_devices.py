"""The devices that runs are queued for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlae_lab.runs import devices

TWO = "0, GPU-aaaa-1, NVIDIA H100, 81559\\n1, GPU-bbbb-2, NVIDIA T4, Tesla, 15360\\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A machine whose nvidia-smi prints a given output."""

    def make(output: str, status: int = 0, visible: str | None = None) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{output}'\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(devices, "torch_takes_gpus", lambda: True)
        devices.gpus.cache_clear()

    yield make
    devices.gpus.cache_clear()


def test_all_cores_are_one_device_and_each_gpu_is_one(machine: Callable[..., None]) -> None:
    machine(TWO)
    assert [(gpu.id, gpu.name, gpu.memory // 2**20) for gpu in devices.gpus()] == [
        ("0", "NVIDIA H100", 81559), ("1", "NVIDIA T4, Tesla", 15360),
    ]  # fmt: skip
    assert devices.slots("cpu") == ("cpu",)
    assert devices.slots("cuda") == ("cuda:0", "cuda:1")
    assert (devices.kind("auto"), devices.kind("cpu"), devices.kind("cuda")) == ("cuda", "cpu", "cuda")


@pytest.mark.parametrize(
    ("visible", "slots"),
    [
        ("1", ("cuda:1",)), ("1,0", ("cuda:1", "cuda:0")), ("GPU-bbbb", ("cuda:1",)), ("0,7,1", ("cuda:0",)),
    ],
)  # fmt: skip
def test_only_visible_gpus_have_slots(machine: Callable[..., None], visible: str, slots: tuple[str, ...]) -> None:
    machine(TWO, visible=visible)
    assert devices.slots("cuda") == slots


def test_hidden_gpus_do_not_count(machine: Callable[..., None]) -> None:
    machine(TWO, visible="")
    assert devices.gpus() == ()
    assert devices.kind("auto") == "cpu"


def test_auto_is_the_cpu_if_torch_was_not_built_for_gpus(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO)
    monkeypatch.setattr(devices, "torch_takes_gpus", lambda: False)
    assert (devices.kind("auto"), devices.kind("cuda")) == ("cpu", "cuda")


@pytest.mark.parametrize(
    ("cuda", "hip", "takes"),
    [
        (": Optional[str] = '13.0'", ": Optional[str] = None", True),
        (" = '12.8'", " = None", True),
        (": Optional[str] = None", ": Optional[str] = '6.4'", True),
        (": Optional[str] = None", ": Optional[str] = None", False),
        (" = None", " = None", False),
    ],
)
def test_whether_torch_was_built_for_gpus(cuda: str, hip: str, takes: bool) -> None:
    output = f"__all__ = ['cuda', 'hip']\n__version__ = '2.14.1'\ndebug = False\ncuda{cuda}\nhip{hip}\nxpu = None\n"
    assert devices.built_for_gpus(output) is takes


def test_the_installed_torch_is_inspected_without_importing_it() -> None:
    import torch

    devices.torch_takes_gpus.cache_clear()
    assert devices.torch_takes_gpus() is bool(torch.version.cuda or torch.version.hip)
    assert devices.built_for_gpus("")  # unknown counts as built for GPUs


@pytest.mark.parametrize(("output", "status"), [("no devices were found", 0), ("driver trouble", 9), ("", 0)])
def test_cuda_has_a_slot_even_without_a_gpu(machine: Callable[..., None], output: str, status: int) -> None:
    machine(output, status)
    if Path("/proc/driver/nvidia/gpus").is_dir():
        pytest.skip("this machine has a GPU")
    assert devices.kind("auto") == "cpu"
    assert devices.slots("cuda") == ("cuda:0",)
