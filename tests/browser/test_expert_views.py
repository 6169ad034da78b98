"""The views of the Experts page that compare runs, and a run without experts, in a real browser: nothing is cut off,
the URL keeps choices, and saved files are valid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.model.adapter_file import read_adapter
from mlae_lab.runs import presets
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.browser.conftest import CHOSEN
from tests.lab import end_probe, finished

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.browser.conftest import Lab

CUT = """() => { const main = document.querySelector('[data-testid="stMain"]');
    const edge = main.getBoundingClientRect().right;
    const inWide = (e) => { for (let p = e.parentElement; p && p !== main; p = p.parentElement)
        if (/auto|scroll/.test(getComputedStyle(p).overflowX)) return true; return false; };
    const out = [...main.querySelectorAll('text, img, button, p, svg.main-svg')].filter((e) =>
        e.getBoundingClientRect().right > edge + 1 && !inWide(e));
    return [main.scrollWidth - main.clientWidth, out.map((e) => e.textContent.slice(0, 40))]; }"""
AT_REST = '[data-test-script-state="notRunning"]:not(:has([data-testid="stProgress"]))'
WAIT = 120_000  # the probe process loads torch first


@pytest.fixture(scope="module")
def runs(lab: Lab, pair: tuple[str, str]) -> Iterator[dict[str, str]]:
    """A masked run, its dense pair, another seed of the masked run, and a linear probe, all finished."""
    store: RunStore = lab.store
    runs_by_name = {
        "masked": pair[0],
        "dense": pair[1],
        "seed": finished(store, replace(CHOSEN, seed=1)),
        "head": finished(store, replace(CHOSEN, method="linear")),
    }
    yield runs_by_name
    for name in runs_by_name.values():
        end_probe(store, name)


@pytest.fixture(scope="module")
def diversity(lab: Lab) -> str:
    """A study with two seeds at p = 0.5, all ten runs finished, with synthetic values: tests check how it is drawn."""
    base = RunConfig(
        "digits", backbone="lab_vit_12x128.random", epochs=2, evaluations=1, device="cpu", precision="float32"
    )
    study = study_presets.diversity(base, (0.5,), seeds=2)
    for cell in study.cells():
        arm, seed = dict(study.arm(cell.arm).values)["dropout"], cell.seed
        cosine = {"dense": 0.2, "expert": 0.1, "token": 0.3, "lora": 0.2}[arm] + 0.01 * seed
        tile = ((1.0, cosine), (cosine, 1.0))
        run = lab.store.enqueue(cell.config, device="cpu")
        lab.store.append(run.id, [
            ev.Started(1, 1, 1, 800, 200, 26, "cpu", "float32", 0.1),
            ev.SimilarityStats(2, (cosine,) * 12, (cosine + 0.001 * seed * (arm == "expert"),) * 12, (tile,) * 12,
                               (5.0 + seed,) * 12, (2.0,) * 12),
            ev.Evaluation(2, 26, "val", 70.0 + seed, 1.0, 1.0),
        ])  # fmt: skip
        lab.store.move(run.id, Status.FINISHED)
    return presets.launch(lab.store, study).id  # with these runs, none is started


def settled(page: Page, figures: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('.gtitle').length >= {figures}", timeout=WAIT)
    page.wait_for_timeout(800)
    assert page.locator("[data-testid='stException'], :text('Component Error')").count() == 0


def choose(page: Page, field: Locator, option: str) -> None:
    """Open a list and choose an option. The list closes when results move the page: then try again."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    deadline = time.monotonic() + WAIT / 1000
    while True:
        field.click()
        try:
            page.get_by_role("option").filter(has_text=option).click(timeout=3000)
            return
        except PlaywrightTimeout:
            assert time.monotonic() < deadline, page.inner_text(".stMain")


@pytest.mark.parametrize(("view", "figures"), [("similarity", 9), ("errors", 4), ("seeds", 1)])
def test_nothing_is_cut_in_a_narrow_dark_window(
    view: str, figures: int, runs: dict[str, str], visit: Callable[..., Page]
) -> None:
    other = {"similarity": "dense", "errors": "seed"}.get(view)  # dense is correct on the same images: no figure
    page = visit(f"/experts?run={runs['masked']}&view={view}" + (f"&other={runs[other]}" if other else ""),
                 scheme="dark", width=800)  # fmt: skip
    settled(page, figures)
    assert page.evaluate(CUT) == [0, []]


