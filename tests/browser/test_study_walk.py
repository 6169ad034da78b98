"""A study in a real browser: from the form to figures that appear while it runs, and back to it from the list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlae_lab.ui.settings_code import settings_code
from tests.browser.conftest import CHOSEN

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_a_study_from_the_form_to_its_figures(visit: Callable[..., Page]) -> None:
    page = visit(f"/studies?new=1&task=digits&mask={CHOSEN.plan.code}&set={quote(settings_code(CHOSEN))}", height=1600)
    for label, value in (("Values, separated by commas", "0, 0.6"), ("Seeds", "1"), ("Title", "Zero or more")):
        field = page.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Enter")
        page.wait_for_timeout(700)  # the page runs again
    page.locator("h2", has_text="Zero or more").wait_for(timeout=30_000)
    page.get_by_text("2 × 1", exact=True).wait_for(timeout=30_000)
    page.get_by_role("button", name="Start study").click()
    page.locator("h1", has_text="Zero or more").wait_for(timeout=30_000)
    page.get_by_text("One seed cannot distinguish").wait_for(timeout=120_000)  # two runs of two seconds each

    page.get_by_role("link", name="All studies").click()
    page.wait_for_url("**/studies", timeout=30_000)
    page.get_by_role("link", name="Zero or more").click()
    page.wait_for_url("**/studies?study=*", timeout=30_000)
    page.locator("[role='figure'][aria-label*='Dot plot of accuracy'] .main-svg").first.wait_for(timeout=60_000)
    page.get_by_label("Show p = 0.6 in the figures").uncheck()
    page.get_by_text("1 of 2 arms hidden").wait_for()
    page.wait_for_function(
        """() => [...document.querySelectorAll("[role='figure']")].some((figure) =>
            figure.getAttribute("aria-label").startsWith("Dot plot of accuracy")
            && !figure.getAttribute("aria-label").includes("p = 0.6"))""",
        timeout=30_000,
    )
    page.locator(".arms td.runs a").first.click()
    page.wait_for_url("**/train?run=*", timeout=30_000)
