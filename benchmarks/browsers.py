"""Browsers without a window, for the benchmarks: they speak Streamlit's protocol over real connections."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

BENCH_SECONDS = 3.0  # what is drawn again within so long is a bench; the strip in the sidebar comes every ten


@dataclass
class Seen:
    """What came to one or more browsers. refreshes: seconds from asking for a bench again to the end of the answer;
    answers: the same of whole pages; rate: refreshes a second that are due to all of them, due: the same over a stretch; bytes: of all messages after the first drawing
    of the page, without those of other fragments."""

    refreshes: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    rate: float = 0.0
    due: float = 0.0
    bytes: int = 0
    drawn: int = 0  # browsers whose page is there


async def viewer(url: str, query: str, page: str, until: float, seen: Seen, click_every: float | None = None) -> None:
    """One browser that looks at a page until a moment: it asks for the page's fragments again as often as the server
    says. click_every: seconds after which it asks for the whole page instead, as a click does."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect

    known: dict[
        str, None
    ] = {}  # messages that this browser has and the server need not send again, as a real one keeps them

    shown = ""  # the page that the server says this browser is on; a page that draws itself anew would be the first one else

    def ask(fragment: str = "") -> bytes:
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = page
        message.rerun_script.page_script_hash = shown
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        message.rerun_script.cached_message_hashes.extend(known)
        return message.SerializeToString()

    async with connect(url, subprotocols=["streamlit"], max_size=None) as server:
        await server.send(ask())
        # interval and moment of what was asked; a page asks once, its fragments as often as the server says
        asked: list[tuple[float, float]] = [(0.0, time.monotonic())]
        fragments: dict[str, tuple[float, float]] = {}
        drawn = False
        while time.monotonic() < until:
            wait = min([due for due, _ in fragments.values()], default=time.monotonic() + 0.5) - time.monotonic()
            try:
                raw = await asyncio.wait_for(server.recv(), max(0.005, min(wait, 0.5)))
            except asyncio.TimeoutError:
                raw = None
            if raw is not None and drawn and any(every < BENCH_SECONDS for every, _ in asked):
                seen.bytes += len(raw)
            if raw is not None:
                message = ForwardMsg.FromString(raw)
                if message.metadata.cacheable:
                    known[message.hash] = None
                    while len(known) > 40:
                        known.pop(next(iter(known)))
                if message.HasField("navigation"):
                    shown = message.navigation.page_script_hash
                if message.HasField("auto_rerun"):
                    every = message.auto_rerun.interval
                    if every < BENCH_SECONDS:  # a crowd is asked to come less often
                        _, before = fragments.get(message.auto_rerun.fragment_id, (0.0, 0.0))
                        seen.rate += 1 / every - (1 / before if before else 0.0)
                    fragments[message.auto_rerun.fragment_id] = (time.monotonic() + every, every)
                elif message.HasField("script_finished"):
                    now = time.monotonic()
                    for every, since in asked if drawn else ():
                        (seen.refreshes if 0 < every < BENCH_SECONDS else seen.answers).append(now - since)
                    if not drawn:
                        seen.drawn += 1
                    drawn, asked = True, []
                    if click_every is not None:
                        await asyncio.sleep(click_every)
                        asked = [(0.0, time.monotonic())]
                        await server.send(ask())
            for fragment, (due, every) in list(fragments.items()):
                if click_every is None and time.monotonic() >= due and all(every != other for other, _ in asked):
                    fragments[fragment] = (time.monotonic() + every, every)
                    asked.append((every, time.monotonic()))
                    await server.send(ask(fragment))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    """Return when a Streamlit server answers there."""
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
