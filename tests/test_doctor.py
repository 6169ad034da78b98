"""The doctor on new, damaged, locked and newer stores, and on machines of several kinds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import TrainStep
from mlae_lab.core.machine import memory
from mlae_lab.data import fetching
from mlae_lab.doctor import Finding, Report, Section, TorchReport, check_torch, examine, folders, torch_check, versions
from mlae_lab.doctor import devices as devices_section
from mlae_lab.doctor import disk as disk_section
from mlae_lab.doctor import store as store_section
from mlae_lab.doctor import weights as weights_section
from mlae_lab.doctor.weights import PAPER_WEIGHTS, weights_problem
from mlae_lab.locations import lab_version
from mlae_lab.runs import devices, liveness, paths, supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.supervisor import Supervisor
from tests.data.trees import make_vtab

TITLES = ["Devices", "Versions", "Weights and data", "Disk", "Store", "Runs"]


@pytest.fixture(autouse=True)
def new_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store and a data folder that do not exist yet; the list of GPUs is not cached."""
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "lab"))
    for name in ("MLAE_LAB_DATA", "CUDA_VISIBLE_DEVICES", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    devices.gpus.cache_clear()
    yield
    devices.gpus.cache_clear()


def part(report: Report, title: str) -> dict[str, Finding]:
    """The findings of one section by name; the last one if several have the same name."""
    return {f.name: f for section in report.sections if section.title == title for f in section.findings}


def names_of(report: Report) -> list[str]:
    return [finding.name for finding in report.troubles]


@contextmanager
def alive(store: RunStore, owner: str = "") -> Iterator[Run]:
    """A run that seems to train: claimed, its lock held, with a heartbeat at step 34."""
    run = store.enqueue(FIRST_RUN, "cpu", owner)
    lock = locks.take(store.paths(run.id).lock)
    assert lock is not None
    assert store.claim(run.id, "cpu")
    assert store.began(run.id, os.getpid())
    store.move(run.id, Status.RUNNING)
    heartbeat = liveness.HeartbeatWriter(store.paths(run.id))
    heartbeat.beat(34)
    try:
        yield store.run(run.id)
    finally:
        heartbeat.close()
        os.close(lock)


@contextmanager
def supervised(store: RunStore) -> Iterator[None]:
    lock = locks.take(paths.supervisor_lock(store.folder))
    assert lock is not None
    yield
    os.close(lock)


def run_with_steps(store: RunStore, count: int = 4000) -> Run:
    """A finished run with enough events for a database of many pages."""
    run = store.enqueue(FIRST_RUN, "cpu")
    step = {name: 0.5 for name in ("loss", "learning_rate", "seconds")}
    store.append(run.id, [TrainStep(**step_fields(n, step)) for n in range(count)])
    store.move(run.id, Status.FINISHED)
    return run


def step_fields(number: int, usual: dict[str, float]) -> dict:
    from dataclasses import MISSING, fields

    values = {"epoch": 1, "step": number + 1, **usual}
    required = [f.name for f in fields(TrainStep) if f.default is MISSING and f.default_factory is MISSING]
    return {name: values.get(name, 0) for name in required}


def settle(store: RunStore) -> Path:
    """The database with all its content in one file, as after the last process has closed it."""
    file = paths.database(store.folder)
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return file


# ---------------------------------------------------------------- the report


def test_without_a_store_nothing_is_wrong_and_nothing_is_created(tmp_path: Path) -> None:
    began = time.monotonic()
    report = examine()
    assert time.monotonic() - began < 5
    assert [section.title for section in report.sections] == TITLES
    assert report.troubles == ()
    assert report.verdict == "Everything is in order."
    assert list(tmp_path.iterdir()) == []
    assert part(report, "Store")["store"].value.startswith("no store yet")
    assert part(report, "Devices")["torch"].value == "not tested"


def test_every_trouble_has_a_cure_and_text_and_json_agree(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.enqueue(FIRST_RUN, "cpu")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("timm>=99\nno-such-package-of-anybody>=1\n")
    monkeypatch.setattr(versions, "REQUIREMENTS", requirements)
    report = examine()
    assert names_of(report) == ["timm", "no-such-package-of-anybody", "supervisor"]
    assert report.verdict == "3 things need attention."
    assert all(finding.cure for finding in report.troubles)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["troubles"] == 3
    assert data["verdict"] == report.verdict
    lines = report.lines()
    assert lines[0] == report.verdict
    assert all(len(line.splitlines()) == 1 for line in lines if line)
    for section in data["sections"]:
        assert section["title"] in lines
        for finding in section["findings"]:
            at = next(i for i, line in enumerate(lines) if line[2:].startswith(finding["name"] + " "))
            assert lines[at].endswith(finding["value"].rstrip())
            if finding["state"] == "trouble":
                assert lines[at][0] == "!"
                assert lines[at + 1].strip() == f"> {finding['cure']}"
    values = {line.index(f.value) for f in report.troubles for line in lines if line.startswith(f"! {f.name} ")}
    assert len(values) == 1, "the values are aligned"


def test_one_trouble_is_counted_in_the_singular() -> None:
    report = Report((Section("Disk", (Finding("free", "0 bytes", "trouble", "delete runs"),)),))
    assert report.verdict == "1 thing needs attention."


def test_a_section_that_fails_is_one_trouble_and_the_others_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: object) -> Iterator[Finding]:
        yield Finding("first", "was fine")
        raise RuntimeError("two\nlines \x1b[31m of text")

    monkeypatch.setattr(disk_section, "section", broken)
    report = examine()
    assert names_of(report) == ["disk"]
    disk = part(report, "Disk")
    assert disk["first"].state == "good"
    assert "two lines \ufffd[31m of text" in disk["disk"].value
    assert [section.title for section in report.sections] == TITLES


@pytest.mark.parametrize("folder", ["~nobody-of-that-name/lab", "nul\0byte"])
def test_an_impossible_folder_never_raises(folder: str) -> None:
    report = examine(Path(folder))
    assert report.troubles or "\0" in folder  # such a name is not a path: there is no store, and nothing to repair
    assert part(report, "Devices")["processor"].state == "good"


# ---------------------------------------------------------------- devices


def fake_program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


TWO_GPUS = 'echo "0, GPU-a1, NVIDIA H200, 143771"; echo "1, GPU-b2, NVIDIA <T4>, 16000"'
REPORT = TorchReport(time.time(), "2.9.0+cu128", 3.1, 2, "12.8", ("NVIDIA H200", "NVIDIA <T4>"))


def test_gpus_and_what_torch_sees_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "nvidia-smi", TWO_GPUS, monkeypatch)
    monkeypatch.setattr(devices, "torch_takes_gpus", lambda: True)
    findings = part(examine(), "Devices")
    assert findings["GPU 0"].value == "NVIDIA H200, 151 GB"
    assert findings["GPU 1"].state == "good"
    assert "GPU" not in findings

    assert examine(torch=REPORT).troubles == ()
    blind = part(examine(torch=replace(REPORT, gpus=(), cuda="", version="2.9.0+cpu")), "Devices")["torch on the GPU"]
    assert blind.state == "trouble"
    assert "sees 0 of 2" in blind.value
    assert "CUDA build" in blind.cure
    old = replace(REPORT, gpus=(), warning="CUDA initialization: The NVIDIA driver on your system is too old")
    finding = part(examine(torch=old), "Devices")["torch on the GPU"]
    assert "too old" in finding.value
    assert "driver" in finding.cure
    broken = replace(REPORT, broken=("NVIDIA <T4>: no kernel image is available",))
    report = examine(torch=broken)
    assert names_of(report) == ["torch on the GPU"]
    assert "no kernel image" in report.troubles[0].value

    monkeypatch.setattr(devices, "torch_takes_gpus", lambda: False)  # known without loading torch
    assert "built without CUDA" in part(examine(), "Devices")["torch"].value


