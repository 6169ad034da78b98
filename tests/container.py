"""The container without an engine: `python -m tests.container [--installed]` executes the steps of the Dockerfile.

It copies what the image would contain into a temporary folder, installs there by the commands of the Dockerfile, makes
the code read-only, starts the lab by the image's command as an ordinary user, waits for the health check, asks for a
page, trains one epoch, and reports every file that changed outside the store and /tmp. What needs an engine (the base
image, system packages, the user) is printed and not executed. It takes minutes and several GB, so no test runs it;
`tests/test_container.py` uses its reader of the Dockerfile.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "a password for tests"
_NEEDS_ENGINE = ("apt-get ", "useradd ")  # what a RUN instruction begins with that changes the system
_START_SECONDS = 120.0


@dataclass
class Image:
    """What the Dockerfile says.

    Attributes:
        steps: All instructions in order, by name and value.
        arguments: Build arguments with their defaults.
        variables: Environment of a container.
        copied: Paths of the checkout that COPY names.
    """

    steps: list[tuple[str, str]]
    arguments: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)

    def last(self, name: str) -> str:
        """The value of the last instruction of a name, which is the one in force. Raises KeyError."""
        return dict(self.steps)[name]

    def health_check(self) -> str:
        """The command of the health check."""
        return self.last("HEALTHCHECK").partition(" CMD ")[2]

    def command(self) -> list[str]:
        """What a container executes after its entry point."""
        return json.loads(self.last("CMD"))


def read(path: Path = ROOT / "Dockerfile") -> Image:
    """Read a Dockerfile of one stage. Comments and continued lines are resolved, variables are not."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    image = Image(
        [(name, value.strip()) for name, _, value in (line.partition(" ") for line in joined.split("\n")) if name]
    )
    for name, value in image.steps:
        if name == "ARG":
            key, _, default = value.partition("=")
            image.arguments[key] = default.strip('"')
        elif name == "ENV":
            image.variables |= dict(word.split("=", 1) for word in shlex.split(value))
        elif name == "COPY":
            image.copied += shlex.split(value)[:-1]
    return image


def sent_files() -> list[str]:
    """The tracked files that an engine gets, by `.dockerignore`: it excludes everything and names exceptions."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = [line[1:] for line in lines if line.startswith("!")]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [name for name in tracked if any(name == top or name.startswith(f"{top}/") for top in allowed)]


def get(port: int, path: str, host: str = "localhost") -> tuple[int, str]:
    """Status and text of a page of the lab. host: the name by which a browser requests it."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def check_pages(port: int) -> None:
    """Check what a lab on a network serves before a login: its page and health, no metrics. Raises AssertionError."""
    status, text = get(port, "/")
    assert status == 200, text[:200]
    assert "<html" in text
    assert get(port, "/_stcore/health")[0] == 200
    assert get(port, "/_stcore/metrics")[0] == 403, "without a login"


# ---------------------------------------------------------------- the steps without an engine


def _execute(image: Image, folder: Path, installed: bool) -> None:
    """Execute the steps of the Dockerfile that build the image.

    Args:
        image: The Dockerfile.
        folder: It stands for the root folder of the image.
        installed: Use the packages of this Python in place of an installation.
    """
    work, environment = folder, dict(os.environ)
    for name, value in image.steps:
        command = _located(value, folder)
        if name == "ENV":
            environment |= {key: _located(text, folder) for key, text in image.variables.items() if f"{key}=" in value}
            environment["PATH"] = f"{folder}/opt/venv/bin:{os.environ['PATH']}"
        elif name == "WORKDIR":
            work = Path(command)
            work.mkdir(parents=True)
        elif name == "COPY":
            *sources, _ = shlex.split(value)
            for path in sent_files():
                if any(path == top or path.startswith(f"{top}/") for top in sources):
                    (work / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / path, work / path)
        elif name == "RUN" and value.startswith(_NEEDS_ENGINE):
            _print(f"needs an engine: RUN {value}")
        elif name == "RUN" and installed and value.startswith(("pip ", "python3 -m venv")):
            _print(f"replaced by the packages of this Python: RUN {value}")
            if value.startswith("python3"):
                subprocess.run(["sh", "-c", f"{command} --without-pip"], check=True)
                (packages,) = (folder / "opt" / "venv" / "lib").glob("python3*/site-packages")
                (packages / "installed.pth").write_text(sysconfig.get_path("purelib"))
        elif name == "RUN":
            _print(f"RUN {value}")
            began = time.monotonic()
            arguments = {key: os.environ.get(key, default) for key, default in image.arguments.items()}
            subprocess.run(["sh", "-c", command], cwd=work, env=environment | arguments, check=True)
            _print(f"    {time.monotonic() - began:.0f} s")


