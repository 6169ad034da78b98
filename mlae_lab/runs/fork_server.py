"""The fork server: a process that has torch and timm loaded and forks the processes of runs and probes.

    python -m mlae_lab.runs.fork_server SOCKET LISTENING_FD LOCK_FD MODULES PADDING

Loading them takes seconds of every start; a fork takes milliseconds. `spawn` sends a request over a Unix socket and
returns at once. The new process gets the caller's environment, working directory, log and lock, and imports the lab
only then, so it runs the code of that moment. It leaves after a while without a request and without a process.

There is one per user, environment, limits, interpreter and state of its packages: what torch and Python read when they
are loaded is the same as for a process that is started afresh. It serves CPU runs on Linux. A GPU run starts a new
process, as does every run where a fork server cannot be used.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import json
import os
import resource
import runpy
import selectors
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

MODULES = ("torch", "timm", "torchvision.transforms.v2", "safetensors.torch", "torch._dynamo")
# Read after the fork or not at all. Any other variable may be read while Python and torch are loaded.
_IGNORED = ("MLAE_LAB_", "STREAMLIT_", "PYTEST_", "SSH_", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_IGNORED_NAMES = {"_", "PWD", "OLDPWD", "SHLVL", "TERM", "COLUMNS", "LINES"}
START_SECONDS = 180.0  # for loading torch on a machine that is busy
_COUNT = struct.Struct("<I")  # bytes of a request
_MAX_REQUEST = 2**22
_TITLE_BYTES = 4096  # for the command line of a forked process


_unusable: set[str] = (
    set()
)  # addresses of fork servers that exited before they forked: this process uses no other there
_started: list[subprocess.Popen] = []  # fork servers that this process started

# ---------------------------------------------------------------- functions for any process


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
        socket.send_fds(connection, [_COUNT.pack(len(request))], [log, lock])
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
        if pid and __name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
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
    with socket.socket(socket.AF_UNIX) as listening, address.with_suffix(".log").open("wb") as log:
        listening.bind(str(address))
        listening.listen(128)
        descriptors = listening.fileno(), lock
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                __name__,
                str(address),
                *map(str, descriptors),
                ",".join(MODULES),
                " " * _TITLE_BYTES,
            ],
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
    files = [*(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")), Path(__file__)]
    times = [(str(path), path.stat().st_mtime_ns) for path in files]
    state = [sys.executable, sys.version, times, _inherited(), relevant]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _inherited() -> list:
    """What a child process inherits apart from its environment: `nice`, `taskset`, `ulimit`, a cgroup, the umask."""
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    lines = Path("/proc/self/status").read_text().splitlines()
    umask = [line for line in lines if line.startswith("Umask:")]
    return [os.nice(0), sorted(os.sched_getaffinity(0)), limits, Path("/proc/self/cgroup").read_text(), umask]


# ---------------------------------------------------------------- the process


class Server:
    """The work of the process until it forks or leaves. lock: descriptor of its lock, already held."""

    def __init__(self, address: Path, listening: socket.socket, lock: int, idle_seconds: float) -> None:
        self.address, self.listening, self.lock, self.idle_seconds = address, listening, lock, idle_seconds
        self.children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that shows its exit
        self.selector = selectors.DefaultSelector()
        self.selector.register(listening, selectors.EVENT_READ)
        self.used = time.monotonic()

    def serve(self) -> dict | None:
        """Fork on request. Returns the request in a forked process, None when the server has been idle for too long."""
        while True:
            for key, _ in self.selector.select(timeout=1.0):
                if key.fileobj is self.listening:
                    request = self._accept()
                    if request is not None:
                        return request
                else:
                    self._reap(key.fd)
            if self.children:
                self.used = time.monotonic()
            elif time.monotonic() - self.used > self.idle_seconds:
                self.address.unlink(missing_ok=True)  # nobody finds it any more; a request may have come meanwhile
                self.listening.setblocking(False)
                request = self._accept()
                if request is not None or not self.children:
                    return request

    def _accept(self) -> dict | None:
        """Take one request. Returns it in the forked process, None in the server."""
        try:
            connection, _ = self.listening.accept()
        except OSError:  # too many open files
            time.sleep(0.1)
            return None
        self.used, descriptors = time.monotonic(), []
        try:
            request, descriptors = _received(connection)
            pid = os.fork() if request is not None else None
        except (OSError, ValueError, struct.error):  # not a request, or no memory: its starter sees the end
            request, pid = None, None
        if request is None or pid is None:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()
            return None
        if pid == 0:
            self._close()
            log, lock = descriptors
            for number in (1, 2):
                os.dup2(log, number)
            os.close(log)
            _identify(request, lock, connection)
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        exit_shown = os.pidfd_open(pid)
        self.children[exit_shown] = pid, connection
        self.selector.register(exit_shown, selectors.EVENT_READ)
        return None

    def _reap(self, exit_shown: int) -> None:
        """Report the exit status of a forked process."""
        pid, connection = self.children.pop(exit_shown)
        self.selector.unregister(exit_shown)
        os.close(exit_shown)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):
            connection.sendall(b"exit %d\n" % status)
        connection.close()

    def _close(self) -> None:
        """Close, in a forked process, everything that belongs to the server."""
        self.selector.close()
        self.listening.close()
        os.close(self.lock)
        for exit_shown, (_, other) in self.children.items():
            os.close(exit_shown)
            other.close()


def _received(connection: socket.socket) -> tuple[dict | None, list[int]]:
    """A request and its descriptors, of log and lock; (None, []) of a connection that only wants the server warm."""
    connection.settimeout(5.0)
    head, descriptors, _, _ = socket.recv_fds(connection, _COUNT.size, 2)
    if not head:
        return None, []
    try:
        left, parts = _COUNT.unpack(head)[0], []
        if left > _MAX_REQUEST or len(descriptors) != 2:
            raise ValueError("not a request")
        while left:
            parts.append(connection.recv(min(left, 65536)))
            if not parts[-1]:
                raise ValueError("a torn request")
            left -= len(parts[-1])
        return json.loads(b"".join(parts)), descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _set_title(arguments: list[str]) -> None:
    """Make `ps` and /proc show this command line: the padding of the server's is overwritten."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc_pid_stat(5)
    title = b"\0".join(map(os.fsencode, arguments))[: end - start - 1]
    if start and title:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, len(title))


