"""The tour, presentation mode and definitions with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlae_lab.ui.tour import SHORT, steps

if TYPE_CHECKING:
    from playwright.sync_api import Page

PRESENTED = "document.documentElement.classList.contains('lab-present')"


def cells(page: Page) -> list[tuple[float, float]]:
    """Where the 96 cells of the diagram are."""
    return page.evaluate(
        "[...document.querySelectorAll('.tour .cell')].map((c) => [parseFloat(c.style.x), parseFloat(c.style.y)])"
    )


def test_the_tour_is_presented_with_the_keyboard(visit: Callable[..., Page]) -> None:
    page = visit("/tour", height=720)
    title, pages = page.locator(".tour h2"), steps()
    page.wait_for_function("document.querySelectorAll('.tour .cell').length === 96")
    places = []
    for step in pages:
        assert title.inner_text() == step.title
        assert page.locator(".tour svg").get_attribute("aria-label") == step.alt
        places.append(cells(page))
        page.keyboard.press("ArrowRight")
    assert places[3] != places[8] != places[9], "the same cells travel from grid to ranking to similarity maps"
    page.wait_for_url(f"**/tour?step={len(pages)}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/tour?step={len(pages) - 1}")

    narrow = page.locator(".tour svg").bounding_box()
    page.keyboard.press("F8")
    assert page.evaluate(PRESENTED)
    assert not page.locator("[data-testid='stSidebar']").is_visible()
    wide = page.locator(".tour svg").bounding_box()
    assert wide
    assert narrow
    assert wide["width"] > 1.2 * narrow["width"]
    assert wide["y"] + wide["height"] <= 720, "the diagram is on the screen"
    page.keyboard.press("PageDown")
    assert title.inner_text() == pages[-1].title
    page.keyboard.press("PageUp")
    assert title.inner_text() == pages[-2].title

    word = page.locator(".tour .lab-term").first
    word.focus()
    page.keyboard.press("Enter")
    definition = page.locator(".lab-definition:popover-open")
    assert definition.is_visible()
    page.keyboard.press("Escape")
    assert definition.count() == 0
    assert page.evaluate(PRESENTED), "Escape closes the definition first"
    page.reload()
    page.wait_for_function(PRESENTED)
    page.keyboard.press("Escape")
    assert not page.evaluate(PRESENTED)
    assert page.locator("[data-testid='stSidebar']").is_visible()

    word.press("Enter")
    definition.locator("a").click()
    page.locator(".lab-entry.alone").wait_for()


def test_home_offers_the_tour_once_and_a_link_presents(visit: Callable[..., Page]) -> None:
    page = visit("/?present=1", width=390, height=844)
    page.wait_for_function(PRESENTED)
    page.keyboard.press("F8")
    assert not page.evaluate(PRESENTED)
    assert "present" not in page.url
    page.locator(".st-key-home_tour_start button").click()
    page.locator(".tour-next").click()
    assert page.locator(".tour-count").inner_text() == f"2 of {len(SHORT)}"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".tour-close").click()
    page.locator(".replay").wait_for()
    page.reload()
    page.locator(".replay").wait_for()
    assert page.locator(".st-key-home_offer").count() == 0