def test_a_driver_that_lists_nothing_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "nvidia-smi", "exit 9", monkeypatch)
    finding = part(examine(), "Devices")["GPU"]
    assert finding.state == "note"
    assert "nvidia-smi" in finding.cure
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices.gpus.cache_clear()
    findings = part(examine(), "Devices")
    assert findings["GPU"].state == "good"
    assert "empty" in findings["CUDA_VISIBLE_DEVICES"].value


def test_torch_without_an_answer_is_trouble() -> None:
    report = examine(torch=TorchReport(0.0, failure="no answer within 60 s"))
    assert names_of(report) == ["torch"]
    assert "import torch" in report.troubles[0].cure


def test_torch_is_tested_in_another_process() -> None:
    report = check_torch()
    assert report.failure == ""
    assert report.version
    assert report.seconds > 0
    assert report.threads >= 1
    assert abs(report.at - time.time()) < 120


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
        ("import no_such_torch", "No module named 'no_such_torch'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal 4: no message"),
        ("print('hello')", "no readable answer"),
        ("print('{}')", "no readable answer"),
        ("", "no readable answer"),
    ],
)
def test_torch_that_cannot_answer(script: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_check, "_SCRIPT", script if script != "print('{}')" else "print('[1]')")
    assert message in check_torch(seconds=0.5 if "sleep" in script else 60).failure


