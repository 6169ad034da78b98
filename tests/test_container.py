"""The container: its files agree with the code, and where an engine works, the image is built, started and used.

Where the public registries cannot be reached, the environment may add to what the engine does:
`MLAE_LAB_TEST_BUILD="--build-arg BASE=… --build-arg TORCH_INDEX=…"` and `MLAE_LAB_TEST_RUN="--network …"`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlae_lab import cli, environment, network
from mlae_lab.locations import ASSETS, PACKAGE, PAGES
from tests.container import PASSWORD, ROOT, check_pages, read, sent_files

IMAGE = read()
COMPOSE, CUDA = (yaml.safe_load((ROOT / name).read_text()) for name in ("compose.yaml", "compose.cuda.yaml"))
PROJECT = (ROOT / "pyproject.toml").read_text()
SERVICE: dict[str, Any] = COMPOSE["services"]["lab"]
PORT = IMAGE.last("EXPOSE")


def substituted(text: str, **variables: str) -> str:
    """A text of the compose file with its variables or their defaults."""
    return re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda match: variables.get(match[1], match[2]), text)


# ---------------------------------------------------------------- the Dockerfile


def test_the_image_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    files = sent_files()
    needed = {path.name for path in (PACKAGE, PAGES, ASSETS)} | {"pyproject.toml", "requirements.txt", "LICENSE"}
    assert set(IMAGE.copied) == needed == {name.partition("/")[0] for name in files}
    assert {"mlae_lab/.streamlit/config.toml", "mlae_lab/static/inter-latin.woff2"} <= set(files)


def test_the_base_has_a_python_that_the_lab_supports() -> None:
    version = re.search(r"python:3\.(\d+)-slim", IMAGE.arguments["BASE"])
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', PROJECT)
    assert version is not None
    assert lowest is not None
    assert int(version[1]) >= int(lowest[1])


def test_the_image_has_the_packages_of_all_extras() -> None:
    (section,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", PROJECT, re.MULTILINE | re.DOTALL)
    assert re.findall(r'"(\w+[<>=].*?)"', section) == IMAGE.arguments["EXTRAS"].split()


def test_the_container_runs_as_a_user_that_owns_only_the_store() -> None:
    uid, _, gid = IMAGE.last("USER").partition(":")
    assert uid == gid == "1000", "a number, as Kubernetes checks it; 1000, as Spaces use it"
    runs = [value for name, value in IMAGE.steps if name == "RUN"]
    assert any(f"useradd --uid {uid} " in run for run in runs)
    assert not any("chown" in value for name, value in IMAGE.steps if name == "COPY"), "code stays root's"
    (folders,) = re.findall(r"install -d -o lab -g lab (.+)", " ".join(runs).partition(" python3 ")[0])
    assert folders.split() == ["/store", "/store/data", "/images"]
    assert IMAGE.variables[environment.STORE] == IMAGE.variables["HOME"] == "/store"


def test_every_variable_of_the_lab_is_one_that_it_reads() -> None:
    known = {value for value in vars(environment).values() if isinstance(value, str)} | {network.PASSWORD_VARIABLE}
    for name in ("Dockerfile", "compose.yaml", "compose.cuda.yaml", "docs/container.md", "docs/space.md"):
        assert set(re.findall(r"MLAE_LAB_\w+", (ROOT / name).read_text(encoding="utf-8"))) <= known, name


def started(words: list[str]) -> tuple[str, list[str]]:
    """Address and public names of a command `python -m mlae_lab app …`, as the command line reads them."""
    assert words[:3] == ["python", "-m", "mlae_lab"]
    args = cli._parser().parse_args(words[3:])
    assert args.do is cli._app
    assert str(args.port) == PORT
    return args.host, args.allow_host


@pytest.mark.parametrize(
    ("space", "name"), [({}, "localhost"), ({"SPACE_HOST": "ada-lab.hf.space"}, "ada-lab.hf.space")]
)
def test_the_command_starts_a_lab_that_requires_a_password(space: dict[str, str], name: str, tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" python "$@"\n')
    (tmp_path / "python").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **space}
    words = subprocess.run(IMAGE.command(), env=variables, capture_output=True, text=True, check=True).stdout.split()
    host, public = started(words)
    assert network.is_public(host, public), "so it requires a password"
    assert public == [name]


def test_the_health_check_asks_for_streamlits_health() -> None:
    from streamlit.web.server.starlette import starlette_routes

    check = shlex.split(IMAGE.health_check())
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert f"'127.0.0.1', {PORT}" in check[2]
    assert f"'/{starlette_routes.ROUTE_HEALTH.lstrip('/')}'" in check[2]


# ---------------------------------------------------------------- compose and the Space


def test_compose_gives_no_more_rights_than_the_lab_needs() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["tmpfs"] == ["/tmp"]
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    for service in (SERVICE, CUDA["services"]["lab"]):
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "user"} & set(service)
    assert not re.search(r"\.sock|/proc|/sys\b", json.dumps(SERVICE["volumes"]))


def test_compose_serves_this_machine_only_and_demands_a_password() -> None:
    (port,) = SERVICE["ports"]
    assert substituted(port) == f"127.0.0.1:8501:{PORT}"
    host, public = started(shlex.split(substituted(SERVICE["command"])))
    assert network.is_public(host, public)
    _, public = started(shlex.split(substituted(SERVICE["command"], LAB_HOST="lab.example.com")))
    assert public == ["lab.example.com"]
    assert SERVICE["environment"][network.PASSWORD_VARIABLE].startswith(f"${{{network.PASSWORD_VARIABLE}:?")


def test_compose_mounts_the_store_and_replaceable_folders() -> None:
    mounts = [substituted(text).split(":") for text in SERVICE["volumes"]]
    assert [mount[1] for mount in mounts] == ["/store", "/store/data", "/images"]
    assert mounts[-1][2:] == ["ro"]
    assert [mount[0] for mount in mounts] == list(COMPOSE["volumes"])
    assert substituted(SERVICE["volumes"][1], LAB_DATA="/srv/data") == "/srv/data:/store/data"


def test_the_cuda_variant_changes_the_build_and_adds_gpus() -> None:
    lab = CUDA["services"]["lab"]
    assert list(CUDA["services"]) == list(COMPOSE["services"])
    assert lab["build"]["args"] == {"TORCH_INDEX": ""}
    assert "TORCH_INDEX" in IMAGE.arguments
    assert "capabilities" in lab["deploy"]["resources"]["reservations"]["devices"][0]
    assert lab["image"] != SERVICE["image"]


def test_a_space_forwards_to_the_port_of_the_image() -> None:
    _, front_matter, text = (ROOT / "docs" / "space.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front_matter)
    assert card["sdk"] == "docker"
    assert str(card["app_port"]) == PORT
    assert len(card["short_description"]) <= 60, "a limit of Spaces"
    assert text.strip()


# ---------------------------------------------------------------- with an engine


def engine() -> str:
    """docker or podman, whichever works; skips the test if none does."""
    reasons = []
    for name in ("docker", "podman"):
        if shutil.which(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        answer = subprocess.run([name, "info"], capture_output=True, text=True, timeout=60)
        if answer.returncode == 0 and "Cannot connect" not in answer.stderr + answer.stdout:
            return name
        reasons.append(f"{name}: {(answer.stderr or answer.stdout).strip().splitlines()[-1][:120]}")
    pytest.skip("; ".join(reasons))


def options() -> list[str]:
    """The options of `run`: the rights of the compose file, and those of the environment."""
    return [
        "--read-only",
        *(f"--tmpfs={path}" for path in SERVICE["tmpfs"]),
        *(f"--cap-drop={name}" for name in SERVICE["cap_drop"]),
        *(f"--security-opt={option.removesuffix(':true')}" for option in SERVICE["security_opt"]),
        *shlex.split(os.environ.get("MLAE_LAB_TEST_RUN", "")),
    ]


@pytest.fixture
def container() -> Iterator[tuple[str, str]]:
    """An engine and the name of a container of the image, started with a new store."""
    program, name = engine(), f"mlae-lab-test-{os.getpid()}"
    build = [program, "build", *shlex.split(os.environ.get("MLAE_LAB_TEST_BUILD", "")), "-t", name, str(ROOT)]
    subprocess.run(build, check=True)
    start = [
        *(program, "run", "--detach", "--name", name, *options(), f"--volume={name}:/store"),
        *(f"--env=MLAE_LAB_PASSWORD={PASSWORD}", f"--publish=127.0.0.1::{PORT}"),
    ]
    try:
        subprocess.run([*start, name], check=True)
        yield program, name
    finally:
        for command in (["rm", "--force", name], ["volume", "rm", name], ["rmi", name]):
            subprocess.run([program, *command], stdout=subprocess.DEVNULL)


@pytest.mark.container
def test_an_engine_builds_and_starts_the_lab(container: tuple[str, str]) -> None:
    program, name = container

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, "exec", name, *words], capture_output=True, text=True)

    def output(*words: str) -> str:
        return subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout

    deadline = time.monotonic() + 120
    while inside("sh", "-c", IMAGE.health_check()).returncode:
        assert time.monotonic() < deadline, output("logs", name)
        time.sleep(0.5)
    check_pages(int(output("port", name, PORT).split()[0].rpartition(":")[2]))

    assert inside("id", "-u").stdout.strip() == "1000"
    for folder in ("/app", "/opt/venv", "/etc", "/images"):
        assert inside("touch", f"{folder}/file").returncode != 0, folder
    assert inside("touch", "/store/data/file", "/tmp/file").returncode == 0
    trained = inside("python", "-m", "mlae_lab", "train", "--task", "digits", "--epochs", "1", "--json")
    assert json.loads(trained.stdout.splitlines()[-1])["status"] == "finished", trained.stderr
    mounted = ("/store", "/images", "/tmp", "/dev", "/run", "/etc")  # also by the engine itself
    changed = [line.partition(" ")[2] for line in output("container", "diff", name).splitlines()]
    assert not [path for path in changed if not path.startswith(mounted)]

    began = time.monotonic()
    output("stop", "--time", "20", name)
    assert time.monotonic() - began < 15, "SIGTERM ends the server"
    again = subprocess.run([program, "run", "--rm", *options(), name], capture_output=True, text=True)
    assert again.returncode == 2
    assert "needs a password" in again.stderr
