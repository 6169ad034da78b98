"""Who a browser is, in a real one: its draft and its nickname outlive reload, tab and server; a network asks for a password."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import pattern
from mlae_lab.runs.store import RunStore
from tests.browser.conftest import free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

PASSWORD = "correct horse"
NAME = "Your name in the queue"


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Callable[[], BrowserContext]]:
    """Opens browsers that know nothing yet; each is one visitor, however many tabs it has."""
    contexts = []

    def opened() -> BrowserContext:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 1000}))
        return contexts[-1]

    yield opened
    for context in contexts:
        context.close()


def tab(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".lab-title", timeout=30_000)
    return page


def cookie(context: BrowserContext, name: str = "mlae_lab_visitor") -> dict | None:
    """The cookie of that name, once it is there."""
    for _ in range(100):
        found = next((one for one in context.cookies() if one["name"] == name), None)
        if found:
            return found
        context.pages[0].wait_for_timeout(100)
    return None


def when(page: Page, condition: Callable[[], bool], known: Callable[[], object]) -> None:
    """Waits until something is true; a run of another test may hold both cores."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, known()
        page.wait_for_timeout(100)


def shown(page: Page) -> tuple[str, str, str]:
    """Epochs and seed in Train's form, and the command of its draft, which has the mask."""
    page.get_by_role("spinbutton", name="Epochs").wait_for(timeout=30_000)
    command = page.locator('[data-testid="stCode"] code').first
    command.wait_for(state="attached", timeout=30_000)
    return (
        page.get_by_role("spinbutton", name="Epochs").input_value(),
        page.get_by_role("spinbutton", name="Seed").input_value(),
        command.text_content().partition(" --store ")[0],
    )


def fill(page: Page, label: str, value: str) -> None:
    box = page.get_by_role("spinbutton", name=label)
    box.fill(value)
    box.press("Enter")


def kept(store: RunStore, visitor: str) -> RunConfig:
    text = store.visitor(visitor).draft
    return RunConfig.from_dict(json.loads(text)) if text else FIRST_RUN


