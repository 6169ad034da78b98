"""What twenty viewers of one live run cost it, and how quickly the server answers while they look.

    python benchmarks/viewers.py [--viewers 20] [--seconds 30]

A real server, a real run on the CPU and viewers that speak the browser's protocol over real connections: each opens the
bench of the run and asks for its fragments again as often as the server tells it to. They run in a process of the
lowest priority, since real ones would run on machines of their own. Three equal stretches, without viewers, with, and
without again, give the trainer's steps per second; a person who works on another page gives the time of
a full answer to a click.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import TrainStep
from mlae_lab.places import PACKAGE
from mlae_lab.runs import commands
from mlae_lab.runs.store import RunStore


async def viewer(url: str, query: str, page: str, until: float, clicks: list[float] | None = None) -> None:
    """One browser. clicks: where the seconds of each answer go, for one who presses something every half second."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect

    def ask(fragment: str = "") -> bytes:
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        return message.SerializeToString()

    async with connect(url, subprotocols=["streamlit"], max_size=None) as server:
        await server.send(ask())
        asked, fragments = time.monotonic(), {}
        while time.monotonic() < until:
            wait = min([due for due, _ in fragments.values()], default=time.monotonic() + 0.5) - time.monotonic()
            try:
                raw = await asyncio.wait_for(server.recv(), max(0.005, min(wait, 0.5)))
            except asyncio.TimeoutError:
                raw = None
            if raw is not None and len(raw) < 10_000:  # what steers the browser is small
                message = ForwardMsg.FromString(raw)
                if message.HasField("auto_rerun"):
                    every = message.auto_rerun.interval
                    fragments[message.auto_rerun.fragment_id] = (time.monotonic() + every, every)
                elif message.HasField("script_finished") and clicks is not None:
                    clicks.append(time.monotonic() - asked)
                    await asyncio.sleep(0.5)
                    asked = time.monotonic()
                    await server.send(ask())
            for fragment, (due, every) in list(fragments.items()):
                if clicks is None and time.monotonic() >= due:
                    fragments[fragment] = (time.monotonic() + every, every)
                    await server.send(ask(fragment))


async def crowd(url: str, run: str, viewers: int, seconds: float) -> None:
    until, clicks = time.monotonic() + seconds, []
    looking = [viewer(url, f"run={run}", "train", until) for _ in range(viewers)]
    await asyncio.gather(viewer(url, "", "masks", until, clicks), *looking)
    clicks = clicks[1:]  # the first is the opening of the page
    print(" ".join(f"{c:.4f}" for c in clicks), flush=True)


def steps_per_second(store: RunStore, run: str, seconds: float) -> float:
    def at() -> TrainStep:
        step = store.last(run, "step")
        assert isinstance(step, TrainStep), commands.log_tail(store, run)
        return step

    first = at()
    time.sleep(seconds)
    last = at()
    return (last.step - first.step) / (last.seconds - first.seconds)


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--crowd", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.crowd:
        os.nice(19)
        asyncio.run(crowd(*chosen.crowd, chosen.viewers, chosen.seconds))
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        store = RunStore(Path(folder) / "store")
        environment = dict(os.environ) | {"MLAE_LAB_STORE": str(store.folder)}
        words = [sys.executable, "-m", "streamlit", "run", str(PACKAGE / "app.py"), "--server.port", str(port),
                 "--server.headless", "true"]  # fmt: skip
        server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run = commands.launch(store, replace(FIRST_RUN, epochs=2000, evaluations=500)).id
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            while store.last(run, "similarity") is None:
                time.sleep(0.5)
            rates, answers, busy = {}, [], 0.0
            for name in ("before", "with", "after"):
                people = None
                if name == "with":
                    url = f"ws://127.0.0.1:{port}/_stcore/stream"
                    people = subprocess.Popen(
                        [sys.executable, __file__, "--crowd", url, run, "--viewers", str(chosen.viewers), "--seconds",
                         str(chosen.seconds + 12)],
                        stdout=subprocess.PIPE, text=True,
                    )  # fmt: skip
                    time.sleep(10)  # all pages are open
                before = cpu_seconds(server.pid)
                rates[name] = steps_per_second(store, run, chosen.seconds)
                if people is not None:
                    busy = (cpu_seconds(server.pid) - before) / chosen.seconds
                    answers = [float(word) for word in people.communicate()[0].split()]
            alone = (rates["before"] + rates["after"]) / 2
            print(f"{chosen.viewers} viewers, {os.cpu_count()} cores")
            print(f"trainer alone      {rates['before']:.2f} and {rates['after']:.2f} steps/s")
            print(
                f"trainer watched    {rates['with']:.2f} steps/s: {100 * (1 - rates['with'] / alone):+.1f} % cost (goal: at most 5 %)"
            )
            print(f"server             {100 * busy:.0f} % of one core")
            answers.sort()
            p95 = answers[int(0.95 * (len(answers) - 1))]
            print(
                f"a click elsewhere  median {1000 * statistics.median(answers):.0f} ms, p95 {1000 * p95:.0f} ms of {len(answers)} (goal: under 500 ms)"
            )
        finally:
            commands.stop(store, run, now=True)
            server.terminate()
            server.wait()
            time.sleep(3)  # the supervisor leaves


if __name__ == "__main__":
    main()
