"""Server cost and smoothness of the live bench, compared with plain `st.plotly_chart`.

    python -m benchmarks ui [--seconds 20] [--max-viewers 120]

A simulated run (`benchmarks.played_run`) is watched through a real server, first in the lab, then with five
`st.plotly_chart` of the same figures (`benchmarks.plain_bench`) and Streamlit's default settings:

    refresh             CPU time of the server and bytes per refresh of a bench, over four viewers that speak the
                        browser's protocol
    unchanged           the same while the run has no new events
    viewers per core    the largest number of viewers that all get their refreshes (90 % of those due, p95 under half a
                        second) from a server that has one core to itself
    blank frames        Chromium's frames in which a chart that was there has no line; needs Playwright
    lost zooms          refreshes after which a zoomed chart shows the whole range again
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browsers import Traffic, cpu_seconds, free_port, percentile_95, viewer, wait_for
from benchmarks.played_run import PlayedRun
from mlae_lab.locations import PACKAGE, ROOT
from mlae_lab.runs.store import RunStore

# script and page of each variant
VARIANTS = {"the lab": (PACKAGE / "app.py", "train"), "st.plotly_chart": (ROOT / "benchmarks" / "plain_bench.py", "")}
LADDER = (5, 10, 20, 40, 60, 80, 120, 160)
ACCURACY = """() => { window.accuracy = () => [...document.querySelectorAll('.js-plotly-plot')].find(
  (c) => c.data && c.layout && c.layout.yaxis && /accuracy/.test((c.layout.yaxis.title || {}).text || '')); }"""
# in every frame: has a chart lost its lines? at every refresh: has the zoom been reset?
WATCH = """() => {
  const seen = { frames: 0, blank: 0, refreshes: 0, lost: 0 };
  window.seen = seen;
  const charts = () => [...document.querySelectorAll('.js-plotly-plot')];
  const lines = (chart) => chart.isConnected && chart.querySelectorAll('path.js-line, .heatmaplayer image').length;
  let most = charts().filter(lines).length, whole = null, points = null;
  (function frame() {
    const now = charts().filter(lines).length;
    seen.frames += 1;
    if (now < most) seen.blank += 1;
    most = Math.max(most, now);
    const chart = window.accuracy();
    if (chart) {
      const range = chart.layout.yaxis.range.join(), count = chart.data[0].x.join().length + chart.data[1].x.length;
      whole = whole ?? range;
      if (window.zoomed && count !== points) {
        if (points !== null) { seen.refreshes += 1; seen.lost += range === whole; }
        points = count;
      }
    }
    requestAnimationFrame(frame);
  })();
}"""


@contextmanager
def server(store: RunStore, variant: str) -> Iterator[tuple[int, int]]:
    """A server of a variant, in an empty folder; yields its process and its port."""
    port = free_port()
    command = [
        sys.executable, "-m", "streamlit", "run", str(VARIANTS[variant][0]), "--server.port", str(port),
        "--server.headless", "true", "--browser.gatherUsageStats", "false", "--server.address", "127.0.0.1",
    ]  # fmt: skip
    environment = os.environ | {"MLAE_LAB_STORE": str(store.folder), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(port)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait()


def watched(pid: int, port: int, variant: str, run: str, viewers: int, seconds: float) -> tuple[Traffic, float]:
    """Let viewers watch a run.

    Args:
        pid, port: of the server.
        variant: a key of VARIANTS.
        run: its id.
        viewers: how many.
        seconds: how long, after the first rendering of every page.

    Returns:
        What the viewers received, and the CPU seconds of the server.
    """

    async def watch() -> tuple[Traffic, float]:
        traffic, url = Traffic(), f"ws://127.0.0.1:{port}/_stcore/stream"
        until = time.monotonic() + 3600  # cancelled below, since the first renderings take an unknown time
        page = VARIANTS[variant][1]
        tasks = [asyncio.create_task(viewer(url, f"run={run}", page, until, traffic)) for _ in range(viewers)]
        while traffic.rendered < viewers:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        traffic.refreshes.clear()
        traffic.bytes, before = 0, cpu_seconds(pid)
        await asyncio.sleep(seconds)
        spent = cpu_seconds(pid) - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        traffic.due = seconds * traffic.rate
        return traffic, spent

    return asyncio.run(watch())


def is_served(traffic: Traffic) -> bool:
    """Whether the viewers got their refreshes."""
    return len(traffic.refreshes) >= max(1, 0.9 * traffic.due) and percentile_95(traffic.refreshes) < 0.5


def rendered_in_chromium(port: int, variant: str, run: str, seconds: float) -> dict[str, int]:
    """Count blank frames and lost zooms in Chromium, with a zoom into the accuracy chart."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("MLAE_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.goto(f"http://127.0.0.1:{port}/{VARIANTS[variant][1]}?run={run}")
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .js-line').length >= 5", timeout=120_000)
        page.wait_for_timeout(2000)
        page.evaluate(ACCURACY)
        page.evaluate(WATCH)
        for _ in range(20):  # a chart that is replaced at every refresh can be replaced in the middle of a drag
            if _zoom(page):
                break
        else:
            print("  no drag could zoom into the accuracy chart: each was ended by a new chart", flush=True)
        page.evaluate("window.zoomed = true")
        page.wait_for_timeout(1000 * seconds)
        counts = page.evaluate("window.seen")
        browser.close()
    return counts