def test_only_a_deep_examination_tests_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    output = {"version": "9.9", "seconds": 0.1, "threads": 1, "cuda": "", "gpus": [], "broken": []}
    monkeypatch.setattr(torch_check, "_SCRIPT", f"print({json.dumps(output)!r})")
    assert part(examine(), "Devices")["torch"].value == "not tested"
    assert part(examine(deep=True), "Devices")["torch"].value.startswith("9.9 without CUDA loads in 0.1 s")


MEMINFO = "MemTotal:       32000000 kB\nMemFree:         100 kB\nMemAvailable:   20000000 kB\n"


def machine(folder: Path, group: str) -> tuple[Path, Path]:
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "cgroup").write_text(group)
    groups.mkdir()
    return proc, groups


def limited(folder: Path, limit: str, used: int, cache: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_memory_without_a_limit(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "0::/user/me\n")
    limited(groups / "user", "max", 7, 0, V2)
    assert memory(proc, groups) == (32_000_000 * 1024, 20_000_000 * 1024)


def test_memory_of_a_job_is_the_lowest_limit_above_it(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "0::/jobs/job7/step0\n")
    limited(groups / "jobs" / "job7", "4000000000", 1_000_000_000, 400_000_000, V2)
    limited(groups / "jobs", "9000000000", 8_000_000_000, 0, V2)
    assert memory(proc, groups) == (4_000_000_000, 1_000_000_000)


def test_memory_of_an_older_container(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path, "11:cpu,cpuacct:/x\n4:memory:/docker/abc\nnonsense\n")
    limited(groups / "memory", "2000000000", 500_000_000, 100_000_000, V1)  # inside the container its group is the top
    assert memory(proc, groups) == (2_000_000_000, 1_600_000_000)


def test_memory_without_a_source_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "sysctl", "exit 1", monkeypatch)
    assert memory(tmp_path / "none", tmp_path / "none") == (0, None)
    monkeypatch.setattr(devices_section, "memory", lambda: (0, None))
    assert part(examine(), "Devices")["memory"].value == "unknown"
    monkeypatch.setattr(devices_section, "memory", lambda: (10**10, 5 * 10**8))
    assert part(examine(), "Devices")["memory"].state == "note"


# ---------------------------------------------------------------- versions


