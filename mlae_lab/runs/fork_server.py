"""The fork server: a process that has torch and timm loaded and forks the processes of runs and probes.

    python -m mlae_lab.runs.fork_server SOCKET LISTENING_FD LOCK_FD MODULES PADDING

`runs.fork_client` starts it and sends requests. A new process gets the caller's environment, working directory, log and
lock, and imports the lab only then, so it runs the code of that moment. The server leaves after a while without a
request and without a process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlae_lab import environment as variables
from mlae_lab.runs.fork_client import REQUEST_SIZE

_MAX_REQUEST = 2**22


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
    head, descriptors, _, _ = socket.recv_fds(connection, REQUEST_SIZE.size, 2)
    if not head:
        return None, []
    try:
        left, parts = REQUEST_SIZE.unpack(head)[0], []
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