def _zoom(page: Page) -> bool:
    """Drag a box in the accuracy chart. Returns whether the chart shows less than before."""
    whole = page.evaluate("window.accuracy()?.layout.yaxis.range.join()")
    box = page.evaluate(
        """() => { const area = window.accuracy()?.querySelector('.nsewdrag');
        area?.scrollIntoView({ block: 'center' }); return area?.getBoundingClientRect().toJSON(); }"""
    )
    if not box or not box["width"]:
        return False
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=5)
    page.mouse.up()
    page.wait_for_timeout(150)
    return page.evaluate("window.accuracy()?.layout.yaxis.range.join()") != whole


def measure(variant: str, store: RunStore, run: PlayedRun, seconds: float, max_viewers: int) -> None:
    """Measure and print one variant."""
    print(f"\n{variant}", flush=True)
    with server(store, variant) as (pid, port):
        for name in ("refresh", "unchanged"):
            with run.silent(name == "unchanged"):
                traffic, spent = watched(pid, port, variant, run.id, 4, seconds)
            count = max(1, len(traffic.refreshes))
            print(
                f"  {name:<16}{1000 * spent / count:8.1f} ms {traffic.bytes / count / 1000:8.1f} kB   of {count}",
                flush=True,
            )
        try:
            counts = rendered_in_chromium(port, variant, run.id, seconds)
            print(f"  blank frames    {counts['blank']:8d} of {counts['frames']}")
            print(f"  lost zooms      {counts['lost']:8d} of {counts['refreshes']}", flush=True)
        except ImportError:
            print("  blank frames and lost zooms not measured: Playwright is not installed", flush=True)
    with server(store, variant) as (pid, port):
        cores = sorted(os.sched_getaffinity(0))
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        best, steps = 0, [step for step in LADDER if step <= max_viewers]
        for viewers in steps:
            traffic, spent = watched(pid, port, variant, run.id, viewers, seconds)
            print(
                f"  {viewers:4d} viewers    {100 * spent / seconds:5.0f} % of the core, "
                f"{len(traffic.refreshes)} of {traffic.due:.0f} refreshes, "
                f"p95 {1000 * percentile_95(traffic.refreshes):.0f} ms",
                flush=True,
            )
            if not is_served(traffic):
                break
            best = viewers
        os.sched_setaffinity(0, cores)
        print(f"  viewers per core{best:8d}{' or more' if best == steps[-1] else ''}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of an interval")
    parser.add_argument("--max-viewers", type=int, default=max(LADDER), help="viewers at the top of the ladder")
    parser.add_argument("--only", choices=list(VARIANTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "store")
        run = PlayedRun(store)
        try:
            for variant in [options.only] if options.only else VARIANTS:
                measure(variant, store, run, options.seconds, options.max_viewers)
        finally:
            run.close()


if __name__ == "__main__":
    main()
