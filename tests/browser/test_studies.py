"""A study in a real browser: from the form to its page, and back to it from the list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlae_lab.runs import studies
from mlae_lab.ui.settings_code import settings_code
from tests.browser.conftest import CHOSEN
from tests.lab import measured

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Lab


def test_a_study_from_the_form_to_its_figures(visit: Callable[..., Page], lab: Lab) -> None:
    page = visit(f"/studies?new=1&task=digits&mask={CHOSEN.plan.code}&set={quote(settings_code(CHOSEN))}", height=1600)
    values = page.get_by_label("Values, separated by commas")
    values.fill("0, 0.6")
    values.press("Enter")
    page.get_by_text("2 × 3").wait_for(timeout=30_000)
    page.get_by_label("Title").fill("Zero or more")
    page.get_by_label("Title").press("Enter")
    page.locator("h2", has_text="Zero or more").wait_for(timeout=30_000)
    page.get_by_role("button", name="Start study").click()
    page.locator("h1", has_text="Zero or more").wait_for(timeout=30_000)
    page.get_by_role("button", name="Stop the study").click()
    page.get_by_role("button", name="Resume the study").wait_for(timeout=60_000)
    (stored,) = (entry for entry in lab.store.studies() if entry.study.title == "Zero or more")
    for cell in studies.state(lab.store, stored.id).cells:
        if cell.run is not None and cell.accuracy is None:  # results without the time of a training
            measured(lab.store, cell.run, 50.0, 90.0 + cell.seed + 2 * (cell.arm == "p = 0.6"))

    page.get_by_role("link", name="All studies").click()
    page.wait_for_url("**/studies", timeout=30_000)
    page.get_by_role("link", name="Zero or more").click()
    page.locator(".arms tbody tr").first.wait_for(timeout=30_000)
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
