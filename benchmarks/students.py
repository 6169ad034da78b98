"""Forty students in one lesson at once: how quickly the server answers their clicks, and what it costs.

    python -m benchmarks students [--students 40] [--lesson alike-or-different] [--seconds 10]

A real server and students that speak the browser's protocol over real connections. Each opens the lesson within the
first seconds, chooses a guess, commits it, opens the answer with the histogram of the class, and watches until all are
there; one training is shared by all and runs on the same processor. A click counts from its request until what it
should show has arrived and the script has ended; a student who does not get there is a failure, and the exit status
is 1. The students run in this process, on the same processor as well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browsers import cpu_seconds, free_port, percentile_95, wait_for
from mlae_lab.lessons import lesson
from mlae_lab.lessons.guess import Arrow
from mlae_lab.locations import PACKAGE
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore

GOAL_SECONDS = 0.5
TIMEOUT = 30.0  # seconds after which a click is given up
PAUSE = (2.0, 8.0)  # seconds that a student reads between two clicks
HISTOGRAM = b"lesson-class"  # name of the figure of the guesses


@dataclass
class Times:
    """Seconds of all students by what they did, and those who failed."""

    by_action: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, action: str, seconds: float) -> None:
        self.by_action.setdefault(action, []).append(seconds)


class Student:
    """One browser tab: it sends its widgets and the fragments that the server asks for, and keeps what it sees."""

    def __init__(self, server: Any, query: str) -> None:
        self._server = server
        self._query = query
        self._page_hash = ""
        self._cached: dict[str, None] = {}
        self._values: dict[str, str] = {}  # of the radio buttons, by the widget's id
        self._timers: dict[str, tuple[float, float]] = {}  # of fragments: when each is due, and its interval
        self.widgets: dict[
            str, tuple[str, str, bool]
        ] = {}  # by the end of its key: id, fragment, whether it is enabled
        self.has_histogram = False
        self.finished = 0  # scripts and fragments that have ended
        self._histograms: set[str] = set()  # hashes of messages with the figure
        self._announced: set[str] = set()  # fragments of the present run of the script

    async def send(self, fragment: str = "", pressed: str = "", is_timer: bool = False) -> None:
        """Request the page or a fragment. pressed: id of the button that was clicked."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        message = BackMsg()
        rerun = message.rerun_script
        rerun.query_string, rerun.page_name, rerun.page_script_hash = self._query, "learn", self._page_hash
        rerun.fragment_id, rerun.is_auto_rerun = fragment, is_timer
        rerun.cached_message_hashes.extend(self._cached)
        for widget, value in self._values.items():
            rerun.widget_states.widgets.add(id=widget, string_value=value)
        if pressed:
            rerun.widget_states.widgets.add(id=pressed, trigger_value=True)
        await self._server.send(message.SerializeToString())

    async def see(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read messages, and request the fragments that are due, until a condition holds; whether it did in time."""
        until = time.monotonic() + seconds
        while not done():
            now = time.monotonic()
            if now >= until:
                return False
            for fragment, (due, every) in list(self._timers.items()):
                if now >= due:
                    self._timers[fragment] = (now + every, every)
                    await self.send(fragment, is_timer=True)
            wait = min([until, *(due for due, _ in self._timers.values())]) - time.monotonic()
            try:
                self._take(await asyncio.wait_for(self._server.recv(), max(0.005, wait)))
            except asyncio.TimeoutError:
                continue
        return True

    def _take(self, raw: bytes) -> None:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        message = ForwardMsg.FromString(raw)
        if message.metadata.cacheable:
            self._cached[message.hash] = None
            while len(self._cached) > 40:
                self._cached.pop(next(iter(self._cached)))
        if HISTOGRAM in raw:
            self._histograms.add(message.hash)
        if HISTOGRAM in raw or message.ref_hash in self._histograms:
            self.has_histogram = True
        kind = message.WhichOneof("type")
        if kind == "navigation":
            self._page_hash = message.navigation.page_script_hash
        elif kind == "new_session":
            self._announced = set()
        elif kind == "auto_rerun":
            every = message.auto_rerun.interval
            self._announced.add(message.auto_rerun.fragment_id)
            self._timers[message.auto_rerun.fragment_id] = (time.monotonic() + every, every)
        elif kind == "script_finished":
            self.finished += 1
            if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:  # a whole page: older fragments are gone
                self._timers = {name: timer for name, timer in self._timers.items() if name in self._announced}
        elif kind == "delta" and message.delta.HasField("new_element"):
            element = message.delta.new_element
            name = element.WhichOneof("type")
            if name in ("button", "radio"):
                widget = getattr(element, name)
                key = widget.id.rpartition("-lesson_")[2].partition("_")[2]
                self.widgets[key] = (widget.id, message.delta.fragment_id, not widget.disabled)

    async def click(self, key: str, done: Callable[[], bool], value: str = "") -> float | None:
        """Click a widget; seconds until its effect is there and a script has ended since, None if it took too long."""
        widget, fragment, _ = self.widgets[key]
        since = time.monotonic()
        if value:
            self._values[widget] = value
            await self.send(fragment)
        else:
            await self.send(fragment, pressed=widget)
        if not await self.see(done, TIMEOUT):
            return None
        ended = self.finished
        await self.see(lambda: self.finished > ended, TIMEOUT)
        return time.monotonic() - since


async def student(url: str, query: str, choice: str, arrives: float, until: float, times: Times) -> None:
    """Take the lesson from the first page to the histogram of the class."""
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    await asyncio.sleep(arrives)
    async with connect(url, subprotocols=[Subprotocol("streamlit")], max_size=None) as server:
        own = Student(server, query)
        since = time.monotonic()
        await own.send()
        if not await own.see(lambda: "commit" in own.widgets and own.finished > 0, TIMEOUT):
            times.failures.append("the lesson did not open")
            return
        times.add("open", time.monotonic() - since)
        actions = (
            ("choose", "guess_arrow", choice, lambda: own.widgets["commit"][2]),
            ("commit", "commit", "", lambda: "answer" in own.widgets),
            ("show the answer", "answer", "", lambda: own.has_histogram),
        )
        for action, key, value, done in actions:
            await own.see(lambda: False, random.uniform(*PAUSE))
            seconds = await own.click(key, done, value)
            if seconds is None:
                times.failures.append(f"'{action}' had no effect in {TIMEOUT:g} s")
                return
            times.add(action, seconds)
        await own.see(lambda: False, max(0.0, until - time.monotonic()))


async def classroom(url: str, query: str, choices: list[str], opening: float, times: Times) -> None:
    """All students: they arrive within `opening` seconds and stay until the last one has seen the histogram."""
    until = time.monotonic() + opening + 3 * PAUSE[1] + 10
    arrivals = [opening * i / len(choices) for i in range(len(choices))]
    entries = zip(choices, arrivals, strict=True)
    await asyncio.gather(*(student(url, query, choice, arrives, until, times) for choice, arrives in entries))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--students", type=int, default=40)
    parser.add_argument("--lesson", default="alike-or-different", help="one whose guess is an arrow")
    parser.add_argument("--seconds", type=float, default=10.0, help="within which all students open the lesson")
    options = parser.parse_args()
    if not isinstance(lesson(options.lesson).guess, Arrow):
        parser.error(f"--lesson is {options.lesson}: it must be one whose guess is an arrow")
    times = Times()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        store = RunStore(Path(folder) / "store")
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(PACKAGE / "app.py"), "--server.port", str(port),
             "--server.headless", "true"],
            env=os.environ | {"MLAE_LAB_STORE": str(store.folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(port)
            choices = [("↑ It rises", "↓ It falls")[i % 2] for i in range(options.students)]
            began, before, load = time.monotonic(), cpu_seconds(server.pid), os.getloadavg()[0]
            asyncio.run(
                classroom(
                    f"ws://127.0.0.1:{port}/_stcore/stream", f"lesson={options.lesson}", choices, options.seconds, times
                )
            )
            seconds = time.monotonic() - began
            used = cpu_seconds(server.pid) - before
            runs = store.runs()
            predictions = store.predictions(options.lesson, lesson(options.lesson).tasks[0])
            print(f"{options.students} students, {os.cpu_count()} cores, load {load:.1f} before")
            for action, values in times.by_action.items():
                print(
                    f"{action:<18}median {1000 * statistics.median(values):.0f} ms, "
                    f"p95 {1000 * percentile_95(values):.0f} ms of {len(values)}"
                )
            clicks = [value for action, values in times.by_action.items() if action != "open" for value in values]
            slowest = 1000 * percentile_95(clicks)
            print(f"{'all clicks':<18}p95 {slowest:.0f} ms (goal: under {1000 * GOAL_SECONDS:.0f} ms)")
            print(f"{'server':<18}{100 * used / seconds:.0f} % of one core over {seconds:.0f} s")
            print(f"{'shared':<18}{len(runs)} runs for {len(predictions)} guesses")
            for failure in sorted(set(times.failures)):
                print(f"failed: {times.failures.count(failure)} students, {failure}")
            return 1 if times.failures or percentile_95(clicks) >= GOAL_SECONDS else 0
        finally:
            for run in store.runs():
                commands.stop(store, run.id, now=True)
            server.terminate()
            server.wait()
            time.sleep(3)  # until the supervisor has left


if __name__ == "__main__":
    sys.exit(main())
