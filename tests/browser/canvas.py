"""Helpers of the browser tests of the canvas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlae_lab.core.plan import MaskPlan

if TYPE_CHECKING:
    from playwright.sync_api import Page

AT_REST = '[data-test-script-state="notRunning"]'


def cell(page: Page, layer: int, expert: int) -> dict:
    """Return the centre of a cell on the screen."""
    box = page.locator(f'.mg-cell[data-row="{layer - 1}"][data-column="{expert - 1}"]').bounding_box()
    assert box is not None
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def plan_when(page: Page, condition: Callable[[MaskPlan], bool]) -> MaskPlan:
    """Return the plan that the server has, from the page's one-line code, once it meets the condition."""
    for _ in range(600):  # a run of another test may use all cores
        code = page.locator('[data-testid="stCode"] code').first.inner_text().strip()
        plan = MaskPlan.from_code(code)
        if condition(plan):
            page.wait_for_selector(AT_REST)
            return plan
        page.wait_for_timeout(100)
    raise AssertionError(f"the page still has {code}")


def opened(page: Page) -> Page:
    """Return the page Masks once its canvas is stable and its script is through, which may write its address late."""
    page.wait_for_selector(".mg-cell")
    page.wait_for_selector(AT_REST)
    page.locator(".mg").scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    return page


def drag(page: Page, *points: dict, steps: int = 2) -> None:
    """Drag the mouse over points on the screen; few steps mean a fast movement."""
    page.mouse.move(**points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(**point, steps=steps)
    page.mouse.up()
