"""What twenty viewers of one live run cost it, and how quickly the server answers while they look.

    python benchmarks/viewers.py [--viewers 20] [--seconds 6] [--rounds 15]

A real server, a real run on the CPU and viewers that speak the browser's protocol over real connections: each opens the
bench of the run and asks for its fragments again as often as the server tells it to. They run in a process that gets
only time nobody else wants, since real ones would run on machines of their own; its own processor time is told beside
the server's. Short stretches in which they are held and in which they look take turns, so that a drift of the machine
falls on both: each watched one is compared with the mean of its two neighbours, and the mean over the rounds is told
with its standard error. At the end a person works on another page while they look: the time of a full answer to a click.
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

from benchmarks.browsers import Seen, cpu_seconds, free_port, viewer, wait_for
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import SimilarityStats, TrainStep
from mlae_lab.locations import PACKAGE
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore

OPENING, SETTLING = 12.0, 2.0  # seconds


async def crowd(url: str, run: str, viewers: int, seconds: float, clicking: bool) -> None:
    until, clicks, looks = time.monotonic() + seconds, Seen(), Seen()
    people = [viewer(url, f"run={run}", "train", until, looks) for _ in range(viewers)]
    if clicking:
        people.append(viewer(url, "", "masks", until, clicks, click_every=1.0))
    await asyncio.gather(*people)
    print(len(looks.refreshes), looks.bytes, *(f"{c:.4f}" for c in clicks.answers), flush=True)


def steps_per_second(store: RunStore, run: str, seconds: float) -> float:
    def at() -> TrainStep:
        step = store.last(run, TrainStep)
        assert isinstance(step, TrainStep), commands.log_tail(store, run)
        return step

    first = at()
    time.sleep(seconds)
    last = at()
    return (last.step - first.step) / (last.seconds - first.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.crowd:
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.nice(19)
        url, run, clicking = chosen.crowd
        asyncio.run(crowd(url, run, chosen.viewers, chosen.seconds, clicking == "clicking"))
        return
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        store = RunStore(Path(folder) / "store")
        environment = dict(os.environ) | {"MLAE_LAB_STORE": str(store.folder)}
        words = [sys.executable, "-m", "streamlit", "run", str(PACKAGE / "app.py"), "--server.port", str(port),
                 "--server.headless", "true"]  # fmt: skip
        server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run = commands.launch(store, replace(FIRST_RUN, epochs=5000, evaluations=1250)).id

        def people(clicking: str, seconds: float) -> subprocess.Popen:
            found = subprocess.Popen(
                [sys.executable, __file__, "--crowd", f"ws://127.0.0.1:{port}/_stcore/stream", run, clicking,
                 "--viewers", str(chosen.viewers), "--seconds", str(seconds)],
                stdout=subprocess.PIPE, text=True,
                env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            )  # fmt: skip
            time.sleep(OPENING)  # all pages are open
            return found

        try:
            wait_for(port)
            while store.last(run, SimilarityStats) is None:
                time.sleep(0.5)
            sample_images, busy, theirs = [], [], []
            looking = people("looking", OPENING + 2 * (chosen.rounds + 1) * (chosen.seconds + SETTLING))
            looking.send_signal(signal.SIGSTOP)
            time.sleep(SETTLING)
            alone = [steps_per_second(store, run, chosen.seconds)]
            for _ in range(chosen.rounds):
                looking.send_signal(signal.SIGCONT)
                time.sleep(SETTLING)  # what fell due meanwhile is answered
                before = cpu_seconds(server.pid), cpu_seconds(looking.pid)
                sample_images.append(steps_per_second(store, run, chosen.seconds))
                busy.append((cpu_seconds(server.pid) - before[0]) / chosen.seconds)
                theirs.append((cpu_seconds(looking.pid) - before[1]) / chosen.seconds)
                looking.send_signal(signal.SIGSTOP)
                time.sleep(SETTLING)
                alone.append(steps_per_second(store, run, chosen.seconds))
            looking.kill()
            looking.wait()
            costs = [
                100 * (1 - 2 * rate / (before + after))
                for before, rate, after in zip(alone, sample_images, alone[1:], strict=False)
            ]
            working = people("clicking", OPENING + 30)
            refreshes, sent, *words = working.communicate()[0].split()
            answers = sorted(map(float, words))
            print(f"{chosen.viewers} viewers, {os.cpu_count()} cores")
            for name, rates in (("alone  ", alone), ("watched", sample_images)):
                print(f"trainer {name}    {statistics.mean(rates):.2f} steps/s, {min(rates):.2f} to {max(rates):.2f} in "
                      f"{len(rates)} stretches of {chosen.seconds:g} s")  # fmt: skip
            error = statistics.stdev(costs) / len(costs) ** 0.5 if len(costs) > 1 else float("nan")
            print(
                f"                   {statistics.mean(costs):.1f} % cost, standard error {error:.1f} (goal: at most 5 %)"
            )
            print(
                f"server             {100 * statistics.mean(busy):.1f} % of one core; {int(sent) / int(refreshes) / 1000:.1f} kB a refresh"
            )
            print(f"the viewers        {100 * statistics.mean(theirs):.1f} % of one core, which real ones bring along")
            p95 = answers[int(0.95 * (len(answers) - 1))]
            print(f"a click elsewhere  median {1000 * statistics.median(answers):.0f} ms, p95 {1000 * p95:.0f} ms of "
                  f"{len(answers)} (goal: under 500 ms)")  # fmt: skip
        finally:
            commands.stop(store, run, now=True)
            server.terminate()
            server.wait()
            time.sleep(3)  # the supervisor leaves


if __name__ == "__main__":
    main()
