"""How far a fetch has come, and the two ways in which it ends early."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlae_lab.errors import LabError

Phase = Literal["asking", "waiting", "downloading", "checking", "unpacking"]
_EVERY = 0.25  # seconds between two reports
_WINDOW = 5.0  # seconds over which the speed is measured


class FetchError(LabError):
    """A fetch that did not succeed; its text is one sentence that says what to do."""


class Interrupted(FetchError):
    """A connection that broke off or a host in trouble: trying again may help."""


class Worthless(FetchError):
    """A file that no further try can use: what it is, without what became of it."""


class Cancelled(Exception):
    """The fetch was asked to stop; what it has is kept."""


@dataclass(frozen=True)
class Progress:
    """One moment of a fetch. phase: "waiting" is for another process that fetches the same.

    done, total: bytes of this phase, of all files together; total is None while it is unknown. speed: bytes per
    second over the last five seconds. seconds_left: of this phase, None while it cannot be told.
    """

    phase: Phase
    file: str = ""
    done: int = 0
    total: int | None = None
    speed: float = 0.0
    seconds_left: float | None = None


class Meter:
    """Counts bytes, tells them at most four times a second, and raises Cancelled once the fetch is to stop."""

    def __init__(self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        self._tell, self._should_stop = on_progress, should_stop
        self._seen: deque[tuple[float, int]] = deque()
        self._told = 0.0
        self.phase: Phase = "asking"
        self.file, self.done, self.total = "", 0, None

    def start(self, phase: Phase, file: str = "", done: int = 0, total: int | None = None) -> None:
        """Begin to count anew; told at once."""
        self.phase, self.file, self.done, self.total = phase, file, done, total
        self._seen.clear()
        self._told = 0.0
        self.tick()

    def add(self, count: int) -> None:
        """So many bytes more (less than none when some are given up)."""
        self.done += count
        self.tick()

    def set(self, done: int) -> None:
        """So many bytes so far."""
        self.add(done - self.done)

    def tick(self) -> None:
        """Time has passed. Raises Cancelled."""
        if self._should_stop():
            raise Cancelled
        now = time.monotonic()
        if now - self._told < _EVERY:
            return
        self._told = now
        self._seen.append((now, self.done))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        self._tell(self._now())

    def _now(self) -> Progress:
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        speed = max(0.0, (after - before) / (end - start)) if end > start else 0.0
        left = None if self.total is None or not speed else max(0, self.total - self.done) / speed
        return Progress(self.phase, self.file, self.done, self.total, speed, left)
