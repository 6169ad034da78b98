"""Viewers without a browser, for the benchmarks: they speak Streamlit's protocol over real connections."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

BENCH_SECONDS = 3.0  # a fragment that refreshes faster is the bench; the strip in the sidebar refreshes every ten


@dataclass
class Traffic:
    """What the server sent to one or more viewers.

    Attributes:
        refreshes: seconds from each request for the bench to the end of its answer.
        answers: the same for whole pages.
        rate: refreshes per second that all viewers together should get.
        due: refreshes that they should have got in the measured time.
        bytes: of all messages after the first rendering of the page, without those of other fragments.
        rendered: viewers whose page has been rendered.
    """

    refreshes: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    rate: float = 0.0
    due: float = 0.0
    bytes: int = 0
    rendered: int = 0


async def viewer(
    url: str, query: str, page: str, until: float, traffic: Traffic, click_every: float | None = None
) -> None:
    """Watch a page as one browser: request its fragments as often as the server asks for.

    Args:
        url: of the server's websocket.
        query: query string of the page.
        page: its name.
        until: when to stop, by the monotonic clock.
        traffic: counts what arrives.
        click_every: seconds after which to request the whole page instead, as a click does.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    cached: dict[str, None] = {}  # hashes of messages that the server need not send again, in order of arrival
    page_hash = ""  # without it the server would answer a rerun with the first page

    def request(fragment: str = "") -> bytes:
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = page
        message.rerun_script.page_script_hash = page_hash
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        message.rerun_script.cached_message_hashes.extend(cached)
        return message.SerializeToString()

    async with connect(url, subprotocols=[Subprotocol("streamlit")], max_size=None) as server:
        await server.send(request())
        # interval and moment of each open request; the interval of a whole page is 0
        requests: list[tuple[float, float]] = [(0.0, time.monotonic())]
        fragments: dict[str, tuple[float, float]] = {}  # when each is due, and its interval
        rendered = False
        while time.monotonic() < until:
            wait = min([due for due, _ in fragments.values()], default=time.monotonic() + 0.5) - time.monotonic()
            try:
                raw = await asyncio.wait_for(server.recv(), max(0.005, min(wait, 0.5)))
            except asyncio.TimeoutError:
                raw = None
            if raw is not None and rendered and any(every < BENCH_SECONDS for every, _ in requests):
                traffic.bytes += len(raw)
            if raw is not None:
                assert isinstance(raw, bytes)
                message = ForwardMsg.FromString(raw)
                if message.metadata.cacheable:
                    cached[message.hash] = None
                    while len(cached) > 40:
                        cached.pop(next(iter(cached)))
                if message.HasField("navigation"):
                    page_hash = message.navigation.page_script_hash
                if message.HasField("auto_rerun"):
                    every = message.auto_rerun.interval
                    if every < BENCH_SECONDS:  # the server lengthens the interval when there are many viewers
                        _, before = fragments.get(message.auto_rerun.fragment_id, (0.0, 0.0))
                        traffic.rate += 1 / every - (1 / before if before else 0.0)
                    fragments[message.auto_rerun.fragment_id] = (time.monotonic() + every, every)
                elif message.HasField("script_finished"):
                    now = time.monotonic()
                    for every, since in requests if rendered else ():
                        times = traffic.refreshes if 0 < every < BENCH_SECONDS else traffic.answers
                        times.append(now - since)
                    if not rendered:
                        traffic.rendered += 1
                    rendered, requests = True, []
                    if click_every is not None:
                        await asyncio.sleep(click_every)
                        requests = [(0.0, time.monotonic())]
                        await server.send(request())
            for fragment, (due, every) in list(fragments.items()):
                is_open = any(every == interval for interval, _ in requests)
                if click_every is None and time.monotonic() >= due and not is_open:
                    fragments[fragment] = (time.monotonic() + every, every)
                    requests.append((every, time.monotonic()))
                    await server.send(request(fragment))


def percentile_95(seconds: list[float]) -> float:
    """The 95th percentile, infinite for an empty list."""
    return sorted(seconds)[int(0.95 * (len(seconds) - 1))] if seconds else float("inf")


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    """Return when a Streamlit server answers on a port."""
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
