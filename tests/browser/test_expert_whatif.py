"""From a run to what-if to reset, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import probe
from mlae_lab.runs.store import Run
from tests.lab import end_probe, finished

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Lab

PLAN = allocation((0,) * 9 + (2, 3, 2), drop_rate=0.5)


@pytest.fixture(scope="module")
def run(lab: Lab) -> Iterator[Run]:
    """A finished run in the lab's store; its probe process ends with the tests."""
    config = RunConfig("digits", PLAN, backbone="lab_vit_12x128.random", epochs=1, device="cpu", learning_rate=5e-3)
    run_id = finished(lab.store, config)
    yield lab.store.run(run_id)
    end_probe(lab.store, run_id)


def fact(page: Page, name: str) -> str:
    """Return the number with that name on the page."""
    return page.locator(".lab-facts div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, page.inner_text(".stMain")
        page.wait_for_timeout(100)


def test_from_a_run_to_what_if_to_reset(lab: Lab, run: Run, visit: Callable[..., Page]) -> None:
    adapter = lab.store.paths(run.id).adapter
    before = adapter.read_bytes()
    page = visit(f"/experts?run={run.id}")
    page.get_by_text("What if", exact=True).click()
    page.get_by_text("As trained", exact=True).wait_for(timeout=120_000)
    first = fact(page, "As trained"), fact(page, "Now"), fact(page, "Loss")
    assert first[0] == first[1] == f"{lab.store.last(run.id, Evaluation).accuracy:.1f} %"
    assert page.locator(".es-cell").count() == 7
    assert page.locator(".es-none").count() == 12 * 3 - 7

    page.get_by_role("button", name="Layer 11, expert 2", exact=True).click()
    page.get_by_role("button", name="All experts of layer 12", exact=True).click()
    page.wait_for_url(re.compile("off=L11E2(,|%2C)L12"))
    arguments = {"off": "L11E2,L12", "scale": 1.0, "images": 200}
    expected = probe.wait(lab.store, run.id, "whatif", arguments).value
    shown = [f"{expected['now']['accuracy']:.1f} %", f"{expected['flipped']} of 200"]
    wait_for(page, lambda: [fact(page, "Now"), fact(page, "Images that flip")] == shown)
    assert fact(page, "Loss").endswith(f"{expected['now']['loss']:.3f}")
    assert page.locator('.es-cell[aria-pressed="false"]').count() == 3

    first_cell, last_cell = (page.locator(".es-cell").nth(i).bounding_box() for i in (2, 4))  # a drag over layer 11
    page.mouse.move(first_cell["x"] + 8, first_cell["y"] + 8)
    page.mouse.down()
    page.mouse.move(last_cell["x"] + 8, last_cell["y"] + 8, steps=2)
    page.mouse.up()
    page.wait_for_url(re.compile("off=L11(,|%2C)L12|off=L12$"))
    assert page.locator('.es-cell[aria-pressed="false"]').count() == 5
    page.keyboard.press("Control+z")  # one step: the drag
    page.wait_for_url(re.compile("off=L11E2(,|%2C)L12"))
    wait_for(page, lambda: [fact(page, "Now"), fact(page, "Images that flip")] == shown)

    link = visit(page.url.removeprefix(lab.url))  # another visitor opens the link
    link.get_by_text("As trained", exact=True).wait_for(timeout=60_000)
    assert link.locator('.es-cell[aria-pressed="false"]').count() == 3
    assert fact(link, "Now") == fact(page, "Now") == shown[0]

    page.get_by_role("button", name="Reset", exact=True).click()
    wait_for(page, lambda: "off=" not in page.url and fact(page, "Change") == "none")
    assert (fact(page, "As trained"), fact(page, "Now"), fact(page, "Loss")) == first
    assert page.locator('.es-cell[aria-pressed="false"]').count() == 0
    assert fact(link, "Now") == shown[0]  # the other visitor's state is separate
    assert adapter.read_bytes() == before


def test_switches_work_from_the_keyboard(run: Run, visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={run.id}&view=whatif")
    page.get_by_text("As trained", exact=True).wait_for(timeout=120_000)
    page.get_by_role("button", name="Layer 10, expert 1", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_url(re.compile("off=L11E2"))
    page.keyboard.press("Space")
    wait_for(page, lambda: "off=" not in page.url)


@pytest.mark.parametrize("view", ["whatif", "importance"])
def test_nothing_is_cut_in_a_narrow_window(run: Run, visit: Callable[..., Page], view: str) -> None:
    page = visit(f"/experts?run={run.id}&view={view}", width=800, scheme="dark")
    shown = page.get_by_text("As trained" if view == "whatif" else "Margin:").first
    shown.wait_for(state="attached", timeout=120_000)  # the second one is behind "How is this computed?"
    assert page.evaluate(
        "(() => { const m = document.querySelector('.stMain'); return m.scrollWidth <= m.clientWidth + 1; })()"
    )
