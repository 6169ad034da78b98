"""A finished run to look into, for tests of pages and commands: real, small and quick, two layers of three and two experts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, RunStore


def small_config() -> RunConfig:
    """One epoch on the digits. The lower blocks hold no expert, so it takes a second."""
    return RunConfig(
        "digits", allocation((0,) * 10 + (3, 2), drop_rate=0.3), backbone="lab_vit_12x128.random", epochs=1, device="cpu",
        precision="float32", learning_rate=5e-3,
    )  # fmt: skip


def finished_run(folder: Path) -> tuple[RunStore, str]:
    """A store with one small run that is over."""
    store = RunStore(folder)
    return store, finished(store, small_config())


def finished(store: RunStore, config: RunConfig, origin: Origin = Origin()) -> str:
    """Train a run in this process and put it into a store as finished, with its adapter; its id."""
    from mlae_lab.model.adapter_file import save_adapter
    from mlae_lab.training.setup import prepare
    from mlae_lab.training.trainer import fit

    setup = prepare(config)
    events = list(fit(setup))  # before it waits in the store, where a supervisor might start it
    run = store.enqueue(config, device="cpu", origin=origin)
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)
    files = store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    save_adapter(files.adapter, setup.experts, setup.head, config.backbone, config.task)
    return run.id


def probes_of(run_id: str) -> list[int]:
    """The processes that look into a run, or are just being started for it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mlae_lab.runs.probe_worker" in words and run_id.encode() in words:
                found.append(int(entry.name))
    return found


def end_probe(store: RunStore, run_id: str) -> None:
    """Kill the process that looks into a run, if there is one."""
    for pid in probes_of(run_id):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while locks.held(store.paths(run_id).probe_lock):
        assert time.monotonic() < deadline
        time.sleep(0.02)
