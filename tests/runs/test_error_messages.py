"""Error messages: of the system, of a wrong request, of a failed run."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable

import pytest
import torch
from safetensors import SafetensorError

from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.plan import PlanError
from mlae_lab.data.bundled import DataError
from mlae_lab.errors import LabError
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.error_messages import EXPECTED_ERRORS, error_message, failure_reason, system_error_message
from mlae_lab.training.evaluation import Diverged


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            sqlite3.OperationalError("database is locked"),
            "the store cannot be used now (database is locked): try again",
        ),
        (
            sqlite3.OperationalError("database or disk is full"),
            "the store cannot be used now (database or disk is full): free some disk space",
        ),
        (
            sqlite3.DatabaseError("file is not a database"),
            f"the store cannot be used now (file is not a database): run `{PROGRAM} doctor`",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: free some disk space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "/a/b: Permission denied: choose a location with read",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), "/a/b: No such file: choose another location"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files: close other programs and try again"),
        (OSError("it broke"), f"it broke: try again, or run `{PROGRAM} doctor`"),
    ],
)
def test_a_system_error_names_what_would_work(error: Exception, message: str) -> None:
    assert system_error_message(error).startswith(message)


# ---------------------------------------------------------------- requests and runs


@pytest.mark.parametrize("message", [error_message, failure_reason])
def test_a_message_repeats_no_control_characters_and_no_endless_argument(message: Callable[[Exception], str]) -> None:
    text = message(LabError(f"seed is '\x1b[2J\r\n{'9' * 5000}\x00': it must be a whole number"))
    assert text.startswith("seed is '[2J 999")
    assert text.endswith("99': it must be a whole number")
    assert len(text) < 400
    assert len(message(LabError("a " * 5000 + ": choose another"))) <= 2000
    assert message(LabError("a " * 5000 + ": choose another")).endswith(": choose another")


class NewError(LabError):
    """An error class that no other module knows."""


def test_the_text_of_any_error_of_the_lab_is_its_message() -> None:
    assert issubclass(NewError, EXPECTED_ERRORS)
    assert error_message(NewError("the rate is 2: choose one below 1")) == "the rate is 2: choose one below 1"
    assert error_message(OSError("it broke")) == f"it broke: try again, or run `{PROGRAM} doctor`"


OUT_OF_MEMORY = "out of memory: try a smaller batch size, fewer experts or a backbone with fewer tokens"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA"), OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left"), "the disk is full: free some space and resume the run"),
        (DataError("no images\n  here"), "no images here"),
        (PlanError("a rate is 2"), "a rate is 2"),
        (CatalogError("no such task"), "no such task"),
        (Diverged("diverged: the loss became nan at step 3"), "diverged: the loss became nan at step 3"),
        (NewError("the rate is 2: choose one\n    below 1"), "the rate is 2: choose one below 1"),
        (
            ZeroDivisionError("division by zero"),
            "code error, ZeroDivisionError: division by zero (see the traceback in the log)",
        ),
        (ValueError("x" * 1000), "code error, ValueError: " + "x" * 300 + " (see the traceback in the log)"),
    ],
)
def test_the_reason_of_a_failed_run_is_one_sentence(error: BaseException, reason: str) -> None:
    assert failure_reason(error) == reason


def test_a_cpu_without_memory_is_no_code_error() -> None:
    with pytest.raises(RuntimeError) as raised:  # PyTorch has no class for it
        torch.empty(2**50, dtype=torch.uint8)
    assert failure_reason(raised.value) == OUT_OF_MEMORY.replace(":", " (1126 TB more were needed):")
    assert failure_reason(OSError(errno.ENOMEM, "Cannot allocate memory")) == OUT_OF_MEMORY
    assert failure_reason(RuntimeError("std::bad_alloc")) == OUT_OF_MEMORY
    assert failure_reason(RuntimeError("shapes differ")).startswith("code error")


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database or disk is full"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_error_of_a_full_disk_has_the_same_message(error: Exception) -> None:
    """As raised by SQLite and safetensors on a full file system."""
    assert failure_reason(error).startswith("the disk is full")
