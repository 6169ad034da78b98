"""Progress of a fetch, and the exceptions that end it early."""

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
    """The connection was lost or the host has a server error: another attempt may succeed."""


class CorruptFile(FetchError):
    """A file that is damaged or not what was expected; the text says so, and not what was done with it."""


class Cancelled(Exception):
    """The fetch was asked to stop; what it has is kept."""


@dataclass(frozen=True)
class Progress:
    """The state of a fetch at one moment.

    Attributes:
        phase: "waiting" means waiting for another process that fetches the same.
        file: the current file.
        done: bytes of this phase, of all files together.
        total: likewise, None while it is unknown.
        speed: bytes per second over the last five seconds.
        seconds_left: of this phase, None while it is unknown.
    """

    phase: Phase
    file: str = ""
    done: int = 0
    total: int | None = None
    speed: float = 0.0
    seconds_left: float | None = None


class Meter:
    """Counts bytes, reports them at most four times a second, and raises Cancelled when the fetch must stop."""

    def __init__(self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> None:
        self._on_progress, self._should_stop = on_progress, should_stop
        self._samples: deque[tuple[float, int]] = deque()  # (time, bytes) of the last seconds
        self._reported = 0.0
        self.phase: Phase = "asking"
        self.file, self.done = "", 0
        self.total: int | None = None

    def start(self, phase: Phase, file: str = "", done: int = 0, total: int | None = None) -> None:
        """Start counting a new phase and report it at once."""
        self.phase, self.file, self.done, self.total = phase, file, done, total
        self._samples.clear()
        self._reported = 0.0
        self.tick()

    def add(self, count: int) -> None:
        """Add bytes; a negative number takes back bytes that were discarded."""
        self.done += count
        self.tick()

    def set(self, done: int) -> None:
        """Set the number of bytes so far."""
        self.add(done - self.done)

    def tick(self) -> None:
        """Report if it is time to. Raises Cancelled."""
        if self._should_stop():
            raise Cancelled
        now = time.monotonic()
        if now - self._reported < _EVERY:
            return
        self._reported = now
        self._samples.append((now, self.done))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        self._on_progress(self._progress())

    def _progress(self) -> Progress:
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        speed = max(0.0, (after - before) / (end - start)) if end > start else 0.0
        left = None if self.total is None or not speed else max(0, self.total - self.done) / speed
        return Progress(self.phase, self.file, self.done, self.total, speed, left)
