"""How a long computation reports its progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) between pieces of work; an exception that it raises ends the computation."""


def silent(done: int, total: int) -> None:
    """A progress callback that does nothing."""
