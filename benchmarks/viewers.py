"""What twenty viewers of one live run cost it, and how quickly the server answers meanwhile.

    python -m benchmarks viewers [--viewers 20] [--seconds 6] [--rounds 15]

A real server, a real run on the CPU, and viewers that speak the browser's protocol over real connections: each opens
the bench of the run and requests its fragments as often as the server asks for. They run in a process of the lowest
priority, because real viewers run on other machines; its CPU time is printed next to the server's. Short
intervals with the viewers paused and active alternate, so that a drift of the machine affects both: each active
interval is compared with the mean of its two neighbours, and the mean over the rounds is printed with its standard
error. At the end one person clicks on another page meanwhile: the time of a full answer to a click.
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
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browsers import Traffic, cpu_seconds, free_port, percentile_95, viewer, wait_for
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import SimilarityStats, TrainStep
from mlae_lab.locations import PACKAGE, ROOT
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore

STARTUP, SETTLING = 12.0, 2.0  # seconds: until all pages are open; until overdue requests are answered


async def crowd(url: str, run: str, viewers: int, seconds: float, clicking: bool) -> None:
    """Be all the viewers, and print refreshes, bytes and the times of the clicks."""
    until, clicks, bench = time.monotonic() + seconds, Traffic(), Traffic()
    tasks = [viewer(url, f"run={run}", "train", until, bench) for _ in range(viewers)]
    if clicking:
        tasks.append(viewer(url, "", "masks", until, clicks, click_every=1.0))
    await asyncio.gather(*tasks)
    print(len(bench.refreshes), bench.bytes, *(f"{c:.4f}" for c in clicks.answers), flush=True)


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

        def start_crowd(mode: str, seconds: float) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "viewers", "--crowd", f"ws://127.0.0.1:{port}/_stcore/stream", run,
                 mode, "--viewers", str(options.viewers), "--seconds", str(seconds)],
                stdout=subprocess.PIPE, text=True, cwd=ROOT,
            )  # fmt: skip
            time.sleep(STARTUP)
            return process

        try:
            wait_for(port)
            while store.last(run, SimilarityStats) is None:
                time.sleep(0.5)
            watched, server_load, crowd_load = [], [], []
            looking = start_crowd("looking", STARTUP + 2 * (options.rounds + 1) * (options.seconds + SETTLING))
            looking.send_signal(signal.SIGSTOP)
            time.sleep(SETTLING)
            alone = [steps_per_second(store, run, options.seconds)]
            for _ in range(options.rounds):
                looking.send_signal(signal.SIGCONT)
                time.sleep(SETTLING)
                before = cpu_seconds(server.pid), cpu_seconds(looking.pid)
                watched.append(steps_per_second(store, run, options.seconds))
                server_load.append((cpu_seconds(server.pid) - before[0]) / options.seconds)
                crowd_load.append((cpu_seconds(looking.pid) - before[1]) / options.seconds)
                looking.send_signal(signal.SIGSTOP)
                time.sleep(SETTLING)
                alone.append(steps_per_second(store, run, options.seconds))
            looking.kill()
            looking.wait()
            costs = [
                100 * (1 - 2 * rate / (before + after))
                for before, rate, after in zip(alone[:-1], watched, alone[1:], strict=True)
            ]
            refreshes, sent, *clicks = start_crowd("clicking", STARTUP + 30).communicate()[0].split()
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
                f"{int(sent) / int(refreshes) / 1000:.1f} kB per refresh"
            )
            print(f"{'viewers':<19}{100 * statistics.mean(crowd_load):.1f} % of one core, elsewhere in practice")
            print(
                f"{'click':<19}median {1000 * statistics.median(answers):.0f} ms, "
                f"p95 {1000 * percentile_95(answers):.0f} ms of {len(answers)} (goal: under 500 ms)"
            )
        finally:
            commands.stop(store, run, now=True)
            server.terminate()
            server.wait()
            time.sleep(3)  # until the supervisor has left


if __name__ == "__main__":
    main()
