"""What twenty viewers of one live run cost it, and how quickly the server answers meanwhile.

    python -m benchmarks viewers [--viewers 20] [--seconds 6] [--rounds 15]

A real server, a real run on the CPU, and viewers that speak the browser's protocol over real connections: each opens
the bench of the run and requests its fragments as often as the server asks for. They run in a process of the lowest
priority, because real viewers run on other machines; its CPU time is printed next to the server's. Short
intervals with the viewers paused and active alternate, so that a drift of the machine affects both: each active
interval is compared with the mean of its two neighbours, and the mean over the rounds is printed with its standard
error. At the end one person clicks on another page meanwhile: the time of a full answer to a click.

An interval counts only if every viewer was served: all pages rendered, and nine tenths of the due refreshes received.
Otherwise the result is invalid, since missing viewers cost nothing, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browsers import Traffic, cpu_seconds, free_port, percentile_95, viewer, wait_for
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import SimilarityStats, TrainStep
from mlae_lab.locations import PACKAGE, ROOT
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore

STARTUP, SETTLING = 12.0, 2.0  # seconds: until all pages are open; until overdue requests are answered
COUNT_SECONDS = 0.1
SERVED = 0.9  # share of the due refreshes that viewers must receive


@dataclass(frozen=True)
class Count:
    """What a crowd of viewers has received so far.

    Attributes:
        rendered: viewers whose page has been rendered.
        refreshes: of all viewers together.
        rate: refreshes per second that all viewers together should get.
    """

    rendered: int = 0
    refreshes: int = 0
    rate: float = 0.0


def unserved(before: Count, after: Count, viewers: int, seconds: float) -> str:
    """Why an interval does not count, "" if every viewer was served.

    Args:
        before: at the start of the interval.
        after: at its end.
        viewers: how many there should be.
        seconds: length of the interval.
    """
    if before.rendered < viewers:
        return f"the pages of {before.rendered} of {viewers} viewers were rendered"
    due, received = seconds * max(before.rate, after.rate), after.refreshes - before.refreshes
    if received < max(1, SERVED * due):
        return f"the viewers received {received} of {due:.0f} refreshes"
    return ""


class Crowd:
    """A process that is all the viewers; it prints what they have received, and results at its end."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.count = Count()
        self.results: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                kind, *words = line.split()
                if kind == "count":
                    self.count = Count(int(words[0]), int(words[1]), float(words[2]))
                elif kind == "results":
                    self.results = words

    def wait(self) -> list[str]:
        """The results, when the process has ended; nothing if it failed."""
        self.process.wait()
        self._reader.join()
        return self.results

    def kill(self) -> None:
        self.process.kill()
        self.wait()


async def crowd(url: str, run: str, viewers: int, seconds: float, clicking: bool) -> None:
    """Be all the viewers. Prints counts, and at the end bytes, refreshes and the times of the clicks."""
    until, clicks, bench = time.monotonic() + seconds, Traffic(), Traffic()
    tasks = [viewer(url, f"run={run}", "train", until, bench) for _ in range(viewers)]
    if clicking:
        tasks.append(viewer(url, "", "masks", until, clicks, click_every=1.0))

    async def report() -> None:
        while time.monotonic() < until:
            print("count", bench.rendered, len(bench.refreshes), bench.rate, flush=True)
            await asyncio.sleep(COUNT_SECONDS)

    await asyncio.gather(report(), *tasks)
    print("results", bench.bytes, len(bench.refreshes), *(f"{c:.4f}" for c in clicks.answers), flush=True)


