"""Visitors in real browsers: draft and nickname survive reload, tab and server; on a network a password is required."""

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
    """Return a function that opens a new browser context; each is one visitor, whatever its number of tabs."""
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
    """Return the cookie of that name once it is set."""
    for _ in range(100):
        match = next((entry for entry in context.cookies() if entry["name"] == name), None)
        if match:
            return match
        context.pages[0].wait_for_timeout(100)
    return None


def when(page: Page, condition: Callable[[], bool], state: Callable[[], object]) -> None:
    """Wait until a condition is true; a run of another test may use all cores."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, state()
        page.wait_for_timeout(100)


def shown(page: Page) -> tuple[str, str, str]:
    """Return epochs and seed in Train's form, and the command of its draft, which contains the mask."""
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


def stored_draft(store: RunStore, visitor: str) -> RunConfig:
    text = store.visitor(visitor).draft
    return RunConfig.from_dict(json.loads(text)) if text else FIRST_RUN


def test_all_tabs_share_one_draft_after_a_reload_and_a_restart(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    store, port, context = RunStore(tmp_path / "store"), free_port(), browser()
    with serving(tmp_path, port) as url:
        page = tab(context, f"{url}/train")
        fill(page, "Epochs", "23")
        fill(page, "Seed", "7")
        me = cookie(context)["value"]
        when(
            page,
            lambda: (stored_draft(store, me).epochs, stored_draft(store, me).seed) == (23, 7),
            lambda: stored_draft(store, me),
        )

        page.get_by_role("link", name="Paint another mask").click()
        page.wait_for_selector(".mg-cell")
        page.wait_for_timeout(600)
        page.locator('.mg-cell[data-row="2"][data-column="4"]').click()
        when(page, lambda: stored_draft(store, me).plan.experts == 95, lambda: stored_draft(store, me).plan)
        mask = stored_draft(store, me).plan.code
        page.get_by_role("button", name="Next: set up the run").click()
        when(page, lambda: mask in shown(page)[2], lambda: shown(page))
        assert shown(page)[:2] == ("23", "7")
        page.wait_for_url("**set=*")

        page.reload()
        assert shown(page) == shown(tab(context, f"{url}/train")) == ("23", "7", stored_draft(store, me).command())
        assert shown(tab(browser(), f"{url}/train"))[0] == str(FIRST_RUN.epochs), "another browser has another draft"
        link = page.url
        assert shown(tab(browser(), link)) == ("23", "7", stored_draft(store, me).command()), (
            "its URL opens the draft elsewhere"
        )

    with serving(tmp_path, port) as url:  # the open tab reconnects to the server
        assert shown(tab(context, f"{url}/train")) == ("23", "7", stored_draft(store, me).command())
        page.locator('[data-testid="stConnectionStatus"]').wait_for(state="hidden", timeout=60_000)
        other = tab(context, f"{url}/train")
        fill(other, "Seed", "9")
        when(page, lambda: stored_draft(store, me).seed == 9, lambda: stored_draft(store, me))
        page.reload()  # its URL is older than the other tab's change
        assert shown(page)[1] == "7"
        assert stored_draft(store, me).seed == 9
        assert shown(tab(context, f"{url}/train"))[1] == "9"
        fill(page, "Epochs", "24")
        when(page, lambda: stored_draft(store, me).epochs == 24, lambda: stored_draft(store, me))
        assert stored_draft(store, me) == replace(
            stored_draft(store, me), plan=stored_draft(store, me).plan, seed=7, epochs=24
        )
        assert stored_draft(store, me).plan.code == mask


def test_a_name_is_kept_for_one_browser_and_the_id_is_never_shown(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    store = RunStore(tmp_path / "store")
    with serving(tmp_path, free_port()) as url:
        context = browser()
        page = tab(context, url)
        visitor_cookie = cookie(context)
        assert (visitor_cookie["sameSite"], visitor_cookie["path"]) == ("Strict", "/")
        assert 360 * 86_400 < visitor_cookie["expires"] - time.time() < 366 * 86_400
        page.get_by_label(NAME).fill("Ada")
        page.get_by_label(NAME).press("Enter")
        when(page, lambda: store.nicknames() == {visitor_cookie["value"]: "Ada"}, store.nicknames)
        page.reload()
        second, other = tab(context, f"{url}/masks"), tab(browser(), url)
        for own_tab in (page, second):
            name = own_tab.get_by_label(NAME)
            when(own_tab, lambda name=name: name.input_value() == "Ada", name.input_value)
        assert other.get_by_label(NAME).input_value() == ""
        assert cookie(context)["value"] == visitor_cookie["value"]
        for own_tab in (page, second):
            assert visitor_cookie["value"] not in own_tab.content() + own_tab.url
        height = page.evaluate("document.querySelector('.st-key-visitor_cookie').getBoundingClientRect().height")
        assert height == 0


def test_a_tab_that_gets_another_tabs_cookie_late_becomes_the_same_visitor(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    """Two first tabs at once: the other's cookie arrives after this one's connection and before its page."""
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
            "() => document.querySelector('section[data-testid=stSidebar] input')?.value === 'Ada'",
            timeout=30_000,
        )
        when(page, lambda: shown(page) == ("31", "4", config.command()), lambda: shown(page))
        page.wait_for_timeout(1500)
        assert shown(page) == ("31", "4", config.command())
        assert stored_draft(store, ada) == config
        assert cookie(context)["value"] == ada
        fill(page, "Epochs", "32")
        when(page, lambda: stored_draft(store, ada).epochs == 32, lambda: stored_draft(store, ada))


def test_an_invalid_cookie_is_replaced(browser: Callable[[], BrowserContext], tmp_path: Path) -> None:
    with serving(tmp_path, free_port()) as url:
        context = browser()
        context.add_cookies([{"name": "mlae_lab_visitor", "value": "../../x", "url": url}])
        page = tab(context, url)
        when(page, lambda: len(cookie(context)["value"]) == 22, lambda: cookie(context))


# ---------------------------------------------------------------- on a network


def shows_login(page: Page) -> bool:
    """Return whether a page requires the password, once it shows the login or the lab."""
    password, name = page.get_by_label("Password", exact=True), page.get_by_label(NAME)
    password.or_(name).wait_for(timeout=30_000)
    return password.count() == 1


def on_the_network(folder: Path, port: int, password: str = ""):
    return serving(folder, port, "--server.address", "0.0.0.0", MLAE_LAB_PASSWORD=password)


def test_on_a_network_without_a_password_the_lab_is_closed(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    with on_the_network(tmp_path, free_port()) as url:
        for path in ("/", "/train", "/runs"):
            page = tab(browser(), url + path)
            page.get_by_text("MLAE_LAB_PASSWORD").wait_for()
            assert "nobody can log in" in page.inner_text("body")
            assert page.get_by_role("button", name="Watch a mask learn").count() == 0
            assert page.get_by_role("spinbutton").count() == 0
            assert page.get_by_role("link", name="Runs").count() == 0


def test_password_opens_the_lab_for_this_browser_until_it_changes(
    browser: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    port = free_port()
    context = browser()

    def log_in(page: Page, password: str) -> None:
        page.get_by_label("Password", exact=True).fill(password)
        page.get_by_role("button", name="Log in").click()

    with on_the_network(tmp_path, port, PASSWORD) as url:
        page = tab(context, f"{url}/train?set=epochs%3A21")
        assert shows_login(page)
        assert page.get_by_role("spinbutton").count() == 0
        assert page.get_by_label(NAME).count() == 0
        log_in(page, "wrong horse")
        page.get_by_text("Wrong password").wait_for(timeout=20_000)
        assert page.get_by_role("spinbutton").count() == 0
        log_in(page, PASSWORD)
        assert shown(page)[0] == "21", "the link that was opened"
        assert page.get_by_text("No encryption: the password and everything shown").count() == 1
        login = cookie(context, "mlae_lab_login")
        assert login["sameSite"] == "Strict"
        assert PASSWORD not in login["value"]
        assert page.locator("[role=dialog]").count() == 0, "no message that a page was not found"

        page.reload()
        assert shown(page)[0] == "21"
        assert not shows_login(tab(context, url)), "another tab of this browser"
        assert shows_login(tab(browser(), url)), "another browser"
        thief = browser()
        thief.add_cookies([{"name": "mlae_lab_login", "value": login["value"], "url": url}])
        assert shows_login(tab(thief, url)), "a login is valid for one visitor"

    with on_the_network(tmp_path, port, PASSWORD) as url:
        assert not shows_login(tab(context, url)), "a login survives the server"
    with on_the_network(tmp_path, port, "another password") as url:
        assert shows_login(tab(context, url)), "a login ends when the password changes"
