"""The fork server: real processes. Most tests load a small module in place of torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlae_lab import locks
from mlae_lab.locations import ROOT
from mlae_lab.runs import fork_client
from mlae_lab.runs.fork_client import ForkedProcess
from tests.lab import processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
Wait = Callable[[Callable[[], Any]], Any]

JOB = """
import json, os, sys
report = {"argv": sys.argv, "folder": os.getcwd(), "session": os.getsid(0) == os.getpid(), "pid": os.getpid(),
          "variable": os.environ.get("MLAE_LAB_JOB"), "other": os.environ.get("MLAE_LAB_OTHER"), "path": sys.path[0],
          "loaded": [name for name in ("quopri", "mlae_lab", "mlae_lab.locks", "mlae_lab.environment", "torch")
                     if name in sys.modules],
          "command": open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode().split("\\0"),
          "open": sorted(os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                         if os.path.exists(f"/proc/self/fd/{name}"))}
print(json.dumps(report), flush=True)
exec(os.environ.get("MLAE_LAB_JOB", ""))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module `job`; fork servers of the test have their own folder and load a small module."""
    with tempfile.TemporaryDirectory(prefix="forks") as short:  # an address has 108 bytes at most
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setattr(fork_client, "MODULES", ("quopri", "no_such_module"))
        monkeypatch.setenv("MLAE_LAB_WARM_SECONDS", "20")
        (tmp_path / "job.py").write_text(JOB)
        yield tmp_path
        for pid in servers():
            os.kill(pid, signal.SIGKILL)


def servers() -> list[int]:
    """The fork servers in the folder of this test."""
    return processes_of("mlae_lab.runs.fork_server", tempfile.gettempdir())


def spawned(folder: Path, job: str = "", name: str = "one", **variables: str) -> ForkedProcess:
    """A process that reports to `name`.log, then runs `job`."""
    lock = locks.take(folder / f"{name}.lock")
    assert lock is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLAE_LAB_JOB": job, **variables}
    with (folder / f"{name}.log").open("ab") as log:
        process = fork_client.spawn("job", [name], log.fileno(), folder, lock, environment)
    os.close(lock)
    assert process is not None
    return process


def report(folder: Path, name: str = "one") -> dict:
    return json.loads((folder / f"{name}.log").read_text().splitlines()[0])


def test_a_process_is_what_it_would_be_if_started_afresh(folder: Path) -> None:
    process = spawned(folder, "import time; time.sleep(0.3)", MLAE_LAB_OTHER="of this run")
    pid = process.pid
    assert locks.held(folder / "one.lock")  # from before the fork to the exit
    assert process.poll() is None
    assert process.wait(timeout=20) == 0
    assert process.poll() == 0
    assert not locks.held(folder / "one.lock")
    content = report(folder)
    assert content["pid"] == pid
    assert content["session"]
    assert Path(content["argv"][0]).name == "job.py"
    assert content["argv"][1] == "one"
    assert (content["folder"], content["path"]) == (str(folder), str(folder))
    assert content["variable"].startswith("import time")
    assert content["other"] == "of this run"
    assert content["loaded"] == [
        "quopri"
    ]  # none of the lab's modules: a run has the code and the constants of its start
    assert content["command"] == [sys.executable, "-m", "job", "one", content["argv"][2]]
    log, lock = str(folder / "one.log"), str(folder / "one.lock")
    assert [name for name in content["open"] if not name.startswith("/proc/")] == ["/dev/null", lock, log, log]


@pytest.mark.parametrize(
    ("job", "status"), [("sys.exit(3)", 3), ("raise ValueError('its traceback')", 1), ("os.kill(os.getpid(), 9)", -9)]
)
def test_the_exit_status_is_that_of_subprocess(folder: Path, job: str, status: int) -> None:
    assert spawned(folder, job).wait(timeout=20) == status
    assert ("its traceback" in (folder / "one.log").read_text()) == (status == 1)


def test_many_at_once_are_forks_of_one_server_and_one_can_be_killed(folder: Path, wait_for: Wait) -> None:
    names = [f"n{i}" for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        processes = list(pool.map(lambda name: spawned(folder, "import time; time.sleep(20)", name), names))
    assert len({process.pid for process in processes}) == 6
    (server,) = servers()
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(timeout=0.1)
    processes[0].kill()
    assert processes[0].wait(timeout=10) == -signal.SIGKILL
    os.kill(server, signal.SIGKILL)  # the others continue
    wait_for(lambda: not servers())
    assert all(locks.held(folder / f"{name}.lock") for name in names[1:])
    assert [process.poll() for process in processes[1:]] == [None] * 5
    with pytest.raises(subprocess.TimeoutExpired):
        processes[1].wait(timeout=10)  # at once: it will never be known
    assert spawned(folder, name="next").wait(timeout=20) == 0  # a new server
    for process in processes[1:]:
        process.kill()
    wait_for(lambda: not any(locks.held(folder / f"{name}.lock") for name in names))


def test_a_server_that_exits_before_it_forks_frees_the_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Wait
) -> None:
    (folder / "slow.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(fork_client, "MODULES", ("slow",))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    process = spawned(folder, PYTHONPATH=os.pathsep.join((str(ROOT), str(folder))))
    (server,) = servers()
    assert locks.held(folder / "one.lock")  # by the request that waits
    os.kill(server, signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        _ = process.pid
    assert process.poll() is None
    wait_for(lambda: not locks.held(folder / "one.lock"))
    assert fork_client._connected({**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}) is None


def test_it_leaves_when_it_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Wait) -> None:
    monkeypatch.setenv("MLAE_LAB_WARM_SECONDS", "0.5")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    fork_client.warm(environment)
    (first,) = servers()
    fork_client.warm(environment)
    assert servers() == [first]
    wait_for(lambda: not servers())
    process = spawned(folder, "import time; time.sleep(3)")
    (second,) = servers()
    assert second != first
    time.sleep(2)
    assert servers() == [second]  # it has a process
    assert process.wait(timeout=20) == 0
    wait_for(lambda: not servers())


def test_what_is_read_while_torch_is_loaded_has_a_server_of_its_own(folder: Path) -> None:
    environment = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://localhost:1"}
    key = fork_client._key(environment)
    assert fork_client._key({**environment, "MLAE_LAB_STORE": "x", "CUDA_VISIBLE_DEVICES": "", "PWD": "/"}) == key
    for change in ({"OMP_NUM_THREADS": "2"}, {"HF_ENDPOINT": "http://localhost:2"}, {"GOMP_SPINCOUNT": "5"}):
        assert fork_client._key({**environment, **change}) != key


def test_who_has_other_limits_has_another_server(folder: Path) -> None:
    """A run is as `ulimit` and `umask` made the command that starts it."""
    script = "import os; from mlae_lab.runs import fork_client; print(fork_client._key(dict(PYTHONPATH='')))"

    def key(before: str) -> str:
        command = ["bash", "-c", f'{before} "$0" -c "$1"', sys.executable, script]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert key("") == key("") != key("umask 027;")
    assert len({key(before) for before in ("", "ulimit -n 200;", "umask 027;")}) == 3


def test_without_a_safe_folder_or_with_0_seconds_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Path(tempfile.gettempdir()) / f"mlae-lab-{os.getuid()}"
    mine.mkdir(mode=0o777)
    mine.chmod(0o777)
    assert fork_client._connected(dict(os.environ)) is None
    mine.rmdir()
    mine.symlink_to(folder)
    assert fork_client._connected(dict(os.environ)) is None
    mine.unlink()
    monkeypatch.setenv("MLAE_LAB_WARM_SECONDS", "0")
    assert fork_client._connected(dict(os.environ)) is None
    assert not mine.exists()
    monkeypatch.setenv("MLAE_LAB_WARM_SECONDS", "20")
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("long" * 30)))
    Path(tempfile.gettempdir()).mkdir()
    assert fork_client._connected(dict(os.environ)) is None
