"""First use: Home, one click, a run followed to its end, its experts. The run has fewer epochs than the lab's first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation
from mlae_lab.runs import commands
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.browser.conftest import Lab, changed_app, free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLOTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(p => ({
    title: p.layout.title.text, traces: p.data.map(t => ({ type: t.type, name: t.name, y: t.y, z: t.z })),
    box: p.getBoundingClientRect().toJSON(),
    ink: p.querySelectorAll('path.js-line, .heatmaplayer image, .point').length }))"""

GRID = """() => { const svg = document.querySelector('.lb-grid svg'),
    fills = [...svg.querySelectorAll('g > rect:nth-child(2)')];
    return { box: svg.getBoundingClientRect().toJSON(),
        tips: [...svg.querySelectorAll('g > desc')].map(t => t.textContent),
        fills: fills.map(r => r.getAttribute('fill')), sizes: fills.map(r => Number(r.getAttribute('width'))) }; }"""
TILES = """[...document.querySelectorAll('.lb-tiles svg rect[rx="1"]')].map(r => r.getAttribute('fill'))"""


def plots(page: Page) -> dict[str, dict]:
    """Return what Plotly has drawn, by the first word of the title."""
    return {plot["title"].split()[0].rstrip(":"): plot for plot in page.evaluate(PLOTS)}


SHORTER = """
from dataclasses import replace
from mlae_lab.core import defaults

defaults.FIRST_RUN = replace(defaults.FIRST_RUN, epochs=4, evaluations=4)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server on a separate store, whose first run has 4 epochs."""
    folder = tmp_path_factory.mktemp("first")
    assert FIRST_RUN.epochs > 4
    with serving(folder, free_port(), **changed_app(folder, SHORTER)) as url:
        yield Lab(url, RunStore(folder / "store"), folder / "data", None)


@pytest.fixture(scope="module")
def finished(lab: Lab) -> dict:
    """Written by the first test, read by the others."""
    return {}


