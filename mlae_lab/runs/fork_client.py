"""Processes as forks of the fork server (`runs.fork_server`), which has torch and timm loaded.

Loading them takes seconds of every start; a fork takes milliseconds. `spawn` sends a request over a Unix socket and
returns at once.

There is one server per user, environment, limits, interpreter and state of its packages: what torch and Python read
when they are loaded is the same as for a process that is started afresh. It serves CPU runs on Linux. A GPU run starts
a new process, as does every run where a fork server cannot be used.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlae_lab import environment as variables
from mlae_lab import locks

SERVER = "mlae_lab.runs.fork_server"
MODULES = ("torch", "timm", "torchvision.transforms.v2", "safetensors.torch", "torch._dynamo")
# Read after the fork or not at all. Any other variable may be read while Python and torch are loaded.
_IGNORED = ("MLAE_LAB_", "STREAMLIT_", "PYTEST_", "SSH_", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_IGNORED_NAMES = {"_", "PWD", "OLDPWD", "SHLVL", "TERM", "COLUMNS", "LINES"}
START_SECONDS = 180.0  # for loading torch on a machine that is busy
REQUEST_SIZE = struct.Struct("<I")  # bytes of a request, sent before it
_TITLE_BYTES = 4096  # room for the command line of a forked process
_STALE_SECONDS = 86_400.0  # files of a fork server that left so long ago are removed

# Addresses of fork servers that exited before they forked, or hang: this process uses no other one there.
_unusable: set[str] = set()
_started: list[subprocess.Popen] = []  # fork servers that this process started


class ForkedProcess:
    """A process that the fork server was asked for. It has the methods of `subprocess.Popen` that its users call."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._address = connection, connection.getpeername()
        self._received = b""
        self._pid: int | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; waits for it. Raises ChildProcessError if the fork server exited before it forked."""
        deadline = time.monotonic() + 60
        while self._pid is None:
            if self.returncode is not None or not self._read(max(0.0, deadline - time.monotonic())):
                raise ChildProcessError("the process was not started")
        return self._pid

    def poll(self) -> int | None:
        """Its exit status as in `subprocess`; None while it is alive and if the fork server exited before it."""
        while self.returncode is None and self._read(0.0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit status. Raises subprocess.TimeoutExpired, also if it will never be known."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if not self._read(None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL unless it has exited."""
        if self.poll() is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)

    def __del__(self) -> None:
        self._connection.close()

    def _read(self, timeout: float | None) -> bool:
        """Take in what the fork server says. Returns False after `timeout` seconds and if it has gone."""
        try:
            self._connection.settimeout(timeout)
            data = self._connection.recv(256)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:  # it was killed, or this end is closed
            data = b""
        if not data and self._pid is None:
            _unusable.add(self._address)
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            what, _, number = line.partition(b" ")
            if what == b"pid":
                self._pid = int(number)
            else:
                self.returncode = int(number)
                self._connection.close()
        return bool(data)


