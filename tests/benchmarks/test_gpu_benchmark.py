"""`python -m benchmarks gpu`, run for real on the CPU with a small network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, gpu_runs
from benchmarks.timing import Measurement
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

MAY_BE_ZERO = {"memory in use before the run", "memory in use after Stop now"}


def test_every_section_runs_on_the_cpu(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    arguments = ["gpu", "--device", "cpu", "--quick", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=root, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["device"] == "cpu"
    assert report["quick"] is True
    assert report["network"] == "lab_vit_12x128, random weights"
    assert {"commit", "chip", "started", "seconds"} < report.keys()
    assert {"python", "torch", "timm"} < report["versions"].keys()
    measured = {section["name"]: section["measurements"] for section in report["sections"]}
    assert list(measured) == ["First run", "Training step", "Evaluation", "What-if", "Stop and resume"]
    for section in report["sections"]:
        assert section["error"] is None
        assert section["seconds"] > 0
        for name, value, unit in (m.values() for m in section["measurements"]):
            assert value > 0 or name in MAY_BE_ZERO, (name, value, unit)
            assert name in done.stdout
    values = {m["name"]: m["value"] for measurements in measured.values() for m in measurements}
    assert values["launch to first step"] < values["launch to end"]
    assert values["memory in use while training"] > values["memory in use after Stop now"]
    assert values["memory freed"] == 100
    assert values["answers identical to the full pass"] == 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "gpu.json").exists()


def measure_then_fail() -> Iterator[Measurement]:
    yield Measurement("before", 1.5, "s")
    raise RuntimeError("out of\nmemory")


def measure_for_ever() -> Iterator[Measurement]:
    while True:
        yield Measurement("again", 1.5, "s")


def test_a_section_that_fails_keeps_its_measurements_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    result = gpu.run(gpu.Section("Failing", 5, measure_then_fail))
    assert result.measurements == [Measurement("before", 1.5, "s")]
    assert result.error == "RuntimeError: out of memory"
    gpu.show(result)
    assert "RuntimeError: out of memory" in capsys.readouterr().out


def test_a_section_ends_at_its_time_limit() -> None:
    result = gpu.run(gpu.Section("Endless", 0.1, measure_for_ever))
    assert result.error == "SectionTimeout: the section did not end within 0.1 s"
    assert result.measurements


def ignore_one_error() -> Iterator[Measurement]:
    with suppress(Exception):
        yield from measure_for_ever()
    yield from measure_for_ever()


def test_a_section_that_ignores_the_timeout_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "REPEAT_SECONDS", 0.1)
    result = gpu.run(gpu.Section("Endless", 0.1, ignore_one_error))
    assert result.error == "SectionTimeout: the section did not end within 0.1 s"


def test_a_run_is_stopped_where_its_section_fails(lab_store: RunStore) -> None:
    run = lab_store.enqueue(RunConfig("digits", uniform(0.5)), "cpu")
    with pytest.raises(gpu.SectionTimeout), gpu_runs._ending(lab_store, run.id):
        raise gpu.SectionTimeout
    assert lab_store.run(run.id).status is Status.STOPPED


def test_the_limits_of_all_sections_add_up_to_less_than_eight_minutes(lab_store: RunStore) -> None:
    sections = gpu.sections(lab_store, torch.device("cpu"), quick=False)
    assert sum(section.limit for section in sections) < 8 * 60


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_a_benchmark_documents_its_command(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    assert callable(module.main)
    assert f"python -m benchmarks {name}" in (module.__doc__ or "")


def test_an_unknown_benchmark_lists_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speed"])
    assert command.main() == 2
    error = capsys.readouterr().err
    assert "'speed'" in error
    assert all(name in error for name in command.BENCHMARKS)