def test_versions_are_the_installed_ones() -> None:
    findings = part(examine(), "Versions")
    for name in ("torch", "timm", "streamlit", "huggingface-hub", "pillow"):
        assert findings[name].value == versions.metadata.version(name)
        assert findings[name].state == "good"
    assert findings["lab"].value.split(",")[0] == lab_version() != "unknown"
    assert findings["Python"].value.startswith(".".join(map(str, sys.version_info[:3])))


def test_a_version_out_of_range_is_trouble_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(
        "# tested\n-r other.txt\ntimm>=0.1,<0.2  # old\nnumpy>=1\nplotly>=1; python_version < '3'\n\n"
    )
    monkeypatch.setattr(versions, "REQUIREMENTS", requirements)
    report = examine()
    assert names_of(report) == ["timm"]
    assert "plotly" not in part(report, "Versions")
    assert report.troubles[0].cure == f"type `{sys.executable} -m pip install 'timm<0.2,>=0.1'`"


def test_without_requirements_and_an_installed_lab_the_section_is_one_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> list[str]:
        raise versions.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "REQUIREMENTS", Path("/nowhere/requirements.txt"))
    monkeypatch.setattr(versions.metadata, "requires", not_installed)
    assert names_of(examine()) == ["versions"]


# ---------------------------------------------------------------- weights and data


def safetensors(file: Path, numbers: int = 4) -> Path:
    header = json.dumps({"a": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * numbers))
    return file


