"""Scripts that browsers load from the lab's server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import plotly
import pytest
from starlette.routing import Router

from mlae_lab.ui import served
from mlae_lab.ui.live_plot import PLOTLY


def answer(path: str, base: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    requests = [{"type": "http.request"}]

    async def receive() -> Any:
        while not requests:
            await asyncio.sleep(60)  # the browser stays connected
        return requests.pop()

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    asyncio.run(Router([served.route(base)])(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0].get("headers", ())}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("base", ["", "lab", "/lab/"])
def test_a_script_from_memory_and_one_of_another_package(base: str) -> None:
    home = f"/{base.strip('/')}/" if base else "/"
    status, headers, body = answer(home + served.address("test-1.js", b"export {};"), base)
    assert (status, body) == (200, b"export {};")
    assert headers["content-type"].startswith("text/javascript")
    assert "immutable" in headers["cache-control"]
    status, headers, body = answer(home + PLOTLY, base)
    assert status == 200
    assert plotly.__version__ in PLOTLY
    assert body == (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    assert headers["content-type"].startswith("text/javascript")


def test_only_scripts_are_served() -> None:
    served.address("test-1.js", b"export {};")
    for path in ("/app/code/test-2.js", "/app/code/../static/inter-LICENSE.txt", "/app/code/", "/app/code/x/test-1.js"):
        assert answer(path)[0] == 404, path
