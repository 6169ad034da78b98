"""What a watched run costs the server and does to the eye: the lab's bench beside the plain `st.plotly_chart` way.

    python benchmarks/ui.py [--seconds 20] [--most 120]

A run that is played from a recording (benchmarks/played_run.py) is watched through a real server, first in the lab, then
with five `st.plotly_chart` of the same figures (benchmarks/plain_bench.py) and Streamlit's own settings:

    server CPU, bytes   for each refresh of a bench, over four viewers that speak the browser's protocol
    unchanged           the same while the run says nothing new
    viewers a core      the most, of a ladder, that all get their refreshes (90 % of those due, p95 under half a second)
                        from a server that has one core to itself
    blank frames        of Chromium's frames, those in which a chart that was there has no line; with Playwright
    lost zooms          refreshes after which a chart that was zoomed by hand shows everything again
"""

from __future__ import annotations

import argparse
import asyncio
import os
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.browsers import Seen, cpu_seconds, free_port, viewer, wait_for
from benchmarks.played_run import PlayedRun
from mlae_lab.locations import PACKAGE
from mlae_lab.runs.store import RunStore

WAYS = {"the lab": (PACKAGE / "app.py", "train"), "st.plotly_chart": (ROOT / "benchmarks" / "plain_bench.py", "")}
LADDER = (5, 10, 20, 40, 60, 80, 120, 160)
# every frame: has a chart that was drawn before lost its lines? every refresh: is the zoom what it was?
ACCURACY = """() => { window.accuracy = () => [...document.querySelectorAll('.js-plotly-plot')].find(
  (c) => c.data && c.layout && c.layout.yaxis && /accuracy/.test((c.layout.yaxis.title || {}).text || '')); }"""
WATCH = """() => {
  const seen = { frames: 0, blank: 0, looks: 0, lost: 0, points: 0 };
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
      if (window.zoomed && count !== points) { if (points !== null) { seen.looks += 1; seen.lost += range === whole; } points = count; }
    }
    requestAnimationFrame(frame);
  })();
}"""


@contextmanager
def server(store: RunStore, way: str) -> Iterator[tuple[int, int]]:
    """A server of this way, in a folder without settings of its own; its process and its port."""
    port = free_port()
    words = [sys.executable, "-m", "streamlit", "run", str(WAYS[way][0]), "--server.port", str(port),
             "--server.headless", "true", "--browser.gatherUsageStats", "false", "--server.address", "127.0.0.1"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ) | {"MLAE_LAB_STORE": str(store.folder), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            wait_for(port)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait()


def sample_images(pid: int, port: int, way: str, run: str, viewers: int, seconds: float) -> tuple[Seen, float]:
    """What came to so many viewers, and the processor seconds that it took the server, their first drawing left out."""

    async def all_of_them() -> tuple[Seen, float]:
        seen, url = Seen(), f"ws://127.0.0.1:{port}/_stcore/stream"
        until = time.monotonic() + 3600  # nobody knows yet how long the first drawings take
        people = [asyncio.create_task(viewer(url, f"run={run}", WAYS[way][1], until, seen)) for _ in range(viewers)]
        while seen.drawn < viewers:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        seen.refreshes.clear()
        seen.bytes, before = 0, cpu_seconds(pid)
        await asyncio.sleep(seconds)
        spent = cpu_seconds(pid) - before
        for one in people:
            one.cancel()
        await asyncio.gather(*people, return_exceptions=True)
        seen.due = seconds * seen.rate
        return seen, spent

    return asyncio.run(all_of_them())


def holds(seen: Seen) -> bool:
    answers = sorted(seen.refreshes)
    return len(answers) >= 0.9 * seen.due and answers[int(0.95 * (len(answers) - 1))] < 0.5


def looked_at(port: int, way: str, run: str, seconds: float) -> dict[str, int]:
    """What a person sees in Chromium, who has zoomed into the accuracy."""
    import shutil

    from playwright.sync_api import sync_playwright

    found = os.environ.get("MLAE_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.goto(f"http://127.0.0.1:{port}/{WAYS[way][1]}?run={run}")
        page.wait_for_function("document.querySelectorAll('.js-plotly-plot .js-line').length >= 5", timeout=120_000)
        page.wait_for_timeout(2000)
        page.evaluate(ACCURACY)
        page.evaluate(WATCH)
        for _ in range(20):  # a chart that is made anew at every refresh can be so in the middle of a drag
            if _zoom(page):
                break
        else:
            print("  no drag could zoom into the accuracy: a chart made anew ends it", flush=True)
        page.evaluate("window.zoomed = true")
        page.wait_for_timeout(1000 * seconds)
        shown = page.evaluate("window.seen")
        browser.close()
    return shown


def _zoom(page: Page) -> bool:
    """Drag a box in the accuracy, as a hand does; whether the chart shows less than before."""
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


def measure(way: str, store: RunStore, run: PlayedRun, seconds: float, most: int) -> None:
    print(f"\n{way}", flush=True)
    with server(store, way) as (pid, port):
        for name in ("refresh", "unchanged"):
            with run.silent(name == "unchanged"):
                seen, spent = sample_images(pid, port, way, run.id, 4, seconds)
            count = max(1, len(seen.refreshes))
            print(
                f"  {name:<16}{1000 * spent / count:8.1f} ms {seen.bytes / count / 1000:8.1f} kB   of {count}",
                flush=True,
            )
        try:
            shown = looked_at(port, way, run.id, seconds)
            print(f"  blank frames    {shown['blank']:8d} of {shown['frames']}")
            print(f"  lost zooms      {shown['lost']:8d} of {shown['looks']}", flush=True)
        except ImportError:
            print("  no Playwright here: frames and zooms not looked at", flush=True)
    with server(store, way) as (pid, port):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, cores[:1])
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores[:1])
        os.sched_setaffinity(0, cores[1:] or cores)
        best = 0
        for viewers in (step for step in LADDER if step <= most):
            seen, spent = sample_images(pid, port, way, run.id, viewers, seconds)
            answers = sorted(seen.refreshes) or [float("inf")]
            print(f"  {viewers:4d} viewers    {100 * spent / seconds:5.0f} % of the core, {len(seen.refreshes)} of {seen.due:.0f} refreshes,"
                  f" p95 {1000 * answers[int(0.95 * (len(answers) - 1))]:.0f} ms", flush=True)  # fmt: skip
            if not holds(seen):
                break
            best = viewers
        os.sched_setaffinity(0, cores)
        print(
            f"  viewers a core  {best:8d}" + (" or more" if best == max(s for s in LADDER if s <= most) else ""),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stretch")
    parser.add_argument("--most", type=int, default=max(LADDER), help="viewers at the top of the ladder")
    parser.add_argument("--only", choices=list(WAYS))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "store")
        run = PlayedRun(store)
        try:
            for way in [chosen.only] if chosen.only else WAYS:
                measure(way, store, run, chosen.seconds, chosen.most)
        finally:
            run.close()


if __name__ == "__main__":
    main()
