"""What twenty viewers of one live run cost it, and how quickly the server answers while they look.

    python benchmarks/viewers.py [--viewers 20] [--seconds 30]

A real server, a real run on the CPU and viewers that speak the browser's protocol over real connections: each opens the
bench of the run and asks for its fragments again as often as the server tells it to. They run in a process of the
lowest priority, since real ones would run on machines of their own. Stretches without viewers, with them, without and
with them again give the trainer's steps per second. At the end a person works on another page while they look: the time
of a full answer to a click.
"""

from __future__ import annotations

import argparse
import asyncio
import os
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
from mlae_lab.core.events import TrainStep
from mlae_lab.places import PACKAGE
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore


async def crowd(url: str, run: str, viewers: int, seconds: float, clicking: bool) -> None:
    until, clicks, looks = time.monotonic() + seconds, Seen(), Seen()
    people = [viewer(url, f"run={run}", "train", until, looks) for _ in range(viewers)]
    if clicking:
        people.append(viewer(url, "", "masks", until, clicks, click_every=1.0))
    await asyncio.gather(*people)
    print(len(looks.refreshes), looks.bytes, *(f"{c:.4f}" for c in clicks.answers), flush=True)


def steps_per_second(store: RunStore, run: str, seconds: float) -> float:
    def at() -> TrainStep:
        step = store.last(run, "step")
        assert isinstance(step, TrainStep), commands.log_tail(store, run)
        return step

    first = at()
    time.sleep(seconds)
    last = at()
    return (last.step - first.step) / (last.seconds - first.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.crowd:
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

        def people(clicking: str) -> subprocess.Popen:
            found = subprocess.Popen(
                [sys.executable, __file__, "--crowd", f"ws://127.0.0.1:{port}/_stcore/stream", run, clicking,
                 "--viewers", str(chosen.viewers), "--seconds", str(chosen.seconds + 12)],
                stdout=subprocess.PIPE, text=True,
                env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            )  # fmt: skip
            time.sleep(11)  # all pages are open
            return found

        try:
            wait_for(port)
            while store.last(run, "similarity") is None:
                time.sleep(0.5)
            alone, watched, busy = [], [], []
            for _ in range(2):
                alone.append(steps_per_second(store, run, chosen.seconds))
                looking = people("looking")
                before = cpu_seconds(server.pid)
                watched.append(steps_per_second(store, run, chosen.seconds))
                busy.append((cpu_seconds(server.pid) - before) / chosen.seconds)
                refreshes, sent, *_ = looking.communicate()[0].split()
            alone.append(steps_per_second(store, run, chosen.seconds))
            working = people("clicking")
            answers = sorted(float(word) for word in working.communicate()[0].split()[2:])
            cost = 100 * (1 - statistics.mean(watched) / statistics.mean(alone))
            print(f"{chosen.viewers} viewers, {os.cpu_count()} cores")
            print("trainer alone      " + ", ".join(f"{rate:.2f}" for rate in alone) + " steps/s")
            print("trainer watched    " + ", ".join(f"{rate:.2f}" for rate in watched) + " steps/s")
            print(f"                   {cost:+.1f} % cost (goal: at most 5 %)")
            each = 1000 * busy[-1] * (chosen.seconds + 12) / int(refreshes)
            print(f"server             {100 * statistics.mean(busy):.0f} % of one core, about {each:.1f} ms and "
                  f"{int(sent) / int(refreshes) / 1000:.1f} kB for each of {refreshes} refreshes")  # fmt: skip
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
