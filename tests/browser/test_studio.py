"""The canvas with mouse, keyboard and touch, and with a slow server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget, expected_active
from mlae_lab.core.edits import with_modules
from mlae_lab.core.patterns import dense, pattern, uniform
from tests.browser.canvas import cell, drag, opened, plan_when
from tests.browser.conftest import changed_app, free_port, serving
from tests.reference import copied, inverted, mirrored, shuffled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LAB = catalog.backbone("lab_vit_12x128")
LARGE = "vit_large_patch16_224.augreg_in21k"


@pytest.fixture
def masks(visit: Callable[..., Page]) -> Callable[..., Page]:
    """Return a function that opens Masks with a plan on the canvas."""
    return lambda plan, **how: opened(visit(f"/masks?mask={plan.code}", **{"height": 1700} | how))


def head(page: Page, column: int) -> dict:
    return middle(page, f'.mg-head[data-column="{column - 1}"]')


def side(page: Page, layer: int) -> dict:
    return middle(page, f'.mg-side[data-row="{layer - 1}"]')


def bar(page: Page, layer: int, p: float) -> dict:
    """Return the position of p on the drop-rate bar of a layer."""
    box = page.locator(f'.mg-track[data-slider="{layer - 1}"]').bounding_box()
    assert box is not None
    return {"x": box["x"] + box["width"] * p / 0.95, "y": box["y"] + box["height"] / 2}


def middle(page: Page, selector: str) -> dict:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def tool(page: Page, name: str) -> None:
    page.locator(".mg-bar").get_by_role("button", name=name, exact=True).click()


# ---------------------------------------------------------------- mouse


def test_strokes_over_cells_numbers_and_blocks(masks: Callable[..., Page]) -> None:
    page = masks(dense())
    drag(page, side(page, 2), side(page, 4))  # whole layers
    assert plan_when(page, lambda p: p.experts == 72).kept == (8, 0, 0, 0) + (8,) * 8
    drag(page, head(page, 1), head(page, 2))  # whole columns: some cells are absent, so all are added
    assert plan_when(page, lambda p: p.experts == 78).kept == (8, 2, 2, 2) + (8,) * 8
    page.keyboard.down("Shift")
    drag(page, cell(page, 6, 3), cell(page, 9, 5))
    page.keyboard.up("Shift")
    plan = plan_when(page, lambda p: p.experts == 66)
    assert plan.kept[5:9] == (5,) * 4
    assert not any(plan.keep[5][2:5])
    tool(page, "Block")
    drag(page, cell(page, 12, 8), cell(page, 11, 1))
    assert plan_when(page, lambda p: p.experts == 50).kept[10:] == (0, 0)


def test_two_layers_of_paint(masks: Callable[..., Page]) -> None:
    page = masks(dense())
    page.get_by_label("Brush p").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")  # 0.5 to 0.75; moving it chooses the paint
    drag(page, cell(page, 1, 1), cell(page, 1, 3))
    plan = plan_when(page, lambda p: p.drop_rate[0][2] > 0)
    assert plan.drop_rate[0] == (0.75,) * 3 + (0.0,) * 5
    assert plan.experts == 96
    label = page.locator('.mg-cell[data-row="0"][data-column="1"]').get_attribute("aria-label")
    assert label == "Layer 1, expert 2: on, drop rate 0.75"
    drag(page, bar(page, 2, 0.1), bar(page, 12, 0.9))  # one stroke across the bars
    rates = plan_when(page, lambda p: p.drop_rate[11][0] > 0).row_rates()
    assert rates[1] == 0.1
    assert rates[11] == 0.9
    assert list(rates[1:]) == sorted(rates[1:])
    assert len(set(rates[1:])) > 8
    assert page.locator('.mg-track[data-slider="11"]').get_attribute("aria-valuetext") == "0.90"


def test_a_drag_is_one_message_and_one_step_of_undo(masks: Callable[..., Page], visit: Callable[..., Page]) -> None:
    page = masks(dense())
    page.goto("about:blank")
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.go_back()
    opened(page)
    page.wait_for_timeout(1000)
    sent.clear()
    drag(page, cell(page, 3, 1), cell(page, 9, 8), cell(page, 9, 1), steps=12)
    plan_when(page, lambda p: p.experts < 96)
    page.wait_for_timeout(500)
    assert len(sent) == 1
    tool(page, "Undo")
    plan_when(page, lambda p: p == dense())


def test_the_buttons_equal_their_functions(masks: Callable[..., Page]) -> None:
    plan = pattern("incremental", "mixed", 0.3)
    page = masks(plan)
    for name, expected in (
        ("Mirror", plan := mirrored(plan)),
        ("Invert", plan := inverted(plan)),
        ("Shuffle", plan := shuffled(plan, 1)),
    ):
        tool(page, name)
        assert plan_when(page, lambda p, expected=expected: p == expected) == expected
    page.get_by_label("seed").fill("77")
    tool(page, "Shuffle")
    plan = shuffled(plan, 77)
    plan_when(page, lambda p: p == plan)
    tool(page, "Copy layer")
    page.mouse.click(**side(page, 1))
    drag(page, side(page, 10), side(page, 12))
    plan = copied(plan, 0, (9, 10, 11))
    plan_when(page, lambda p: p == plan)
    tool(page, "Clear")
    plan_when(page, lambda p: p.experts == 0)
    assert "only the head" in page.inner_text("body")
    tool(page, "Fill")
    plan_when(page, lambda p: p.experts == 168)


# ---------------------------------------------------------------- keyboard


def test_the_keyboard_selects_paints_copies_and_undoes(masks: Callable[..., Page]) -> None:
    page = masks(dense())
    page.locator('.mg-cell[data-row="0"][data-column="0"]').focus()
    for key in ("ArrowDown", "Shift+ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight", "Space"):
        page.keyboard.press(key)
    plan = plan_when(page, lambda p: p.experts == 90)
    assert plan.kept == (8, 5, 5) + (8,) * 9
    for key in ("Escape", "Control+c", "ArrowDown", "ArrowDown", "Control+v"):
        page.keyboard.press(key)
    assert plan_when(page, lambda p: p.experts == 87).keep[4] == plan.keep[2]
    for key in ("Home", "ArrowLeft", "5"):  # the layer's label is part of the grid
        page.keyboard.press(key)
    assert plan_when(page, lambda p: p.drop_rate[4][7] == 0.5).row_rates()[4] == 0.5
    page.keyboard.press("Tab")
    assert page.locator(".mg-track:focus").get_attribute("aria-label") == "Drop rate of layer 5"
    for _ in range(3):
        page.keyboard.press("Control+z")
    assert plan_when(page, lambda p: p == dense()) == dense()
    page.keyboard.press("Control+y")
    plan_when(page, lambda p: p == plan)
    page.locator('.mg-bar button[data-act="invert"]').focus()
    page.keyboard.press("Enter")
    plan_when(page, lambda p: p == inverted(plan))


def test_fifty_five_steps_back_and_forward_again(masks: Callable[..., Page]) -> None:
    """More edits than the number of URLs that the lab used to remember: none is treated as a link."""
    page = masks(dense())
    cells = [(r, c) for r in range(1, 12) for c in range(1, 6)]
    for r, c in cells:
        page.mouse.click(**cell(page, r, c))
    end = plan_when(page, lambda p: p.experts == 96 - 55)
    page.locator('.mg-cell[data-row="0"][data-column="0"]').focus()
    for _ in cells:
        page.keyboard.press("Control+z")
    plan_when(page, lambda p: p == dense())
    assert page.locator('[data-act="undo"]').get_attribute("aria-disabled") == "true"
    for _ in cells:
        page.keyboard.press("Control+Shift+z")
    assert plan_when(page, lambda p: p.experts == 96 - 55) == end
    page.wait_for_timeout(1500)
    assert plan_when(page, lambda p: True) == end
    assert page.locator(".mg-cell.off").count() == 55


# ---------------------------------------------------------------- touch


def test_touch_paints(masks: Callable[..., Page]) -> None:
    page = masks(dense(), width=800, height=2400, touch=True)
    touch = page.context.new_cdp_session(page)

    def stroke(*places: dict) -> None:
        for kind, points in [("touchStart", places[:1]), *(("touchMove", [p]) for p in places[1:]), ("touchEnd", [])]:
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    stroke(cell(page, 5, 1), cell(page, 5, 4), cell(page, 5, 8))
    assert plan_when(page, lambda p: p.experts == 88).kept[4] == 0
    stroke(bar(page, 1, 0.2), bar(page, 3, 0.2))
    assert plan_when(page, lambda p: p.drop_rate[2][0] > 0).row_rates()[:4] == (0.2, 0.2, 0.2, 0.0)
    page.touchscreen.tap(**cell(page, 12, 8))
    assert not plan_when(page, lambda p: p.experts == 87).keep[11][7]
    page.locator('[data-act="undo"]').tap()
    plan_when(page, lambda p: p.experts == 88)


# ---------------------------------------------------------------- canvases of other sizes


@pytest.mark.parametrize("width", [1280, 800])
def test_twenty_four_layers_of_sixteen(width: int, visit: Callable[..., Page]) -> None:
    page = opened(visit(f"/masks?mask={dense(24, 16).code}&set=backbone:{LARGE}", width=width, height=2600))
    assert page.locator(".mg-cell").count() == 384
    overflow = page.locator(".mg-scroll").evaluate("scroll => scroll.scrollWidth - scroll.clientWidth")
    assert overflow <= 0, "the canvas is cut"
    assert page.locator(".mg-cell").first.bounding_box()["width"] >= 21
    drag(page, cell(page, 24, 16), cell(page, 24, 1))
    assert plan_when(page, lambda p: p.experts == 368).kept == (16,) * 23 + (0,)
    assert "384" in page.inner_text("body")


def test_two_kinds_of_layers_and_another_width_and_back(masks: Callable[..., Page]) -> None:
    start = pattern("hourglass")
    page = masks(start, height=2600)
    page.get_by_role("button", name="mlp.fc1").click()
    two_kinds = with_modules(start, LAB, ("attn.qkv", "mlp.fc1"))
    plan_when(page, lambda p: p == two_kinds)
    page.locator(".mg-cell").nth(24 * 14 - 1).wait_for()
    assert page.locator(".mg-group").all_inner_texts() == [
        "attn.qkv, from input to output", "mlp.fc1, from input to output"
    ]  # fmt: skip
    page.wait_for_timeout(500)
    drag(page, side(page, 13), side(page, 15))  # fc1 of blocks 1 to 3
    plan = plan_when(page, lambda p: p.kept[12:15] == (0, 0, 0))
    assert plan.kept[:12] == start.kept
    assert "1 fc1, 2 fc1, 3 fc1 keep no expert" in page.inner_text("body")
    assert f"{budget(plan, LAB.shapes(plan.targets)).parameters:,}" in page.inner_text("body")
    tool(page, "Undo")
    plan_when(page, lambda p: p == two_kinds)
    tool(page, "Undo")
    plan_when(page, lambda p: p == start)
    page.get_by_label("Experts per layer", exact=True).fill("16")
    page.keyboard.press("Enter")
    plan_when(page, lambda p: p.columns == 16)
    page.locator(".mg-cell").nth(12 * 16 - 1).wait_for()
    tool(page, "Undo")
    plan_when(page, lambda p: p == start)
    page.wait_for_timeout(1000)
    assert plan_when(page, lambda p: True) == start
    assert page.get_by_label("Experts per layer", exact=True).input_value() == "14"


# ---------------------------------------------------------------- no lost edits


def test_a_stroke_just_before_leaving_is_kept_and_can_be_undone_on_return(masks: Callable[..., Page]) -> None:
    page = masks(dense())
    page.mouse.click(**cell(page, 3, 3))
    page.get_by_role("link", name="Train", exact=True).click()
    page.wait_for_url("**/train*")
    page.get_by_text("95 experts in 12 layers").wait_for(timeout=30_000)
    page.get_by_role("link", name="Masks", exact=True).click()
    page.wait_for_url("**/masks*")
    opened(page)
    assert plan_when(page, lambda p: p.experts == 95).kept[2] == 7
    tool(page, "Undo")
    plan_when(page, lambda p: p == dense())


def test_three_drags_in_flight_while_the_script_is_slow(chromium: Browser, tmp_path: Path) -> None:
    """Each script run takes two extra seconds: every drag but the first comes during one."""
    with serving(tmp_path, free_port(), **changed_app(tmp_path, delay=1.0)) as url:
        page = chromium.new_page(viewport={"width": 1280, "height": 1700})
        try:
            page.goto(f"{url}/masks?mask={dense().code}")
            opened(page)
            page.wait_for_timeout(1500)
            for layer in (1, 4, 7):
                drag(page, cell(page, layer, 1), cell(page, layer, 8))
            drag(page, bar(page, 9, 0.5), bar(page, 12, 0.5))
            page.mouse.click(**cell(page, 2, 2))
            painted = [(8, 7)[layer == 2] * (layer not in (1, 4, 7)) for layer in range(1, 13)]
            plan = plan_when(page, lambda p: p.experts == sum(painted) and p.drop_rate[11][0] > 0)
            assert plan.kept == tuple(painted)
            assert plan.drop_rate[8:] == ((0.5,) * 8,) * 4
            page.wait_for_timeout(2500)  # late messages overwrite nothing
            assert plan_when(page, lambda p: True) == plan
            assert page.locator(".mg-cell.off").count() == 96 - plan.experts
        finally:
            page.close()


# ---------------------------------------------------------------- sampled masks


def test_a_hundred_samples_converge_to_the_expected_number(masks: Callable[..., Page]) -> None:
    page = masks(uniform(0.3), motion=True)
    status, play = page.locator(".ms-now"), page.locator('.ms [data-act="play"]')
    assert "Expected: 67.2 of 96" in status.inner_text()
    play.click()
    status.filter(has_text=re.compile("Sample [3-9] of 100")).wait_for()
    play.click()
    shown = status.inner_text()
    page.wait_for_timeout(500)
    assert status.inner_text() == shown
    assert play.inner_text() == "Continue"
    page.emulate_media(reduced_motion="reduce")  # with reduced motion the end is shown at once
    play.click()
    match = re.search(r"Sample 100 of 100: .* Mean so far ([\d.]+), expected ([\d.]+)", status.inner_text())
    assert match
    assert float(match[2]) == pytest.approx(expected_active(uniform(0.3)))
    assert abs(float(match[1]) - float(match[2])) < 4 * (96 * 0.3 * 0.7 / 100) ** 0.5  # four standard deviations
