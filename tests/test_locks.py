"""Lock files whose holder is a living process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlae_lab import locks


def test_a_lock_is_taken_once_and_free_again(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not locks.held(file)
    lock = locks.take(file)
    assert lock is not None and locks.held(file) and locks.take(file) is None
    locks.let_go(lock)
    assert not locks.held(file)
    assert locks.lock_again(lock) and locks.held(file)
    os.close(lock)
    assert not locks.held(file)
    other = locks.take(file)
    assert other is not None
    os.close(other)


def test_a_lock_lives_on_in_the_process_that_it_was_handed_to(tmp_path: Path) -> None:
    lock = locks.take(tmp_path / "lock")
    assert lock is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert locks.held(tmp_path / "lock")
    child.kill()
    child.communicate()
    assert not locks.held(tmp_path / "lock")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert not locks.held(tmp_path / "nowhere" / "lock")
    with pytest.raises(OSError):
        locks.take(tmp_path / "nowhere" / "lock")
