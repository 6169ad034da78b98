"""Texts of strangers: what a terminal would obey is gone, what can be read stays."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from mlae_lab.runs.texts import bytes_text, one_line, printable, refused


def test_what_a_terminal_obeys_is_gone() -> None:
    assert printable("a\x1b[2J\x07\tb\u202eé×\x9b") == "a[2J\tbé×"
    assert printable("") == ""
    assert printable("\u202eni\u200dm\u200cm\u200b") == "ni\u200dm\u200cm"


def test_one_line() -> None:
    assert one_line(" two\r\nlines\tand \x1b one\u2028more ") == "two lines and one more"
    assert one_line("\n\x00") == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            sqlite3.OperationalError("database is locked"),
            "the store cannot be used now (database is locked): try again",
        ),
        (
            sqlite3.OperationalError("database or disk is full"),
            "the store cannot be used now (database or disk is full): make room",
        ),
        (
            sqlite3.DatabaseError("file is not a database"),
            "the store cannot be used now (file is not a database): `mlae_lab doctor`",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: make room on its disk"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "/a/b: Permission denied: choose a place that can be",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), "/a/b: No such file: choose another place, or bring"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files: end other programs and try again"),
        (OSError("it broke"), "it broke: try again, or ask `mlae_lab doctor`"),
    ],
)
def test_what_was_refused_comes_with_what_would_work(error: Exception, said: str) -> None:
    assert refused(error).startswith(said)


def test_sizes_for_people() -> None:
    assert [bytes_text(n) for n in (0, 820, 999.6, 1000, 4_100_000, 1.25e9)] == [
        "0 bytes", "820 bytes", "1000 bytes", "1.0 kB", "4.1 MB", "1.2 GB",
    ]  # fmt: skip