def test_intact_weights_have_no_problem(tmp_path: Path, root: Path) -> None:
    assert weights_problem(root / "assets" / "lab_vit_12x128.safetensors") == ""
    assert weights_problem(safetensors(tmp_path / "a.safetensors")) == ""


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"abc", b"<!DOCTYPE html><html>not found</html>", b"\x02" + bytes(7) + b"[]",
        b"\x04" + bytes(7) + b"{\x80}}",
    ],
)  # fmt: skip
def test_another_file_has_a_problem(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(damage)
    assert "safetensors" in weights_problem(file)


def test_intact_truncated_and_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("MLAE_LAB_DATA", str(data))
    safetensors(data / "weights" / "vit_tiny.intact" / "model.safetensors")
    truncated = safetensors(data / "weights" / PAPER_WEIGHTS / "model.safetensors")
    truncated.write_bytes(truncated.read_bytes()[:-1])
    (data / "weights" / "empty").mkdir()
    report = examine()
    findings = part(report, "Weights and data")
    assert findings["weights vit_tiny.intact"].state == "good"
    assert findings["weights empty"].state == "note"
    assert names_of(report) == [f"weights {PAPER_WEIGHTS}"]
    assert "mlae_lab fetch" in report.troubles[0].cure
    assert "the paper's weights" not in findings


def test_damaged_assets_are_trouble(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    shutil.copytree(root / "assets", assets)
    monkeypatch.setattr(weights_section, "ASSETS", assets)
    monkeypatch.setattr(weights_section.bundled, "ASSETS", assets)
    assert examine().troubles == ()
    (assets / "digits.npz").write_bytes((assets / "digits.npz").read_bytes()[:1000])
    with (assets / "lab_vit_12x128.safetensors").open("ab") as file:
        file.write(b"x")
    (assets / "first_run.json").unlink()
    troubles = examine().troubles
    assert [f.name for f in troubles] == ["bundled"] * 3
    assert all(str(assets) in f.cure for f in troubles)


def test_tasks_with_a_folder_and_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("MLAE_LAB_DATA", str(data))
    make_vtab(data / "vtab-1k", "svhn")
    (data / "own" / "birds").mkdir(parents=True)
    (data / "own" / os.fsdecode(b"b\xffd")).mkdir()
    report = examine()
    findings = part(report, "Weights and data")
    assert findings["Natural tasks"].value == "1 of 7 have a folder: svhn"
    assert findings["FGVC tasks"].value == "0 of 5 have a folder"
    assert findings["own images"].value.startswith("own:birds")
    "\n".join(report.lines()).encode()  # a lone surrogate in a name must not break a terminal
    assert "MLAE_LAB_DATA" in findings["data folder"].value


def test_the_hub_address_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example/hf")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    report = examine()
    assert part(report, "Weights and data")["HF_ENDPOINT"].value == "https://…@mirror.example/hf"
    assert part(report, "Weights and data")["HF_HUB_OFFLINE"].value == "1"
    assert "secret" not in str(report.to_dict())


def test_fetches_that_failed_were_lost_or_are_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("MLAE_LAB_DATA", str(data))
    states = {
        "svhn": ("failed", "the host says <no>"), "dtd": ("running", None), "cub": ("cancelled", None),
        "eurosat": ("done", None),
    }  # fmt: skip
    for name, (status, reason) in states.items():
        (data / ".fetch" / name).mkdir(parents=True)
        fetching._write(data / ".fetch" / name, status, None, reason)
    (data / ".fetch" / "_parts").mkdir()
    (data / ".fetch" / "no such task").mkdir()
    (data / ".fetch" / "sun397").mkdir()
    (data / ".fetch" / "sun397" / "progress.json").write_text("{broken")
    fetching._write(data / ".fetch" / "sun397", "running")
    lock = locks.take(data / ".fetch" / "sun397" / "lock")
    report = examine()
    assert lock is not None
    os.close(lock)
    findings = part(report, "Weights and data")
    assert names_of(report) == ["fetch dtd", "fetch svhn"]
    assert "lost" in findings["fetch dtd"].value
    assert "the host says <no>" in findings["fetch svhn"].value
    assert all("mlae_lab fetch" in f.cure for f in report.troubles)
    assert findings["fetch cub"].state == "note"
    assert findings["fetch sun397"].value == "running"
    assert "fetch eurosat" not in findings
    assert "fetch no such task" not in findings


@pytest.mark.parametrize("below", ["", "sub/data"])
def test_a_data_folder_that_is_a_file(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "file" / below))
    assert names_of(examine()) == ["data folder"]


# ---------------------------------------------------------------- disk


@pytest.mark.parametrize(("free", "state"), [(10**10, "good"), (10**9, "note"), (10**8, "trouble")])
def test_free_space_on_the_disk(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(disk_section.shutil, "disk_usage", lambda path: usage._replace(free=free))
    finding = part(examine(), "Disk")["free for store and data folder"]
    assert finding.state == state
    assert (state == "good") == (not finding.cure)


def test_sizes_and_leftovers(store: RunStore) -> None:
    run = store.enqueue(FIRST_RUN, "cpu")
    store.move(run.id, Status.STOPPED)
    folder = store.paths(run.id).folder
    (folder / "checkpoints").mkdir()
    old, fresh = folder / "checkpoints" / "epoch-00001.safetensors.part", folder / "adapter.safetensors.part"
    for file in (old, fresh):
        file.write_bytes(bytes(3000))
    os.utime(old, (time.time() - 7200,) * 2)
    (folder / "endless").symlink_to(store.folder)
    archive = paths.archived(store.folder, run.id)
    archive.parent.mkdir()
    archive.write_bytes(bytes(5000))
    cache = store.folder / "data" / "cache"
    cache.mkdir(parents=True)
    (cache / "pixels.npy").write_bytes(bytes(70_000))
    report = examine()
    findings = part(report, "Disk")
    assert findings["archive"].value == "5 kB"
    assert findings["decoded images"].value == "70 kB"
    assert 6000 <= float(findings["files of runs"].value.split()[0]) * 1000 < 7000
    assert findings["leftovers"].value == "1 unfinished file of runs, 3 kB"
    assert report.troubles == ()


# ---------------------------------------------------------------- store


def test_a_healthy_store(store: RunStore) -> None:
    run_with_steps(store, 50)
    report = examine()
    findings = part(report, "Store")
    assert report.troubles == ()
    assert findings["health"].value == "the database is intact"
    assert {"folder", "locks", "schema", "health"} == set(findings)
    assert not list(store.folder.glob(".locks-*")), "the test of the locks leaves no file"


def test_an_empty_folder_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    assert part(examine(), "Store")["store"].value.startswith("no store yet")
    assert list((tmp_path / "lab").iterdir()) == []


def test_an_empty_database_stays_empty(tmp_path: Path) -> None:
    file = paths.database(tmp_path)
    file.touch()
    assert part(examine(tmp_path), "Store")["store"].value.startswith("no store yet")
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_size == 0


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_store_that_is_a_file(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").write_text("not a folder")
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "lab" / below))
    report = examine()
    assert names_of(report) == ["folder"]
    assert "is a file" in report.troubles[0].value
    assert "MLAE_LAB_STORE" in report.troubles[0].cure


def overwrite_pages(file: Path, at: float, pages: int = 3) -> None:
    """Overwrite pages in the middle of a database."""
    content = bytearray(file.read_bytes())
    start = int(len(content) * at) // 4096 * 4096
    content[start : start + pages * 4096] = b"\xa5" * (pages * 4096)
    file.write_bytes(content)


def test_a_damaged_database_is_reported_and_the_cure_works(store: RunStore, tmp_path: Path) -> None:
    run = run_with_steps(store)
    file = settle(store)
    assert file.stat().st_size > 40 * 4096
    overwrite_pages(file, 0.7)
    report = examine()
    health = part(report, "Store")["health"]
    assert health.state == "trouble"
    assert "damaged" in health.value
    assert "sqlite3 lab.sqlite .dump" in health.cure
    assert "\n" not in health.value
    assert names_of(report) == ["health"]
    if shutil.which("sqlite3"):
        saved = tmp_path / "saved" / "lab.sqlite"
        saved.parent.mkdir()
        subprocess.run(store_section.RESCUE, shell=True, check=True, capture_output=True, cwd=file.parent)
        shutil.move(file.with_name("new.sqlite"), saved)
        rescued = RunStore(saved.parent)
        assert rescued.trouble() is None
        assert [r.id for r in rescued.runs()] == [run.id]


@pytest.mark.parametrize("first", [b"this is no database, it is a letter" * 300, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_not_a_database(first: bytes, store: RunStore) -> None:
    settle(store).write_bytes(first)
    report = examine()
    assert len(report.troubles) == 1
    assert "move lab.sqlite" in report.troubles[0].cure
    assert part(report, "Runs")["runs"].state == "note"
    for file in store.folder.glob("lab.sqlite*"):
        file.rename(store.folder.parent / file.name)
    assert examine().troubles == ()
    assert RunStore(store.folder).runs() == []


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "lab" / "lab.sqlite").mkdir(parents=True)
    report = examine()
    assert names_of(report) == ["store"]
    assert "lab.sqlite in it is not a file" in report.troubles[0].value
    assert report.troubles[0].cure == "choose another folder"


def test_a_store_of_an_earlier_lab_is_not_migrated(tmp_path: Path) -> None:
    with zipfile.ZipFile(Path(__file__).parent / "old" / "store_0_5_1.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "store"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = examine(folder)
    assert part(report, "Store")["schema"].value == "5: this version migrates it when it opens it"
    assert part(report, "Store")["schema"].state == "note"
    assert part(report, "Runs")["runs"].value == "not examined: the store is of an earlier version"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert len(RunStore(folder).runs()) == 9
    assert part(examine(folder), "Store")["schema"].state == "good"


def test_a_store_of_a_newer_lab(store: RunStore) -> None:
    with store._connection(write=True) as db:
        db.execute("PRAGMA user_version=99")
    report = examine()
    assert names_of(report) == ["store"]
    assert "newer version (schema 99" in report.troubles[0].value
    assert report.troubles[0].cure.startswith("update MLAE Lab")


def test_a_file_system_without_locks(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_section.supports_locks(store.folder)
    monkeypatch.setattr(locks.fcntl, "flock", lambda file, how: None)  # accepts every lock, as some file systems do
    report = examine()
    assert names_of(report) == ["locks"]
    assert "MLAE_LAB_STORE" in report.troubles[0].cure

    def refused(file: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    assert not store_section.supports_locks(store.folder)
    assert not list(store.folder.glob(".locks-*"))


def test_a_folder_that_cannot_be_written(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", refused)
    report = examine()
    assert "folder" in names_of(report)
    assert "Read-only file system" in part(report, "Store")["folder"].value


def test_a_large_database_is_read_only_by_a_deep_examination(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with_steps(store, 10)
    monkeypatch.setattr(store_section, "LARGE_DATABASE", 1000)
    monkeypatch.setattr(store_section, "LARGE_WAL", -1)
    report = examine()
    assert part(report, "Store")["health"].state == "note"
    assert "write-ahead log" in part(report, "Store")
    torch_report = TorchReport(0.0, "9.9")
    assert part(examine(deep=True, torch=torch_report), "Store")["health"].value == "the database is intact"


# ---------------------------------------------------------------- runs


def test_active_and_queued_runs(store: RunStore) -> None:
    store.keep_visitor("v1", nickname="Ada <b>")
    store.enqueue(FIRST_RUN, "cpu")
    with supervised(store), alive(store, "v1") as run:
        report = examine()
    findings = part(report, "Runs")
    assert report.troubles == ()
    assert findings["supervisor"].value == "running"
    assert findings["runs"].value == "2, 1 active, 1 queued"
    value = findings[f"run {run.id}"].value
    assert "by Ada <b>" in value
    assert "on cpu" in value
    assert value.endswith("for 0 s, step 34")


def test_a_run_from_the_command_line_without_a_heartbeat(store: RunStore) -> None:
    with alive(store, "cli:grace") as run:
        store.paths(run.id).heartbeat.unlink()
        report = examine()
    assert "by grace" in part(report, "Runs")[f"run {run.id}"].value
    assert part(report, "Runs")[f"run {run.id}"].value.endswith("no step yet")
    assert part(report, "Runs")["supervisor"].state == "note"


def test_a_stalled_run(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "STALLED_SECONDS", 0.0)
    monkeypatch.setattr(liveness, "_STALLED_STEPS", 0)
    with supervised(store), alive(store) as run:
        time.sleep(0.01)
        report = examine()
    assert names_of(report) == [f"run {run.id}"]
    assert "stalled" in report.troubles[0].value
    assert f"mlae_lab stop {run.id} --now" in report.troubles[0].cure
    assert "resume" in report.troubles[0].cure


def test_queued_runs_without_a_supervisor(store: RunStore) -> None:
    store.enqueue(FIRST_RUN, "cpu")
    report = examine()
    assert names_of(report) == ["supervisor"]
    assert "1 run is queued" in report.troubles[0].value
    assert str(paths.supervisor_log(store.folder)) in report.troubles[0].cure


def test_a_stalled_supervisor_is_trouble(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = locks.take(paths.supervisor_lock(store.folder))
    assert lock is not None
    Supervisor(store, lock).tick()
    assert part(examine(), "Runs")["supervisor"].state == "good"
    monkeypatch.setattr(supervisor, "STALLED_SECONDS", -1.0)
    finding = part(examine(), "Runs")["supervisor"]
    os.close(lock)
    assert finding.state == "trouble"
    assert f"kill -CONT {os.getpid()}" in finding.cure


def test_a_run_whose_process_has_ended(store: RunStore) -> None:
    with alive(store) as run:
        pass
    claimed = store.enqueue(replace(FIRST_RUN, device="cuda"), "cuda")
    assert store.claim(claimed.id, "cuda:0")
    report = examine()
    findings = part(report, "Runs")
    assert findings[f"run {run.id}"].state == "note"
    assert "actually lost" in findings[f"run {run.id}"].value
    assert "recorded as starting, actually queued" in findings[f"run {claimed.id}"].value
    assert store.run(run.id).status is Status.RUNNING, "an examination changes nothing"


def test_failures_of_the_last_day(store: RunStore) -> None:
    fresh, old = store.enqueue(FIRST_RUN, "cpu"), store.enqueue(FIRST_RUN, "cpu")
    for run in (fresh, old):
        store.move(run.id, Status.FAILED, "no space <b>left</b>\nat all")
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET ended = ended - 100000 WHERE id = ?", (old.id,))
    report = examine()
    findings = part(report, "Runs")
    assert findings[f"run {fresh.id}"].value == "failed 0 s ago: no space <b>left</b> at all"
    assert f"run {old.id}" not in findings
    assert report.troubles == ()
    for _ in range(11):
        store.move(store.enqueue(FIRST_RUN, "cpu").id, Status.LOST, "gone")
    assert "2 more" in part(examine(), "Runs")["more failures"].value


def test_a_clock_that_was_set_back(store: RunStore) -> None:
    with alive(store) as run, supervised(store):
        with store._connection(write=True) as db:
            db.execute("UPDATE runs SET started = started + 3600")
        findings = part(examine(), "Runs")
    assert run.id in findings["clock"].value
    assert findings["clock"].state == "note"
    assert "for 0 s" in findings[f"run {run.id}"].value


def test_orphans(store: RunStore) -> None:
    known, reserved = store.enqueue(FIRST_RUN, "cpu"), store.reserve()
    store.move(known.id, Status.STOPPED)
    for name in ("aaaaaaaa", "my notes"):
        folder = store.folder / "runs" / name
        folder.mkdir()
        (folder / "adapter.safetensors").write_bytes(bytes(2000))
    for folder in (store.folder / "runs").iterdir():
        if folder.name != reserved:
            os.utime(folder, (time.time() - 7200,) * 2)
    (store.folder / "runs" / "elsewhere").symlink_to(store.folder)
    finding = part(examine(), "Runs")["orphans"]
    assert finding.state == "note"
    assert finding.value == "2 folders of no known run, 4 kB: aaaaaaaa, my notes"
    assert str(store.folder / "runs") in finding.cure


def test_damaged_events_and_settings_are_named(store: RunStore) -> None:
    bad, good = (store.enqueue(FIRST_RUN, "cpu").id for _ in range(2))
    store.append(good, [TrainStep(**step_fields(number, {})) for number in (1, 2)])
    store.move(good, Status.FINISHED)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = ? WHERE id = ?", ("[" * 5000, bad))
        db.execute("""UPDATE events SET payload = REPLACE(payload, '"step"', '"stdp"') WHERE step = 2""")
    (number,) = [event.id for event in store.damaged_events()]
    findings = part(examine(), "Runs")
    assert "its settings are damaged" in findings[f"run {bad}"].value
    assert f"{number} (step)" in findings[f"events of {good}"].value
    assert names_of(examine()) == [f"run {bad}", f"events of {good}"]


def test_a_row_that_this_lab_cannot_read_is_one_trouble(store: RunStore) -> None:
    run = store.enqueue(FIRST_RUN, "cpu")
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = '{\"task\": 7}' WHERE id = ?", (run.id,))
    assert names_of(examine()) == ["runs"]


def test_an_ordinary_store_takes_less_than_a_second(store: RunStore, wait_for: Callable[..., None]) -> None:
    for _ in range(100):
        run = store.enqueue(FIRST_RUN, "cpu")
        store.move(run.id, Status.FINISHED)
        store.paths(run.id).adapter.write_bytes(bytes(100))
    run_with_steps(store, 20_000)
    examine()

    def quick() -> bool:
        began = time.monotonic()
        examine()
        return time.monotonic() - began < 1.0

    wait_for(quick, seconds=20)  # a busy machine may need several attempts
