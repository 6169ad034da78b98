"""A lesson in a real browser, once with the mouse and once on a phone with the keyboard alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from mlae_lab.runs import paths
from tests.browser.conftest import Lab
from tests.browser.test_access import serious_violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

ANSWER = "[role='figure'][aria-label*='your guess']"


@pytest.fixture
def no_training(lab: Lab) -> Iterator[None]:
    """Hold the supervisor's lock: what is enqueued waits, as on a busy machine."""
    lock = os.open(paths.supervisor_lock(lab.store.folder), os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


def test_a_lesson_with_the_mouse(visit: Callable[..., Page], lab: Lab, no_training: None) -> None:
    page = visit("/learn?view=teachers")
    page.get_by_text("Typical wrong answers").first.wait_for(timeout=30_000)
    assert serious_violations(page) == []
    page.get_by_role("link", name="All lessons").click()
    page.get_by_role("link", name="What does p do?").click()
    page.wait_for_url("**/learn?lesson=what-p-does", timeout=30_000)
    commit = page.get_by_role("button", name="Commit and train")
    commit.wait_for(timeout=30_000)
    assert commit.is_disabled()
    assert serious_violations(page) == []
    for number, share in enumerate((0.3, 0.4, 0.6, 0.8)):  # of the height of the plot, from its top
        handle = page.locator(".gb-handle").nth(number)
        dot, plot = handle.locator(".gb-dot").bounding_box(), page.locator(".gb-curve svg").bounding_box()
        assert dot
        assert plot
        x = dot["x"] + dot["width"] / 2
        page.mouse.move(x, dot["y"] + dot["height"] / 2)
        page.mouse.down()
        page.mouse.move(x, plot["y"] + share * plot["height"], steps=4)
        page.mouse.up()
    values = [int(page.locator(".gb-handle").nth(i).get_attribute("aria-valuenow") or -1) for i in range(4)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[3] > 40
    page.get_by_label("Why? One line.").fill("fewer experts learn less")
    page.get_by_label("Why? One line.").press("Tab")
    commit.click()
    page.get_by_text("The recorded run carries the lesson.").wait_for(timeout=30_000)
    page.locator("[role='figure'][aria-label^='Line chart of accuracy over training'] .main-svg").first.wait_for()
    page.get_by_role("button", name="Show the answer").click()
    page.locator(f"{ANSWER} .main-svg").first.wait_for(timeout=30_000)
    page.locator("[role='figure'][aria-label^='1 guess in this lab']").wait_for(timeout=30_000)
    assert serious_violations(page) == []
    page.get_by_role("button", name="One more question").click()
    page.get_by_text("The frozen network does most of the work on Fashion.").click()
    page.get_by_role("button", name="Check").click()
    page.get_by_text("Yes. On Fashion").wait_for(timeout=30_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Worksheet").click()
    assert download.value.suggested_filename == "what-p-does.html"
    page.get_by_role("link", name="Open this in the lab").click()
    page.wait_for_url("**/train?task=dsprites_loc_rendered*", timeout=30_000)
    assert [guess for guess in lab.store.predictions("what-p-does", "dsprites_loc_rendered")] == [values]


def test_a_lesson_with_the_keyboard_on_a_phone(visit: Callable[..., Page], lab: Lab, no_training: None) -> None:
    page = visit("/learn?lesson=where-to-learn&hide=navigation,reason,worksheet", scheme="dark", width=390, height=844)
    first = page.get_by_role("radio", name="Layer 1", exact=True)
    first.wait_for(timeout=30_000)
    assert not page.locator("section[data-testid='stSidebar']").is_visible()
    first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.get_by_text("Layer 4 gets the eight experts.").wait_for()
    assert serious_violations(page, ("color-contrast",)) == []
    button(page, "Commit and train")
    page.get_by_role("button", name="Show the answer").wait_for(timeout=30_000)
    page.keyboard.press("F8")
    page.keyboard.press("PageDown")  # in presentation mode a remote control presses the button that leads on
    figure = page.locator("[role='figure'][aria-label^='Your layer 4 is number'] .main-svg").first
    figure.wait_for(timeout=30_000)
    page.keyboard.press("F8")
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    button(page, "One more question")
    option = page.get_by_role("radio").first
    option.wait_for(timeout=30_000)
    option.focus()
    page.keyboard.press("Space")
    button(page, "Check")
    page.locator("[data-testid='stAlert']").wait_for(timeout=30_000)
    assert serious_violations(page, ("color-contrast",)) == []
    assert page.evaluate("document.documentElement.scrollWidth <= 390")


def button(page: Page, name: str) -> None:
    """Press a button by the keyboard, as soon as it can be pressed: with Tab from where the focus is."""
    page.locator("button:enabled", has_text=name).wait_for(timeout=30_000)
    for _ in range(40):
        if page.evaluate("document.activeElement.innerText || ''").strip() == name:
            page.keyboard.press("Enter")
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name!r}")