def spawn(
    module: str, arguments: list[str], log: int, folder: Path, lock: int, environment: Mapping[str, str]
) -> ForkedProcess | None:
    """Start `python -m module arguments... LOCK_FD` as a fork, in a new session.

    Args:
        module: Its name.
        arguments: Its arguments without the last one, which is the number of its descriptor of the lock.
        log: Descriptor of the file for its output.
        folder: Its working directory.
        lock: Descriptor of a lock.
        environment: All of it.

    Returns:
        The process, which may not have been forked yet; None if no fork server can be used.
    """
    connection = _connected(environment)
    if connection is None:
        return None
    request = json.dumps(
        {"module": module, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
    ).encode()
    try:
        connection.settimeout(5.0)
        socket.send_fds(connection, [REQUEST_SIZE.pack(len(request))], [log, lock])
        connection.sendall(request)
    except OSError:  # it has just left
        connection.close()
        return None
    return ForkedProcess(connection)


def warm(environment: Mapping[str, str]) -> None:
    """Start the fork server of an environment if it is not alive. Returns at once."""
    connection = _connected(environment)
    if connection is not None:
        connection.close()


def give_up(environment: Mapping[str, str]) -> bool:
    """Kill the fork server of an environment, as one that is paused, and use no other there. Its forks continue.

    Returns whether there was one: then the requests that it had not read are void and their locks free.
    """
    with suppress(OSError, ValueError):
        address = _folder() / f"{_key(environment)}.sock"
        _unusable.add(str(address))
        lock = address.with_suffix(".lock")
        pid = int(lock.read_text()) if locks.held(lock) else 0
        if pid and SERVER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _connected(environment: Mapping[str, str]) -> socket.socket | None:
    """A connection to the fork server of an environment, which is started if it is not alive; None without one."""
    if sys.platform != "linux" or not variables.WARM.value():
        return None
    try:
        address = _folder() / f"{_key(environment)}.sock"
        if str(address) in _unusable:
            return None
        deadline = time.monotonic() + 1.0
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(1.0)  # while requests wait for a paused server there may be no room for another one
            try:
                connection.connect(str(address))
                return connection
            except OSError:
                connection.close()
            lock = locks.take(address.with_suffix(".lock"))
            if lock is not None:
                try:
                    _start(address, lock, environment)
                finally:
                    os.close(lock)  # the fork server holds the same lock through its own copy
            elif time.monotonic() > deadline:
                return None  # it is leaving
            else:
                time.sleep(0.02)
    except OSError:  # no space, too long a path
        return None


def _start(address: Path, lock: int, environment: Mapping[str, str]) -> None:
    """Start a fork server whose socket already listens: requests wait until it has loaded its modules."""
    address.unlink(missing_ok=True)
    _remove_stale(address.parent)
    with socket.socket(socket.AF_UNIX) as listening, address.with_suffix(".log").open("wb") as log:
        listening.bind(str(address))
        listening.listen(128)
        descriptors = listening.fileno(), lock
        process = subprocess.Popen(
            [sys.executable, "-m", SERVER, str(address), *map(str, descriptors), ",".join(MODULES), " " * _TITLE_BYTES],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=address.parent,
            start_new_session=True,
            pass_fds=descriptors,
        )
    os.pwrite(lock, b"%d" % process.pid, 0)
    os.ftruncate(lock, len(str(process.pid)))
    _started[:] = [child for child in (*_started, process) if child.poll() is None]  # `poll` reaps zombies


def _remove_stale(folder: Path) -> None:
    """Remove what fork servers of other environments have left behind."""
    for lock in folder.glob("*.lock"):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > _STALE_SECONDS and not locks.held(lock):
                for suffix in (".sock", ".log", ".lock"):
                    lock.with_suffix(suffix).unlink(missing_ok=True)


def _folder() -> Path:
    """The folder of the sockets. Raises OSError if somebody else can read or write it."""
    folder = Path(tempfile.gettempdir()) / f"mlae-lab-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that only its owner can use")
    return folder


def _key(environment: Mapping[str, str]) -> str:
    """Identifies what a process with this environment loads."""
    relevant = {
        name: value
        for name, value in environment.items()
        if not name.startswith(_IGNORED) and name not in _IGNORED_NAMES
    }
    files = [
        *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")),
        Path(__file__).with_name("fork_server.py"),
    ]
    times = [(str(path), path.stat().st_mtime_ns) for path in files]
    state = [sys.executable, sys.version, times, _inherited(), relevant]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _inherited() -> list:
    """What a child process inherits apart from its environment: `nice`, `taskset`, `ulimit`, a cgroup, the umask."""
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    lines = Path("/proc/self/status").read_text().splitlines()
    umask = [line for line in lines if line.startswith("Umask:")]
    return [os.nice(0), sorted(os.sched_getaffinity(0)), limits, Path("/proc/self/cgroup").read_text(), umask]