def _located(text: str, folder: Path) -> str:
    """A text with the folders of the image below another root folder."""
    return re.sub(r"(?<![\w.])/(opt/venv|app|store|images)\b", rf"{folder}/\1", text)


def _snapshot(folders: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Time of change and size of every file and folder below some folders."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path: (status.st_mtime_ns, status.st_size) for path in paths for status in [path.lstat()]}


def _start(image: Image, folder: Path, port: int, user: dict[str, Any]) -> subprocess.Popen:
    """Start the lab by the command of the image, with nothing of this process in its environment."""
    *shell, command = image.command()
    return subprocess.Popen(
        [*shell, f"{command} --port {port}"],
        cwd=folder / "app",
        env=_variables(image, folder),
        start_new_session=True,
        **user,
    )


def _variables(image: Image, folder: Path) -> dict[str, str]:
    located = {name: _located(text, folder) for name, text in image.variables.items()}
    path = {"PATH": f"{folder}/opt/venv/bin:/usr/bin:/bin", "TMPDIR": f"{folder}/tmp"}
    return located | path | {"MLAE_LAB_PASSWORD": PASSWORD}


def _wait(image: Image, folder: Path, port: int, server: subprocess.Popen) -> None:
    """Wait for the health check of the image."""
    check, deadline = image.health_check().replace("8501", str(port)), time.monotonic() + _START_SECONDS
    while subprocess.run(["sh", "-c", check], env=_variables(image, folder), stderr=subprocess.DEVNULL).returncode:
        assert server.poll() is None, f"the lab ended with status {server.returncode}"
        assert time.monotonic() < deadline, f"not healthy after {_START_SECONDS:.0f} s"
        time.sleep(0.5)


def _print(text: str) -> None:
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the steps, start the lab and check it. Returns 1 if a file changed that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.container", description="The container without an engine")
    parser.add_argument("--installed", action="store_true", help="use the packages of this Python; install nothing")
    args, image = parser.parse_args(arguments), read()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="image-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the ordinary user must reach it
        _execute(image, folder, args.installed)
        uid, gid = map(int, image.last("USER").split(":"))
        is_root = os.geteuid() == 0
        user: dict[str, Any] = {"user": uid, "group": gid, "extra_groups": ()} if is_root else {}
        for writable in ("store", "tmp"):
            (folder / writable).mkdir()
            if is_root:
                os.chown(folder / writable, uid, gid)
        fixed = [folder / "app", folder / "opt"]
        subprocess.run(["chmod", "-R", "a-w", *map(str, fixed)], check=True)
        before = _snapshot(fixed)
        began = time.monotonic()
        server = _start(image, folder, port, user)
        try:
            _wait(image, folder, port, server)
            _print(f"healthy after {time.monotonic() - began:.1f} s")
            check_pages(port)
            train = ["python", "-m", "mlae_lab", "train", "--task", "digits", "--epochs", "1", "--json"]
            began = time.monotonic()
            trained = subprocess.run(
                train, cwd=folder / "app", env=_variables(image, folder), stdout=subprocess.PIPE, check=True, **user
            )
            assert json.loads(trained.stdout.splitlines()[-1])["status"] == "finished"
            _print(f"trained one epoch in {time.monotonic() - began:.1f} s")
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(timeout=30)
        _print(f"ended with status {status} after SIGTERM")
        after = _snapshot(fixed)
        changed = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        outside = sorted(path.name for path in folder.iterdir())
        written = sum(path.is_file() for path in (folder / "store").rglob("*"))
        _print(f"files in the store: {written}; changed outside: {', '.join(changed) or 'none'}; folders: {outside}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
