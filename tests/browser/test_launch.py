"""The library and a race in real browsers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation, pattern
from mlae_lab.runs import commands, presets

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from mlae_lab.core.plan import MaskPlan
    from tests.browser.conftest import Lab

TINY = RunConfig(
    "digits", backbone="lab_vit_12x128.random", epochs=2, batch_size=200, device="cpu", precision="float32"
)  # fmt: skip
PLANS = [allocation((1,)), allocation((2,), drop_rate=0.5)]


def canvas_is(page: Page, plan: MaskPlan) -> None:
    """Wait until the URL, which follows the canvas, contains this mask."""
    page.wait_for_function(
        "code => new URLSearchParams(location.search).get('mask') === code", arg=plan.code, timeout=60_000
    )


def test_a_saved_mask_is_listed_after_a_reload_and_in_another_browser(visit: Callable[..., Page], lab: Lab) -> None:
    plan = pattern("hourglass")
    first = visit(f"/masks?mask={plan.code}", height=1600)
    first.get_by_role("button", name="Save this mask").click()
    first.get_by_label("Name of the mask").fill("Sand glass")
    first.get_by_label("Name of the mask").press("Enter")
    first.get_by_role("button", name="Save", exact=True).click()
    first.locator(".card", has_text="Sand glass").wait_for(timeout=30_000)
    first.get_by_label("Name of the mask").wait_for(state="hidden", timeout=10_000)
    first.reload()
    first.locator(".card", has_text="Sand glass").wait_for(timeout=30_000)
    assert [entry.plan for entry in lab.store.plans() if entry.name == "Sand glass"] == [plan]

    second = visit("/masks", height=1600)
    second.locator(".card", has_text="Sand glass").click()
    second.get_by_role("button", name="Put on the canvas").click()
    canvas_is(second, plan)
    second.get_by_role("button", name="Delete", exact=True).click()
    second.get_by_text("Delete this mask for everyone?").wait_for(timeout=30_000)
    assert any(entry.name == "Sand glass" for entry in lab.store.plans())


def test_a_mask_is_imported_and_a_malformed_one_changes_nothing(visit: Callable[..., Page]) -> None:
    page = visit(f"/masks?mask={pattern('dense').code}", height=1600)
    page.get_by_role("button", name="Import a mask").click()
    field = page.get_by_label("A mask as one line, or a link")
    field.fill("m1_12x8_zz*12_0*12")
    field.press("Enter")
    page.get_by_role("button", name="Put the line on the canvas").press("Enter")
    page.get_by_text("is not a row of 8 experts in hexadecimal").wait_for(timeout=30_000)
    canvas_is(page, pattern("dense"))
    assert field.input_value() == "m1_12x8_zz*12_0*12"
    field.fill(pattern("protruding").code)
    field.press("Enter")
    page.get_by_role("button", name="Put the line on the canvas").press("Enter")
    canvas_is(page, pattern("protruding"))


def test_a_race_is_shown_to_its_end(visit: Callable[..., Page], lab: Lab) -> None:
    study = study_presets.race(TINY, PLANS)
    name = presets.launch(lab.store, study).id
    runs = presets.runs_of(lab.store, name, study)
    try:
        page = visit(f"/studies?study={name}", width=800)
        page.get_by_text("no rank yet").first.wait_for(timeout=30_000)
        page.wait_for_function(
            "() => /at the end/.test(document.querySelector('.race-headline')?.textContent ?? '')", timeout=180_000
        )
        assert page.locator(".race-lane").count() == 2
        assert page.locator(".race-lane .rank").first.inner_text()[0] in "12"
        page.wait_for_function(
            "document.querySelectorAll('.st-key-race_lanes .js-plotly-plot').length === 2", timeout=60_000
        )
        assert (
            page.evaluate(
                "document.querySelector('.stMain').scrollWidth - document.querySelector('.stMain').clientWidth"
            )
            <= 0
        )
        page.get_by_role("link", name="Compare the two runs").click()
        page.wait_for_url("**/compare?a=*", timeout=30_000)
    finally:
        for run in runs:
            commands.stop(lab.store, run.id, now=True)


def test_one_click_starts_a_race_of_three_masks(visit: Callable[..., Page], lab: Lab) -> None:
    before = {run.id for run in lab.store.runs()}
    settings = "backbone:lab_vit_12x128.random,epochs:1,batch-size:200,device:cpu,seed:77"
    page = visit(f"/train?task=digits&mask={pattern('decremental').code}&set={settings}", height=1600)
    page.get_by_text("A race", exact=True).click()
    page.get_by_role("button", name="Start the race of 3 masks").click()
    page.wait_for_url("**/studies?study=*", timeout=60_000)
    new = [run.id for run in lab.store.runs() if run.id not in before]
    try:
        assert len(new) == 3
        page.locator(".race-lane").first.wait_for(timeout=30_000)
        assert page.locator(".race-lane").first.inner_text().startswith("Decremental, fixed")
    finally:
        for run in new:
            commands.stop(lab.store, run, now=True)