def test_one_click_starts_a_run_that_is_shown_to_its_end(visit: Callable[..., Page], lab: Lab, finished: dict) -> None:
    page = visit("/")
    start = time.monotonic()
    page.get_by_role("button", name="… on Digits").click()
    page.wait_for_url("**/train?run=*", timeout=20_000)
    run_id = page.url.rsplit("=", 1)[1]
    page.wait_for_selector(".lab-status.live", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('.lb .js-plotly-plot').length === 3", timeout=180_000)
    # the node that shows accuracy must stay the same to the end: nothing is rebuilt
    page.evaluate("window.kept = document.querySelector('.js-plotly-plot')")
    page.evaluate("window.kept.dataset.mark = 'same'")
    page.wait_for_selector(".lab-status.good", timeout=300_000)
    elapsed = time.monotonic() - start
    page.wait_for_timeout(2500)
    finished["run"] = run_id
    assert page.evaluate("window.kept.isConnected && window.kept.dataset.mark") == "same"

    run = lab.store.run(run_id)
    measured = [s.event for s in lab.store.events(run_id, Evaluation)]
    assert run.status is Status.FINISHED
    assert run.config.task == "digits"
    assert len(measured) == 4
    last = measured[-1]
    assert isinstance(last, Evaluation)
    assert last.accuracy > 50, "ten classes: the random baseline is 10 %"
    print(f"click to final accuracy: {elapsed:.0f} s, {last.accuracy:.1f} %")

    shown = page.evaluate(PLOTS)
    accuracy = next(p for p in shown if "validation images" in p["title"])
    assert f"{last.accuracy:.1f} %" in accuracy["title"]
    curve = next(t for t in accuracy["traces"] if t["name"] == "200 validation images")
    assert curve["y"] == [round(m.accuracy, 2) for m in measured]
    loss = next(p for p in shown if p["title"].startswith("Loss"))
    assert len(loss["traces"][1]["y"]) > 50
    for plot in (accuracy, loss):
        assert plot["ink"] > 0, plot["title"]
        assert plot["box"]["width"] > 250, plot["title"]
        assert plot["box"]["height"] > 150, plot["title"]
    cells, tiles = page.evaluate(GRID), page.evaluate(TILES)
    assert cells["box"]["width"] > 250
    assert len(cells["tips"]) == 96
    assert len(set(cells["tips"])) == 96
    assert all("contribution" in tip and "not evaluated" not in tip for tip in cells["tips"])
    assert len(set(cells["fills"])) > 20
    assert min(cells["sizes"]) > 0
    assert len(set(cells["sizes"])) > 20
    assert len(tiles) == 12 * 8 * 7
    assert "none" not in tiles
    predictions = page.locator(".lb-album li b").all_inner_texts()
    assert len(predictions) == 12
    assert all(text[0] in "✓✗" for text in predictions)
    screenshots = os.environ.get("MLAE_LAB_SCREENSHOTS")
    if screenshots:
        page.set_viewport_size({"width": 1280, "height": 1240})
        page.mouse.move(5, 5)  # away from the charts, which show buttons under the mouse
        page.wait_for_timeout(800)
        page.screenshot(path=Path(screenshots) / "live-bench.png")


def test_its_experts_page_shows_them(visit: Callable[..., Page], finished: dict) -> None:
    if not finished:
        pytest.fail("the run of the test before this one is needed")
    page = visit(f"/train?run={finished['run']}")
    page.get_by_role("link", name="Open its experts").click()
    page.wait_for_url(f"**/experts?run={finished['run']}*", timeout=20_000)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 6", timeout=60_000)
    titles = {p["title"].split(":")[0] for p in page.evaluate(PLOTS)}
    assert {"Largest contribution", "Largest change of λ", "Largest gradient", "Experts of a layer"} <= titles
    assert any(title.startswith("Most similar in layer") for title in titles)


def test_a_reload_and_a_second_browser_see_the_same_run(visit: Callable[..., Page], finished: dict) -> None:
    if not finished:
        pytest.fail("the run of the first test is needed")
    for _ in range(2):
        page = visit(f"/train?run={finished['run']}")
        page.wait_for_function("document.querySelectorAll('.lb .js-plotly-plot').length === 3", timeout=60_000)
        assert page.locator(".lab-status.good").count() == 1
        page.reload()
        page.wait_for_function("document.querySelectorAll('.lb .js-plotly-plot').length === 3", timeout=60_000)


def test_zoom_survives_new_points(visit: Callable[..., Page], lab: Lab) -> None:
    """A live run continues while a user has zoomed in; the chosen range stays."""
    run = commands.launch(lab.store, replace(FIRST_RUN, task="digits", epochs=200, evaluations=200))
    try:
        page = visit(f"/train?run={run.id}")
        page.wait_for_function("document.querySelectorAll('.lb .js-plotly-plot').length === 3", timeout=180_000)
        curve = (
            "[...document.querySelectorAll('.js-plotly-plot')].find(p => p.data[1].name === '200 validation images')"
        )
        page.evaluate(f"{curve}.querySelector('.nsewdrag').scrollIntoView({{block: 'center'}})")
        page.wait_for_timeout(400)
        box = page.evaluate(f"{curve}.querySelector('.nsewdrag').getBoundingClientRect().toJSON()")
        page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 20)  # away from the labels at the end of the curves
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.7, steps=5)
        page.wait_for_timeout(1500)  # slow: at least one refresh comes during the drag
        page.mouse.up()
        page.wait_for_timeout(500)
        chosen = page.evaluate(f"{curve}.layout.yaxis.range")
        assert 5 < chosen[0] < chosen[1] < 100, "the drag zoomed in"
        before = page.evaluate(f"{curve}.data[1].y.length")
        page.wait_for_function(f"{curve}.data[1].y.length > {before}", timeout=90_000)
        assert page.evaluate(f"{curve}.layout.yaxis.range") == chosen
        page.get_by_role("button", name="Stop and keep").click()
        page.wait_for_function(
            "[...document.querySelectorAll('.lab-status')].some(s => s.textContent === 'stopped')", timeout=60_000
        )
    finally:
        commands.stop(lab.store, run.id, now=True)