def test_one_draft_in_every_tab_after_a_reload_and_after_another_start_of_the_server(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    store, port, context = RunStore(tmp_path / "store"), free_port(), browser()
    with serving(tmp_path, port) as url:
        page = tab(context, f"{url}/train")
        fill(page, "Epochs", "23")
        fill(page, "Seed", "7")
        me = cookie(context)["value"]
        when(page, lambda: (kept(store, me).epochs, kept(store, me).seed) == (23, 7), lambda: kept(store, me))

        page.get_by_role("link", name="Paint another mask").click()
        page.wait_for_selector(".mg-cell")
        page.wait_for_timeout(600)
        page.locator('.mg-cell[data-row="2"][data-column="4"]').click()
        when(page, lambda: kept(store, me).plan.experts == 95, lambda: kept(store, me).plan)
        mask = kept(store, me).plan.code
        page.get_by_role("link", name="Go on to the run").click()
        when(page, lambda: mask in shown(page)[2], lambda: shown(page))
        assert shown(page)[:2] == ("23", "7")
        page.wait_for_url("**set=*")

        page.reload()
        assert shown(page) == shown(tab(context, f"{url}/train")) == ("23", "7", kept(store, me).command())
        assert shown(tab(browser(), f"{url}/train"))[0] == str(FIRST_RUN.epochs), "another browser, another draft"
        link = page.url
        assert shown(tab(browser(), link)) == ("23", "7", kept(store, me).command()), "its address opens it elsewhere"

    with serving(tmp_path, port) as url:  # the tab is still open and finds the server again
        assert shown(tab(context, f"{url}/train")) == ("23", "7", kept(store, me).command())
        page.locator('[data-testid="stConnectionStatus"]').wait_for(state="hidden", timeout=60_000)
        other = tab(context, f"{url}/train")
        fill(other, "Seed", "9")
        when(page, lambda: kept(store, me).seed == 9, lambda: kept(store, me))
        page.reload()  # its address is older than what the other tab did
        assert shown(page)[1] == "7"
        assert kept(store, me).seed == 9
        assert shown(tab(context, f"{url}/train"))[1] == "9"
        fill(page, "Epochs", "24")
        when(page, lambda: kept(store, me).epochs == 24, lambda: kept(store, me))
        assert kept(store, me) == replace(kept(store, me), plan=kept(store, me).plan, seed=7, epochs=24)
        assert kept(store, me).plan.code == mask


def test_a_name_is_kept_for_one_browser_and_the_id_is_shown_nowhere(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "store")
    with serving(tmp_path, free_port()) as url:
        context = browser()
        page = tab(context, url)
        held = cookie(context)
        assert (held["sameSite"], held["path"]) == ("Strict", "/")
        assert 360 * 86_400 < held["expires"] - time.time() < 366 * 86_400
        page.get_by_label(NAME).fill("Ada")
        page.get_by_label(NAME).press("Enter")
        when(page, lambda: store.nicknames() == {held["value"]: "Ada"}, store.nicknames)
        page.reload()
        second, other = tab(context, f"{url}/masks"), tab(browser(), url)
        for one in (page, second):
            when(one, lambda: one.get_by_label(NAME).input_value() == "Ada", one.get_by_label(NAME).input_value)
        assert other.get_by_label(NAME).input_value() == ""
        assert cookie(context)["value"] == held["value"]
        for one in (page, second):
            assert held["value"] not in one.content() + one.url
        room = page.evaluate("document.querySelector('.st-key-visitor_cookie').getBoundingClientRect().height")
        assert room == 0


def test_a_tab_that_meets_the_cookie_of_another_one_late_becomes_the_same_visitor(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    """Two first tabs at once: the cookie of the other comes after this one's connection and before its page."""
    store, ada = RunStore(tmp_path / "store"), "ada-" * 5
    config = replace(FIRST_RUN, plan=pattern("hourglass"), epochs=31, seed=4)
    store.keep_visitor(ada, nickname="Ada", draft=json.dumps(config.to_dict()))
    with serving(tmp_path, free_port()) as url:
        context = browser()
        page = context.new_page()
        page.add_init_script(
            "const Real = WebSocket; window.WebSocket = class extends Real { constructor(...words) { super(...words); "
            f"this.addEventListener('open', () => {{ document.cookie = 'mlae_lab_visitor={ada}; path=/'; }}); }} }};"
        )
        page.goto(f"{url}/train")
        page.wait_for_function(
            "() => { const box = document.querySelector('section[data-testid=stSidebar] input'); return box && box.value === 'Ada'; }",
            timeout=30_000,
        )
        when(page, lambda: shown(page) == ("31", "4", config.command()), lambda: shown(page))
        page.wait_for_timeout(1500)
        assert shown(page) == ("31", "4", config.command())
        assert kept(store, ada) == config
        assert cookie(context)["value"] == ada
        fill(page, "Epochs", "32")
        when(page, lambda: kept(store, ada).epochs == 32, lambda: kept(store, ada))


def test_a_cookie_that_is_no_id_is_replaced(browser: Callable[[], BrowserContext], tmp_path: Path) -> None:
    with serving(tmp_path, free_port()) as url:
        context = browser()
        context.add_cookies([{"name": "mlae_lab_visitor", "value": "../../x", "url": url}])
        page = tab(context, url)
        when(page, lambda: len(cookie(context)["value"]) == 22, lambda: cookie(context))


# ---------------------------------------------------------------- on a network


def asks(page: Page) -> bool:
    """Whether a page asks for the password, as soon as it says so or shows the lab."""
    password, name = page.get_by_label("Password", exact=True), page.get_by_label(NAME)
    password.or_(name).wait_for(timeout=30_000)
    return password.count() == 1


def on_the_network(folder: Path, port: int, password: str = ""):
    return serving(folder, port, "--server.address", "0.0.0.0", MLAE_LAB_PASSWORD=password)


def test_on_a_network_without_a_password_the_lab_is_shut(browser: Callable[[], BrowserContext], tmp_path: Path) -> None:
    with on_the_network(tmp_path, free_port()) as url:
        for path in ("/", "/train", "/runs"):
            page = tab(browser(), url + path)
            page.get_by_text("MLAE_LAB_PASSWORD").wait_for()
            assert "lets nobody in" in page.inner_text("body")
            assert page.get_by_role("button", name="Watch a mask learn").count() == 0
            assert page.get_by_role("spinbutton").count() == 0
            assert page.get_by_role("link", name="Runs").count() == 0


def test_on_a_network_the_password_opens_for_this_browser_until_it_changes(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    port = free_port()
    context = browser()

    def offer(page: Page, password: str) -> None:
        page.get_by_label("Password", exact=True).fill(password)
        page.get_by_role("button", name="Open the lab").click()

    with on_the_network(tmp_path, port, PASSWORD) as url:
        page = tab(context, f"{url}/train?set=epochs%3A21")
        assert asks(page)
        assert page.get_by_role("spinbutton").count() == 0
        assert page.get_by_label(NAME).count() == 0
        offer(page, "wrong horse")
        page.get_by_text("That is not the password").wait_for(timeout=20_000)
        assert page.get_by_role("spinbutton").count() == 0
        offer(page, PASSWORD)
        assert shown(page)[0] == "21", "the link that was opened"
        assert page.get_by_text("No encryption: the password and everything shown").count() == 1
        held = cookie(context, "mlae_lab_login")
        assert held["sameSite"] == "Strict"
        assert PASSWORD not in held["value"]
        assert page.locator("[role=dialog]").count() == 0, "no word of a page that is not found"

        page.reload()
        assert shown(page)[0] == "21"
        assert not asks(tab(context, url)), "another tab of this browser"
        assert asks(tab(browser(), url)), "another browser"
        thief = browser()
        thief.add_cookies([{"name": "mlae_lab_login", "value": held["value"], "url": url}])
        assert asks(tab(thief, url)), "a login is of one visitor"

    with on_the_network(tmp_path, port, PASSWORD) as url:
        assert not asks(tab(context, url)), "it outlives the server"
    with on_the_network(tmp_path, port, "another password") as url:
        assert asks(tab(context, url)), "and ends with the password"
