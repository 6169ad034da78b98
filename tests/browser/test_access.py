"""Every page, wide and narrow, light and dark: nothing is cut off or empty, and axe-core finds no serious fault. And no
upload without the password."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAVIGATION = "[data-testid='stSidebarNavItems']"
# Rule and region of violations in Streamlit's own elements, which the lab cannot fix.
STREAMLIT_VIOLATIONS = {
    ("list", NAVIGATION),  # st.navigation puts a <div> for each section between the <ul> and its <li>
    ("listitem", NAVIGATION),  # so the entries of a section are not inside a list
}


def serious_violations(page: Page, rules: tuple[str, ...] = ()) -> list[str]:
    """Return serious and critical violations, each as "rule: element (reason)". rules: check only these."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:240]})"
        for rule in Axe().run(page, options=options).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(
            rule["id"] == known and _within(page, node["target"], place) for known, place in STREAMLIT_VIOLATIONS
        )
    ]


def _within(page: Page, target: list, place: str) -> bool:
    """Return whether an element that axe reports is inside a region, or is it."""
    return page.locator(target[-1]).first.evaluate("(element, place) => Boolean(element.closest(place))", place)


OVERFLOW = """() => { const main = document.querySelector('[data-testid="stMain"]');
    return { wider: main.scrollWidth - main.clientWidth, text: main.innerText.length }; }"""


@pytest.mark.usefixtures("failed")
@pytest.mark.parametrize(
    ("number", "path"),
    list(enumerate([
        "/", "/task", "/task?task=svhn", "/masks", "/train", "/train?run={0}", "/race?runs={0},{1}", "/runs", "/doctor",
        "/compare?a={0}&b={1}", "/compare", "/experts?run={0}", "/experts", "/studies", "/studies?new=1", "/paper",
        "/tour?step=10", "/glossary?term=lora",
    ])),
)  # fmt: skip
def test_page_fits_and_has_no_serious_violation(
    number: int, path: str, visit: Callable[..., Page], pair: tuple[str, str]
) -> None:
    widths = (390, 800, 1280) if number % 2 else (1280, 390, 800)  # opened at one, then resized
    page = visit(path.format(*pair), width=widths[0])
    page.wait_for_timeout(1500)
    for scheme, width in (("light", widths[0]), ("light", widths[1]), ("dark", widths[2])):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(1000)
        layout = page.evaluate(OVERFLOW)
        assert layout["wider"] <= 1, (scheme, width)
        assert layout["text"] > 60, (scheme, width)
        assert page.locator("[data-testid='stException'], :text('Component Error')").count() == 0
    assert page.evaluate("document.fonts.check('16px Inter')")
    page.set_viewport_size({"width": 1280, "height": 900})
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(400)
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert background == {"light": "rgb(250, 250, 247)", "dark": "rgb(16, 20, 24)"}[scheme]
        violations = serious_violations(
            page, () if scheme == "light" else ("color-contrast",)
        )  # only contrast depends on the scheme
        assert not violations, f"{scheme}: " + "\n".join(violations)


# ---------------------------------------------------------------- a network


def status(url: str, method: str = "GET", data: bytes | None = None) -> int:
    """The status of a request without cookies."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_connection_without_the_password_uploads_nothing(tmp_path: Path) -> None:
    """On a real server, as `streamlit run` starts it."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    async def session_of(url: str) -> tuple[str, int]:
        """Open a page without logging in; the session's id, and the status of an upload for it."""
        address = url.replace("http", "ws") + "/_stcore/stream"
        async with connect(address, subprotocols=[Subprotocol("streamlit")], max_size=None) as connection:
            request = BackMsg()
            request.rerun_script.query_string = ""
            await connection.send(request.SerializeToString())
            while True:
                message = ForwardMsg.FromString(bytes(await asyncio.wait_for(connection.recv(decode=False), 30)))
                if message.HasField("new_session"):
                    session = message.new_session.initialize.session_id
                    break
            upload = f"{url}/_stcore/upload_file/{session}/file"
            return session, await asyncio.to_thread(status, upload, "PUT", b"x" * 100_000)

    options = ("--server.address", "0.0.0.0", "--server.enableXsrfProtection", "false")
    with serving(tmp_path, free_port(), *options, MLAE_LAB_PASSWORD="correct horse") as url:
        with ThreadPoolExecutor(1) as pool:  # this thread may have the event loop of the browser
            session, uploaded = pool.submit(asyncio.run, session_of(url)).result()
        assert session
        assert uploaded == 403
        assert status(f"{url}/_stcore/metrics") == 403
        assert status(f"{url}/media/0123.png") == 403
        assert status(f"{url}/masks") == 200
