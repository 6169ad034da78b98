"""A fetch in a separate process: started, watched, cancelled, killed and resumed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server

from mlae_lab.core.hosts import HostError
from mlae_lab.data import fetching
from mlae_lab.data.fetching import FetchState, cancel, start, watch
from mlae_lab.data.progress import FetchError

WEIGHTS = "vit_base_patch16_224.orig_in21k"
MODEL = f"timm/{WEIGHTS}/model.safetensors"
DATA = bytes(range(256)) * 4000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub for the started processes, which read its address from the environment."""
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        server.files[MODEL] = DATA
        yield server
        for child in fetching._children:
            child.kill()
            child.wait()


def wait(into: Path, *statuses: str) -> FetchState:
    deadline = time.monotonic() + 60
    while (state := watch(WEIGHTS, into)).status not in statuses:
        assert time.monotonic() < deadline, (state, (into / ".fetch" / WEIGHTS / "log.txt").read_text())
        time.sleep(0.03)
    return state


def test_start_and_watch_until_done(hub: HubServer, tmp_path: Path) -> None:
    into = tmp_path / "data"
    assert watch(WEIGHTS, into) == FetchState("idle")
    assert not into.exists()
    cancel(WEIGHTS, into)  # nothing to cancel: nothing happens
    hub.rate = 1_500_000
    assert start(WEIGHTS, into).status == "running"
    assert start(WEIGHTS, into).status == "running"
    assert len(fetching._children) == 1
    reports = []
    while (state := watch(WEIGHTS, into)).status == "running":
        if state.progress:
            reports.append(state.progress)
        time.sleep(0.05)
    assert state.status == "done", state
    assert state.folder == into / "weights" / WEIGHTS
    assert (state.folder / "model.safetensors").read_bytes() == DATA
    assert {report.total for report in reports if report.phase == "downloading"} == {len(DATA)}
    assert any(0 < report.done < len(DATA) and report.seconds_left for report in reports)
    assert start(WEIGHTS, into).status == "done"
    assert len(fetching._children) == 1
    (state.folder / "model.safetensors").unlink()
    state.folder.rmdir()
    assert watch(WEIGHTS, into).status == "idle"


def test_cancel_kill_and_resume(hub: HubServer, tmp_path: Path) -> None:
    hub.stall_at = 400_000
    start(WEIGHTS, tmp_path)
    while (state := wait(tmp_path, "running")).progress is None or state.progress.done < 390_000:
        time.sleep(0.02)
    started = time.monotonic()
    cancel(WEIGHTS, tmp_path)
    assert wait(tmp_path, "cancelled").progress.done >= 390_000
    assert time.monotonic() - started < 30  # a second for the fetch, the rest for Python's end on a busy machine

    hub.stall_at, hub.served = 800_000, 0
    time.sleep(0.1)
    assert start(WEIGHTS, tmp_path).status == "running"  # the request to cancel is not remembered
    while (state := wait(tmp_path, "running")).progress is None or state.progress.done < 780_000:
        time.sleep(0.02)
    os.kill(fetching._children[-1].pid, signal.SIGKILL)
    leftover = tmp_path / ".fetch" / WEIGHTS / "progress.json.0123abcd.part"
    leftover.touch()  # as after a kill in the middle of a write
    fetching._children[-1].wait()
    lost = watch(WEIGHTS, tmp_path)
    assert lost.status == "lost"
    assert "fetch again to continue" in lost.reason

    hub.stall_at = None
    time.sleep(0.1)
    start(WEIGHTS, tmp_path)
    done = wait(tmp_path, "done", "failed")
    assert (done.folder / "model.safetensors").read_bytes() == DATA
    assert not leftover.exists()
    assert hub.served < len(DATA) - 390_000 + 150_000  # nothing was sent twice except what was in the socket buffers


def test_errors_are_visible_to_watchers(hub: HubServer, tmp_path: Path) -> None:
    hub.status = 404
    start(WEIGHTS, tmp_path)
    assert "it was moved or removed" in wait(tmp_path, "failed").reason
    hub.status = None
    start(WEIGHTS, tmp_path)
    assert wait(tmp_path, "done", "failed").status == "done"


def test_fetch_in_this_process_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        assert watch(WEIGHTS, tmp_path).status == "running"
        with pytest.raises(FetchError, match=r"is being fetched .* by another process"):
            fetching.run(WEIGHTS, tmp_path)
        raise KeyboardInterrupt

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(KeyboardInterrupt):
        fetching.run(WEIGHTS, tmp_path, refuse)
    assert watch(WEIGHTS, tmp_path).status == "cancelled"


def test_wrong_names_and_folders(tmp_path: Path) -> None:
    for ask in (start, watch, cancel):
        with pytest.raises(HostError, match="comes with the lab"):
            ask("digits", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot be written"):
        start(WEIGHTS, tmp_path / "file")
    assert watch(WEIGHTS, tmp_path / "file").status == "idle"


def test_damaged_state_file_is_not_an_error(tmp_path: Path) -> None:
    folder = tmp_path / ".fetch" / WEIGHTS
    folder.mkdir(parents=True)
    for text in ("", "{", "[]", '{"status": "running"}', '{"status": "running", "reason": null, "progress": {"x": 1}}'):
        (folder / "progress.json").write_text(text)
        assert watch(WEIGHTS, tmp_path).status == "idle"
    (folder / "progress.json").write_text(json.dumps({"status": "running", "reason": None, "progress": None}))
    assert watch(WEIGHTS, tmp_path).status == "lost"


def test_a_full_disk_does_not_hide_the_reason(hub: HubServer, tmp_path: Path, wait_for: Callable[..., None]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        hub.stall_at = 300_000
        start(WEIGHTS, disk)
        wait_for(lambda: (p := watch(WEIGHTS, disk).progress) is not None and p.done > 290_000, seconds=30)
        with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            file.writelines(itertools.repeat(b"x" * 4096))
        hub.stall_at = None
        assert "is full: free some space" in wait(disk, "failed", "done", "lost").reason
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
