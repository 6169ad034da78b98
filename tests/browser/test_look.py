"""What a page looks like: settings, images, the recorded run. `test_access.py` has what every page must fulfil."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mlae_lab.locations import PACKAGE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.mark.parametrize("width", [1280, 800])
def test_chosen_settings_are_readable(width: int, visit: Callable[..., Page]) -> None:
    page = visit("/train", width=width)
    page.get_by_text("More settings", exact=True).click()
    page.get_by_role("combobox", name="Preprocessing").wait_for()
    choices = (("Masked experts", "train → val", 13), ("Linear probe", "train + val → test", 11))  # no "Mask drawn per"
    for method, protocol, lists in choices:
        for label, option in (("Method", method), ("Protocol", protocol)):
            field = page.get_by_role("combobox", name=label)
            field.evaluate("field => field.scrollIntoView({ block: 'center' })")  # not under the header
            page.wait_for_timeout(700)  # a list closes when the page moves
            field.click()
            page.get_by_role("option", name=option).click()
        page.wait_for_timeout(800)
        fields = page.locator("[data-testid='stSelectbox'] input")
        shown = fields.evaluate_all("all => all.map(i => [i.value, i.scrollWidth - i.clientWidth])")
        assert {protocol, method} <= {value.split(" (")[0] for value, _ in shown}
        assert len(shown) == lists
        assert [value for value, wider in shown if wider > 0] == []


def test_figures_show_the_pixels_of_tiny_images_and_smooth_photographs(chromium: Browser) -> None:
    page = chromium.new_page()
    try:
        images = "".join(f'<image xlink:href="data:image/{kind};base64,"/>' for kind in ("png", "jpeg"))
        style = (PACKAGE / "ui" / "page.css").read_text()
        page.set_content(f'<style>{style}</style><div class="stApp"><svg class="imagelayer">{images}</svg></div>')
        rendering = "all => all.map(image => getComputedStyle(image).imageRendering)"
        assert page.locator("image").evaluate_all(rendering) == ["pixelated", "auto"]
    finally:
        page.close()


@pytest.mark.usefixtures("failed")
def test_a_reason_is_shown_as_text(visit: Callable[..., Page]) -> None:
    page = visit("/runs")
    page.wait_for_selector("small:has-text('name another')")
    assert "<b>bold</b>" in page.locator("small:has-text('name another')").first.inner_text()


def test_the_recorded_run_plays_on_home(visit: Callable[..., Page]) -> None:
    page = visit("/", motion=True)
    page.wait_for_selector(".replay .grid i")
    assert page.locator(".replay .grid i").count() == 96
    cells = page.locator(".replay .grid i")
    rings = cells.evaluate_all("cells => cells.map(c => c.className).join()")
    page.wait_for_timeout(700)
    assert cells.evaluate_all("cells => cells.map(c => c.className).join()") != rings, "other experts are active by now"
    assert page.locator(".replay .now").inner_text().startswith("Epoch")
    page.get_by_role("button", name="Pause the recording").click()
    shown = cells.evaluate_all("cells => cells.map(c => c.className).join()")
    page.wait_for_timeout(500)
    assert cells.evaluate_all("cells => cells.map(c => c.className).join()") == shown