def test_two_runs_are_compared_and_the_link_keeps_them(runs: dict[str, str], visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=similarity&other={runs['dense']}")
    settled(page, 9)
    assert page.evaluate(CUT) == [0, []]
    titles = " ".join(page.locator(".gtitle").all_text_contents())
    assert "Effective rank of ΔW" in titles
    assert "in the other run" in titles
    assert "The spaces of both runs overlap" in titles
    assert f"other={runs['dense']}" in page.url


def test_another_seed_of_the_run_is_included(runs: dict[str, str], visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=seeds")
    settled(page, 1)
    page.locator("table tr", has_text=runs["seed"]).wait_for()
    assert page.locator("table tr", has_text=runs["masked"]).count() == 1


def test_a_linear_probe_has_views_without_experts(runs: dict[str, str], visit: Callable[..., Page]) -> None:
    page = visit(f"/train?run={runs['head']}")
    page.get_by_text("Open the analysis").click()
    page.get_by_text("the head only").wait_for(timeout=60_000)
    page.get_by_text("This run (linear probe) has no experts").wait_for(timeout=WAIT)
    tabs = page.locator('[role="radiogroup"][aria-label="View"] button').all_inner_texts()
    assert [text.strip() for text in tabs] == ["Predict", "Errors", "Seeds"]
    assert page.locator(".lab-examples figure").count() == 7
    page.locator('[role="radiogroup"] button', has_text="Errors").click()
    settled(page, 3)
    assert page.evaluate(CUT) == [0, []]


def test_experts_are_switched_off_on_one_image(runs: dict[str, str], visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=predict&images=5")
    page.get_by_text("Prediction stays").or_(page.get_by_text("Prediction changes")).first.wait_for(timeout=WAIT)
    page.get_by_role("button", name="All experts of layer 12", exact=True).click()
    page.wait_for_url("**off=L12**")
    page.wait_for_function(
        "[...document.querySelectorAll('.gtitle')]"
        ".some((t) => /Prediction (stays .* points|changes from)/.test(t.textContent))",
        timeout=WAIT,
    )
    page.get_by_text("Apply to all evaluation images").click()
    page.wait_for_url("**view=whatif**")
    page.get_by_text("As trained", exact=True).wait_for(timeout=WAIT)
    page.wait_for_selector(AT_REST, timeout=WAIT)  # until then the grid of the previous view is shown too
    assert "off=L12" in page.url
    assert page.locator('.es-cell[aria-pressed="false"]').count() == 2


def test_remaining_experts_are_exported_as_a_smaller_adapter(
    lab: Lab, runs: dict[str, str], visit: Callable[..., Page]
) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=whatif&off=L12E1")
    page.get_by_text("As trained", exact=True).wait_for(timeout=WAIT)
    page.get_by_role("button", name="Export a smaller adapter").click()
    page.get_by_role("button", name="Create").click()
    page.locator('[data-testid="stDownloadButton"] button').wait_for(timeout=60_000)
    with page.expect_download(timeout=60_000) as saved:
        page.locator('[data-testid="stDownloadButton"] button').first.click()
    smaller = read_adapter(Path(saved.value.path()))
    whole = read_adapter(lab.store.paths(runs["masked"]).adapter)
    assert smaller.plan.experts == whole.plan.experts - 1 == 4


def test_two_runs_are_evaluated_under_the_same_random_masks(runs: dict[str, str], visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=importance")
    page.get_by_text("Under random masks").wait_for(timeout=WAIT)
    choose(page, page.locator(".st-key-four_robustness").get_by_role("combobox").last, runs["dense"])
    page.get_by_role("button", name="Evaluate").click()
    page.wait_for_function(
        f"[...document.querySelectorAll('text')].some((t) => t.textContent.includes('{runs['dense']}'))",
        timeout=3 * WAIT,
    )
    page.get_by_text("Seed 0 for every run").wait_for(state="attached", timeout=WAIT)
    page.locator("details", has_text="Seed 0 for every run").locator("summary").click()
    page.get_by_text("Seed 0 for every run").wait_for(timeout=WAIT)
    assert page.locator("[data-testid='stException'], :text('Component Error')").count() == 0


def test_the_experiment_shows_its_verdict(runs: dict[str, str], diversity: str, visit: Callable[..., Page]) -> None:
    page = visit(f"/experts?run={runs['masked']}&view=diversity", scheme="dark", width=800)
    page.get_by_text("the claim that masking makes experts less similar").first.wait_for(timeout=60_000)
    settled(page, 4)
    assert page.evaluate(CUT) == [0, []]