def steps_per_second(store: RunStore, run: str, seconds: float) -> float:
    """Speed of a run over so many seconds."""

    def last_step() -> TrainStep:
        step = store.last(run, TrainStep)
        assert step is not None, commands.log_tail(store, run)
        return step

    first = last_step()
    time.sleep(seconds)
    last = last_step()
    return (last.step - first.step) / (last.seconds - first.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each interval")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd:
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.nice(19)
        url, run, mode = options.crowd
        asyncio.run(crowd(url, run, options.viewers, options.seconds, mode == "clicking"))
        return
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        store = RunStore(Path(folder) / "store")
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(PACKAGE / "app.py"), "--server.port", str(port),
             "--server.headless", "true"],
            env=os.environ | {"MLAE_LAB_STORE": str(store.folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        run = commands.launch(store, replace(FIRST_RUN, epochs=5000, evaluations=1250)).id

        def start_crowd(mode: str, seconds: float) -> Crowd:
            started = Crowd(
                [sys.executable, "-m", "benchmarks", "viewers", "--crowd", f"ws://127.0.0.1:{port}/_stcore/stream", run,
                 mode, "--viewers", str(options.viewers), "--seconds", str(seconds)],
            )  # fmt: skip
            time.sleep(STARTUP)
            return started

        try:
            wait_for(port)
            while store.last(run, SimilarityStats) is None:
                time.sleep(0.5)
            watched, server_load, crowd_load, problems = [], [], [], []
            looking = start_crowd("looking", STARTUP + 2 * (options.rounds + 1) * (options.seconds + SETTLING))
            looking.process.send_signal(signal.SIGSTOP)
            time.sleep(SETTLING)
            alone = [steps_per_second(store, run, options.seconds)]
            for _ in range(options.rounds):
                looking.process.send_signal(signal.SIGCONT)
                time.sleep(SETTLING)
                count = looking.count
                before = cpu_seconds(server.pid), cpu_seconds(looking.process.pid)
                watched.append(steps_per_second(store, run, options.seconds))
                server_load.append((cpu_seconds(server.pid) - before[0]) / options.seconds)
                crowd_load.append((cpu_seconds(looking.process.pid) - before[1]) / options.seconds)
                problems.append(unserved(count, looking.count, options.viewers, options.seconds))
                looking.process.send_signal(signal.SIGSTOP)
                time.sleep(SETTLING)
                alone.append(steps_per_second(store, run, options.seconds))
            looking.kill()
            costs = [
                100 * (1 - 2 * rate / (before + after))
                for before, rate, after in zip(alone[:-1], watched, alone[1:], strict=True)
            ]
            clicking = start_crowd("clicking", STARTUP + 30)
            count = clicking.count
            sent, refreshes, *clicks = clicking.wait() or ("0", "0")
            problems.append(unserved(count, replace(count, refreshes=int(refreshes)), options.viewers, 30.0))
            answers = [float(seconds) for seconds in clicks]
            print(f"{options.viewers} viewers, {os.cpu_count()} cores")
            for name, rates in (("alone", alone), ("watched", watched)):
                print(
                    f"trainer {name:<11}{statistics.mean(rates):.2f} steps/s, {min(rates):.2f} to {max(rates):.2f} in "
                    f"{len(rates)} intervals of {options.seconds:g} s"
                )
            error = statistics.stdev(costs) / len(costs) ** 0.5 if len(costs) > 1 else float("nan")
            print(f"{'cost':<19}{statistics.mean(costs):.1f} %, standard error {error:.1f} (goal: at most 5 %)")
            print(
                f"{'server':<19}{100 * statistics.mean(server_load):.1f} % of one core; "
                f"{int(sent) / max(1, int(refreshes)) / 1000:.1f} kB per refresh"
            )
            print(f"{'viewers':<19}{100 * statistics.mean(crowd_load):.1f} % of one core, elsewhere in practice")
            print(
                f"{'click':<19}median {1000 * statistics.median(answers or [float('inf')]):.0f} ms, "
                f"p95 {1000 * percentile_95(answers):.0f} ms of {len(answers)} (goal: under 500 ms)"
            )
            if reasons := [problem for problem in problems if problem]:
                raise SystemExit(f"invalid: in {len(reasons)} of {len(problems)} intervals, as {reasons[0]}")
        finally:
            commands.stop(store, run, now=True)
            server.terminate()
            server.wait()
            time.sleep(3)  # until the supervisor has left


if __name__ == "__main__":
    main()