def _identify(request: dict, lock: int, connection: socket.socket) -> None:
    """Give a fork its session, environment and command line, then say its process id: from then on it may be killed."""
    os.setsid()
    for number, handler in (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL):
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["module"], *request["arguments"], str(lock)]
    with suppress(OSError, ValueError, IndexError):
        _set_title([sys.executable, "-m", *sys.argv])
    with suppress(OSError):  # its starter has exited
        connection.sendall(b"pid %d\n" % os.getpid())
    connection.close()


def _run(request: dict) -> None:
    """Run the module of a fork."""
    for name in [name for name in sys.modules if name == "mlae_lab" or name.startswith("mlae_lab.")]:
        del sys.modules[name]  # the code of now, and constants that are read from the environment of now
    if not getattr(sys.flags, "safe_path", False):  # from Python 3.11 on
        sys.path[0] = request["folder"]  # as `python -m` has it
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main(arguments: list[str]) -> int:
    os.close(os.pidfd_open(os.getpid()))  # OSError where the kernel lacks it: then every run is a new process
    listening = socket.socket(fileno=int(arguments[1]))
    lock = int(arguments[2])
    os.set_inheritable(lock, False)
    os.pwrite(lock, b"%d" % os.getpid(), 0)
    listening.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the launcher's terminal is not for this process
    for name in arguments[3].split(","):
        with suppress(ImportError):  # the run itself says what is missing
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collections in the forked processes do not touch, and so copy, these pages
    request = Server(Path(arguments[0]), listening, lock, variables.WARM.value()).serve()
    if request is not None:
        _run(request)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
