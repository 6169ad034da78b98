"""`mlae_lab fetch`: its output, its confirmation, its exit status, and that Ctrl-C loses nothing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
from hub_server import HubServer, hub_server

from mlae_lab.cli import main
from mlae_lab.locations import data_folder

WEIGHTS = "vit_base_patch16_224.orig_in21k"
MODEL = f"timm/{WEIGHTS}/model.safetensors"
DATA = bytes(range(256)) * 8000


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.files[MODEL] = DATA
        yield server


def lab(hub: HubServer, root: Path, folder: Path, *words: str, **options: object) -> subprocess.Popen:
    """`python -m mlae_lab fetch` with this Hub and this data folder."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"),
                   "MLAE_LAB_DATA": str(folder)}  # fmt: skip
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-m", "mlae_lab", "fetch", *words], env=environment, cwd="/", text=True,
                            **options)  # type: ignore[call-overload]  # fmt: skip


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_STORE", "/runs")
    monkeypatch.delenv("MLAE_LAB_DATA", raising=False)
    assert data_folder() == Path("/runs/data")
    monkeypatch.setenv("MLAE_LAB_DATA", "~/images")
    assert data_folder() == Path.home() / "images"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digits"], "digits comes with the lab: there is nothing to fetch"),
        (["mnist"], "'mnist' is neither a task nor a backbone"),
        ([], "the following arguments are required: TASK|BACKBONE"),
        (["cifar"], "cifar has 4.66 GB to download: add --yes, since there is no terminal to ask"),
        (["cifar.parquet", "--json"], "add --yes"),
    ],
)
def test_invalid_requests(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    assert main(["fetch", *words, "--into", str(tmp_path / "data")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.startswith("mlae_lab: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()
    sys.stdin.close()


def test_a_second_fetch_downloads_nothing(hub: HubServer, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / WEIGHTS
    for fetched in (True, False):
        process = lab(hub, root, tmp_path, WEIGHTS, "--yes", "--json")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out.splitlines()[-1]) == {"name": WEIGHTS, "folder": str(folder), "fetched": fetched}
        if fetched:
            for text in ("Dosovitskiy", "licence: Apache-2.0", "343 MB", f"to: {folder}", "asking"):
                assert text in out
    assert (folder / "model.safetensors").read_bytes() == DATA


def test_a_failure_is_one_sentence_and_exit_status_one(hub: HubServer, root: Path, tmp_path: Path) -> None:
    hub.status, hub.retry_after = 429, "12"
    process = lab(hub, root, tmp_path, WEIGHTS, "--yes", "--json")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "try again in 12 seconds" in err


def test_ctrl_c_cancels_and_the_same_command_continues(hub: HubServer, root: Path, tmp_path: Path) -> None:
    hub.stall_at = 1_000_000
    process = lab(hub, root, tmp_path, WEIGHTS, "--yes", start_new_session=True)
    while not any(p.stat().st_size > 950_000 for p in tmp_path.rglob("*.partial")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    interrupted = time.monotonic()
    _, err = process.communicate(timeout=60)
    # A second for the fetch, the rest for the exit of Python on a busy machine.
    assert time.monotonic() - interrupted < 30
    assert process.returncode == 1
    assert err == "mlae_lab: cancelled; the downloaded part is kept, and the same command continues it\n"
    hub.stall_at, hub.served = None, 0
    process = lab(hub, root, tmp_path, WEIGHTS, "--yes")
    assert process.wait(60) == 0
    assert hub.served < len(DATA) - 900_000
    process.communicate()


@pytest.mark.parametrize(
    ("answer", "status"), [("n\n", 1), ("\x04", 1), ("\x03", 1), ("y\n", 0)], ids=["no", "ctrl-d", "ctrl-c", "yes"]
)
def test_on_a_terminal_it_asks_and_overwrites_one_line(
    hub: HubServer, root: Path, tmp_path: Path, answer: str, status: int
) -> None:
    hub.rate = 2_000_000
    terminal, child_end = pty.openpty()
    process = lab(
        hub,
        root,
        tmp_path,
        WEIGHTS,
        stdin=child_end,
        stdout=child_end,
        stderr=child_end,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        start_new_session=True,
    )
    os.close(child_end)
    text = b""
    try:
        while b"[y/N]" not in text:
            text += os.read(terminal, 4096)
        os.write(terminal, answer.encode())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # A Ctrl-C between Python's prompt and its read is held until the next key; a person would press it again.
            if not select.select([terminal], [], [], 3)[0]:
                os.write(terminal, answer.encode())
            elif piece := os.read(terminal, 4096):
                text += piece
            else:
                break
    except OSError:  # the process has closed its end
        pass
    os.close(terminal)
    try:
        assert process.wait(60) == status, text
    finally:
        process.kill()
    output = text.decode()
    assert "Download 343 MB? [y/N]" in output
    if status:
        assert "nothing was fetched" in output
        assert not (tmp_path / "weights").exists()
    else:
        assert output.count("\rdownloading model.safetensors") >= 3
        assert "/s" in output
        assert "left" in output
        assert (tmp_path / "weights" / WEIGHTS / "model.safetensors").read_bytes() == DATA
