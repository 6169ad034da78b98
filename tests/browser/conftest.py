"""A real server and a real Chromium. Without Chromium these tests are skipped with the reason; with
MLAE_LAB_BROWSER=required, as in CI, they fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import allocation
from mlae_lab.locations import PACKAGE
from mlae_lab.runs import commands
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.data.hub_server import HubServer, hub_server
from tests.lab import end_probe, finished, small_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# The popups of the address bar are pages that Chromium would load for each window. The last such flag counts, so it
# repeats of Playwright's own what matters here.
_WITHOUT = ("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "AimEnabled", "HttpsUpgrades", "PaintHolding", "LensOverlay",
            "MediaRouter", "OptimizationHints", "NetworkTimeServiceQuerying", "PreconnectToSearch")  # fmt: skip
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--disable-features={','.join(_WITHOUT)}"]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in Path(item.fspath).parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, started once."""
    executable = os.environ.get("MLAE_LAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        executable, reason = None, "playwright is not installed: pip install -r requirements-dev.txt"
    else:
        reason = "no Chromium on this machine: install Debian's chromium or set MLAE_LAB_CHROMIUM to one"
    if not executable:
        if os.environ.get("MLAE_LAB_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Lab:
    """A running lab. url: of its home page; store: its runs; data: its data folder; hub: its download source."""

    url: str
    store: RunStore
    data: Path
    hub: HubServer


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A Hub on the loopback interface, empty until a test adds files."""
    with hub_server() as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    folder: Path, port: int, *options: str, script: Path = PACKAGE / "app.py", **environment: str
) -> Iterator[str]:
    """Run `streamlit run` as in the README, from another working directory, until the block ends; yield its URL.

    Args:
        folder: Contains store/, data/ and server.log.
        port: To listen on.
        options: Of `streamlit run`.
        script: To run instead of the lab's.
        environment: Additional variables.
    """
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    variables |= {"MLAE_LAB_STORE": str(folder / "store"), "MLAE_LAB_DATA": str(folder / "data"), **environment}
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(script),
        "--server.port",
        str(port),
        "--server.headless",
        "true",
        *options,
    ]
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://localhost:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).close()
                break
            except OSError:
                alive = server.poll() is None and time.monotonic() < deadline
                assert alive, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


_CHANGED = """
{setup}
import runpy, time
import streamlit as st
from mlae_lab.ui import served
if __name__ == "__main__":
    time.sleep({delay})
    runpy.run_path({app!r}, run_name="__main__")
    time.sleep({delay})
else:
    app = st.App(__file__, routes=[served.route("")])
"""


def changed_app(folder: Path, setup: str = "", delay: float = 0.0) -> dict:
    """Options of `serving` for the lab's app with a change.

    Args:
        folder: For the script.
        setup: Code that is executed before the app.
        delay: Seconds that each execution of a page takes longer before it and after it.
    """
    script = folder / "changed.py"
    script.write_text(_CHANGED.format(setup=setup, delay=delay, app=str(PACKAGE / "app.py")))
    for name in (".streamlit", "static"):  # Streamlit looks for them next to the script
        (folder / name).symlink_to(PACKAGE / name)
    return {"script": script, "PYTHONPATH": str(PACKAGE.parent)}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[Lab]:
    """A server on a fresh store."""
    folder = tmp_path_factory.mktemp("lab")
    store = RunStore(folder / "store")
    with serving(folder, free_port(), HF_ENDPOINT=hub.url, HF_HOME=str(folder / "hf")) as url:
        yield Lab(url, store, folder / "data", hub)
    for run in store.runs():
        if not run.status.is_over:
            commands.stop(store, run.id, now=True)


CHOSEN = replace(small_config(), epochs=2, evaluations=2)
PLAIN = replace(CHOSEN, plan=allocation((0,) * 10 + (3, 2)))


@pytest.fixture(scope="session")
def pair(lab: Lab) -> Iterator[tuple[str, str]]:
    """Two finished paired runs, one masked and one with a fixed allocation."""
    runs = finished(lab.store, CHOSEN), finished(lab.store, PLAIN)
    yield runs
    for name in runs:
        end_probe(lab.store, name)


@pytest.fixture(scope="session")
def failed(lab: Lab) -> None:
    """A run whose reason is one long word with a tag in it: the table must not break."""
    run = lab.store.enqueue(FIRST_RUN, "cpu")
    lab.store.move(run.id, Status.FAILED, reason=f"no file {'/deep' * 40}/<b>bold</b>: name another")


@pytest.fixture(scope="session")
def warm_context(chromium: Browser) -> BrowserContext:
    """A browser context that keeps its cached and compiled scripts: loading the lab takes a third less than in a new
    one."""
    return chromium.new_context()


@pytest.fixture
def visit(chromium: Browser, warm_context: BrowserContext, lab: Lab) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page and waits for its heading; each page is a new visitor. Check at the end that
    no outside host was contacted and no script failed."""
    contexts, outside_requests, script_errors = [], [], []

    def open_page(
        path: str = "/",
        scheme: Literal["light", "dark"] = "light",
        width: int = 1280,
        height: int = 900,
        touch: bool = False,
        motion: bool = False,  # without a GPU an animation takes half a core
    ) -> Page:
        context = (
            chromium.new_context(has_touch=True) if touch else chromium.new_context() if contexts else warm_context
        )
        contexts.append(context)
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="no-preference" if motion else "reduce")
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith((lab.url, "data:", "blob:", lab.url.replace("http", "ws")))
                else outside_requests.append(r.url)
            ),
        )
        page.on("pageerror", lambda error: script_errors.append(str(error)))
        page.goto(lab.url + path)
        page.wait_for_selector(".lab-title", timeout=30_000)
        return page

    yield open_page
    for context in contexts:
        if context is warm_context:
            forget(context, lab.url)
        else:
            context.close()
    assert outside_requests == []
    assert script_errors == []


def forget(context: BrowserContext, url: str) -> None:
    """Close all pages of a context and remove what they stored, but for the cache of scripts."""
    blank = context.new_page()
    for page in context.pages:
        if page is not blank:
            page.close()
    context.new_cdp_session(blank).send(
        "Storage.clearDataForOrigin",
        {"origin": url, "storageTypes": "cookies,local_storage,indexeddb,websql,cache_storage,service_workers"},
    )
    context.clear_cookies()
    blank.close()
