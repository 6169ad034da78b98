"""Painting with a mouse and with a keyboard, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core.patterns import dense, pattern
from tests.browser.canvas import cell, opened, plan_when

if TYPE_CHECKING:
    from playwright.sync_api import Page

DENSE = f"/masks?mask={dense().code}"


@pytest.fixture
def masks(visit: Callable[..., Page]) -> Page:
    page = visit(DENSE, height=1500)
    return opened(page)


def test_a_click_removes_one_expert_and_a_second_restores_it(masks: Page) -> None:
    at = cell(masks, 3, 5)
    masks.mouse.click(at["x"], at["y"])
    plan = plan_when(masks, lambda p: p.experts == 95)
    assert not plan.keep[2][4]
    masks.mouse.click(at["x"], at["y"])
    assert plan_when(masks, lambda p: p.experts == 96) == dense()


def test_a_fast_drag_over_eight_cells_changes_exactly_those(masks: Page) -> None:
    start, end = cell(masks, 6, 1), cell(masks, 6, 8)
    masks.mouse.move(start["x"], start["y"])
    masks.mouse.down()
    masks.mouse.move(end["x"], end["y"], steps=2)  # two events for eight cells: a fast movement
    masks.mouse.up()
    plan = plan_when(masks, lambda p: p.experts == 88)
    assert plan.kept == (8,) * 5 + (0,) + (8,) * 6
    assert "keeps no expert" in masks.inner_text("body")


def test_keyboard_alone_paints(masks: Page) -> None:
    masks.locator('.mg-cell[data-row="0"][data-column="0"]').focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Space"):
        masks.keyboard.press(key)
    plan = plan_when(masks, lambda p: p.experts == 95)
    assert not plan.keep[2][1]
    label = masks.locator('.mg-cell[data-row="2"][data-column="1"]').get_attribute("aria-label")
    assert label == "Layer 3, expert 2: masked"


def test_all_layers_are_in_view_on_a_projector(masks: Page) -> None:
    masks.set_viewport_size({"width": 1280, "height": 720})
    masks.wait_for_function(
        """() => [...document.querySelector('[data-testid=stMain]').querySelectorAll('.mg-cell')]
            .every(cell => cell.getBoundingClientRect().bottom <= innerHeight)""",
        timeout=10_000,
    )
    assert masks.get_by_role("button", name="Next: set up the run").is_visible()


def test_the_frame_of_a_selection_goes_with_the_keyboard(masks: Page) -> None:
    masks.locator('.mg-cell[data-row="0"][data-column="0"]').focus()
    masks.keyboard.press("Shift+ArrowRight")
    assert masks.locator(".mg-cell.marked").count() == 2
    masks.locator(".lab-title").first.click()
    masks.wait_for_function("document.querySelectorAll('.mg-cell.marked').length === 0", timeout=5_000)


def test_a_slider_sets_the_rate_of_its_layer(masks: Page) -> None:
    slider = masks.get_by_label("Drop rate of layer 4")
    slider.focus()
    for _ in range(5):
        masks.keyboard.press("ArrowRight")
    plan = plan_when(masks, lambda p: p.drop_rate[3][0] == 0.25)
    assert plan.row_rates() == (0.0,) * 3 + (0.25,) + (0.0,) * 8
    assert "Stochastic" in masks.inner_text("body")


def test_row_and_column_heads_switch_a_line(masks: Page) -> None:
    masks.get_by_role("columnheader", name="Expert 2: switch in all layers").click()
    plan_when(masks, lambda p: p.experts == 84)
    masks.get_by_role("rowheader", name="Layer 1: switch all experts").click()
    plan = plan_when(masks, lambda p: p.experts == 85)
    assert plan.kept == (8,) + (7,) * 11


def test_a_pattern_replaces_the_canvas_and_can_be_painted_on(masks: Page) -> None:
    masks.locator('.card[data-id="incremental.fixed"]').click()
    plan_when(masks, lambda p: p == pattern("incremental"))
    masks.wait_for_function("document.querySelector('[data-testid=stApp]') && true")
    masks.wait_for_timeout(800)
    at = cell(masks, 1, 3)
    masks.mouse.click(at["x"], at["y"])
    plan = plan_when(masks, lambda p: p.experts == 97)
    assert plan.keep[0][2]
    assert "this one has 97" in masks.inner_text("body")


def test_the_painted_mask_survives_a_reload_and_reaches_the_run(masks: Page) -> None:
    at = cell(masks, 12, 8)
    masks.mouse.click(at["x"], at["y"])
    plan = plan_when(masks, lambda p: p.experts == 95)
    masks.reload()
    masks.wait_for_selector(".mg-cell")
    assert plan_when(masks, lambda p: p.experts == 95) == plan
    masks.get_by_role("button", name="Next: set up the run").click()
    masks.wait_for_url("**/train?mask=*")
    masks.get_by_text("Equivalent command").click()
    masks.wait_for_timeout(500)
    assert plan.code in masks.locator('[data-testid="stCode"] code').first.inner_text()


def test_undo_survives_a_reload(masks: Page) -> None:
    for layer in (3, 7):
        at = cell(masks, layer, 2)
        masks.mouse.click(at["x"], at["y"])
    plan_when(masks, lambda p: p.experts == 94)
    masks.reload()
    opened(masks)
    masks.get_by_role("button", name="Undo").click()
    assert not plan_when(masks, lambda p: p.experts == 95).keep[2][1]
    masks.get_by_role("button", name="Undo").click()
    plan_when(masks, lambda p: p.experts == 96)


def test_back_leaves_the_masks_at_once(visit: Callable[..., Page]) -> None:
    """Every stroke changes the address of the page."""
    page = visit("/runs")
    page.wait_for_function("window.hasOneEntryPerView")  # ui/history.js has loaded
    page.get_by_role("link", name="Masks").click()
    opened(page)
    for layer in (3, 7):
        at = cell(page, layer, 2)
        before = page.url
        page.mouse.click(at["x"], at["y"])
        page.wait_for_url(lambda url: "?mask=" in url and url != before)  # noqa: B023 - called before the next stroke
    edited = page.url
    page.get_by_role("button", name="Next: set up the run").click()
    page.wait_for_url("**/train?*set=*")
    page.go_back()
    page.wait_for_url("**/masks?mask=*")
    assert page.url == edited
    opened(page)
    page.go_back()
    page.wait_for_url("**/runs")


def test_quick_strokes_are_not_lost(masks: Page) -> None:
    """Three strokes before the first response of the server."""
    for layer in (2, 5, 9):
        at = cell(masks, layer, layer - 1)
        masks.mouse.click(at["x"], at["y"])
    plan = plan_when(masks, lambda p: p.experts == 93)
    assert [plan.keep[row][row - 1] for row in (1, 4, 8)] == [False] * 3
    assert masks.locator(".mg-cell.off").count() == 3
