"""Lock files that show whether a process is alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlae_lab import locks


def test_a_lock_is_taken_once_and_can_be_released(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not locks.held(file)
    lock = locks.take(file)
    assert lock is not None
    assert locks.held(file)
    assert locks.take(file) is None
    locks.release(lock)
    assert not locks.held(file)
    assert locks.acquire(lock)
    assert locks.held(file)
    os.close(lock)
    assert not locks.held(file)
    other = locks.take(file)
    assert other is not None
    os.close(other)


def test_a_child_process_keeps_the_lock(tmp_path: Path) -> None:
    lock = locks.take(tmp_path / "lock")
    assert lock is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert locks.held(tmp_path / "lock")
    child.kill()
    child.communicate()
    assert not locks.held(tmp_path / "lock")


def test_a_missing_folder(tmp_path: Path) -> None:
    assert not locks.held(tmp_path / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError):
        locks.take(tmp_path / "nowhere" / "lock")


@pytest.mark.skipif(sys.platform != "linux", reason="a read-only bind mount needs Linux")
def test_read_permission_is_enough_to_test_a_lock(tmp_path: Path) -> None:
    """As for another user, or through a read-only mount."""
    source, view = tmp_path / "store", tmp_path / "view"
    source.mkdir(), view.mkdir()
    if subprocess.run(["mount", "--bind", str(source), str(view)], capture_output=True).returncode:
        pytest.skip("only root may mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(view)], check=True)
        lock = locks.take(source / "lock")
        assert lock is not None
        assert locks.held(view / "lock")
        os.close(lock)
        assert not locks.held(view / "lock")
    finally:
        subprocess.run(["umount", "-l", str(view)], check=True)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("lock")  # a link to itself
    with pytest.raises(OSError, match="symbolic links"):
        locks.held(tmp_path / "lock")


@pytest.mark.parametrize("module", ["mlae_lab", "mlae_lab.app"])
def test_a_system_without_posix_locks_is_one_sentence(module: str, root: Path) -> None:
    """As on Windows, where Python has no fcntl."""
    script = (
        "import runpy, sys; sys.modules['fcntl'] = None; sys.argv[1:] = ['runs'];"
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "mlae_lab: MLAE Lab runs on Linux and macOS; on Windows, install it in WSL 2\n"
