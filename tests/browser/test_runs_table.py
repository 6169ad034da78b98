"""The table of runs in a browser: select, tag, sort, filter by link, open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Page

from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import uniform
from mlae_lab.runs.status import Status
from tests.browser.conftest import Lab
from tests.lab import measured


@pytest.fixture
def runs(lab: Lab) -> Iterator[list[str]]:
    """Sixty finished runs of three masks, accuracies 1 to 60."""
    rates = (0.1, 0.4, 0.7)
    configs = [replace(FIRST_RUN, plan=uniform(rates[number % 3]), seed=900 + number) for number in range(60)]
    names = [
        measured(lab.store, lab.store.enqueue(config, "cpu", data_folder=""), 1.0 + number).id
        for number, config in enumerate(configs)
    ]
    yield names
    for name in names:
        if lab.store.holds(name):
            lab.store.delete(name)


def test_sixty_runs_are_sorted_selected_tagged_and_opened(
    runs: list[str], lab: Lab, visit: Callable[..., Page]
) -> None:
    page = visit("/runs?where=seed>=900 and drop_rate>0.3")
    page.get_by_text("40 runs", exact=True).wait_for(timeout=60_000)
    page.get_by_role("button", name="Accuracy").click()
    first = page.locator(".runs tbody tr").first
    page.wait_for_function(
        "() => document.querySelector('.stApp') && location.search.includes('sort=-accuracy')", timeout=30_000
    )
    first.get_by_text("60.0 % val").wait_for()
    assert page.locator(".runs tbody td.image img").count() == 40
    for run in (runs[59], runs[58]):
        page.get_by_label(f"Select {run}", exact=True).check()
    page.get_by_text("2 of 40 runs selected").wait_for()
    page.get_by_role("link", name="Compare", exact=True).last.wait_for()
    page.get_by_role("button", name="Tag", exact=True).click()
    page.get_by_role("combobox", name="Tags").fill("by hand")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # closes the list of tags, which covers the buttons
    page.get_by_role("button", name="Add to all").click()
    page.get_by_text("Changed: 2 runs.").wait_for(timeout=30_000)
    assert [lab.store.run(run).tags for run in (runs[59], runs[58], runs[57])] == [("by hand",), ("by hand",), ()]
    page.get_by_text("2 of 40 runs selected").wait_for()  # a drawing keeps the selection
    page.get_by_role("button", name="Select all 40 runs").click()
    page.get_by_text("40 runs selected", exact=True).wait_for(timeout=30_000)
    page.get_by_role("button", name="Clear selection").click()
    page.get_by_role("link", name=f"Open run {runs[59]}").click()
    page.wait_for_url(f"**/train?run={runs[59]}", timeout=30_000)


def test_what_a_filter_hides_is_not_selected_any_more(runs: list[str], visit: Callable[..., Page]) -> None:
    page = visit("/runs?where=seed>=950")
    page.get_by_text("10 runs", exact=True).wait_for(timeout=60_000)
    for run in (runs[55], runs[56]):  # p = 0.4 and 0.7
        page.get_by_label(f"Select {run}", exact=True).check()
    page.get_by_text("2 of 10 runs selected").wait_for()
    page.get_by_text("2 runs selected", exact=True).wait_for()  # the panel
    where = page.get_by_label("Filter", exact=True)
    hidden, all_of_them = "seed>=950 and drop_rate>0.5", "seed>=950"
    for text, shown in ((hidden, "1 of 4 runs selected"), (all_of_them, "1 of 10 runs selected")):
        where.fill(text)
        where.press("Enter")
        page.get_by_text(shown).wait_for(timeout=30_000)
    page.get_by_text("2 runs selected", exact=True).wait_for(state="detached")
    page.get_by_role("textbox", name="Notes").wait_for()  # the panel of one run


@pytest.fixture
def finished_study(lab: Lab) -> Iterator[list[str]]:
    """Sixty finished runs, ten drop rates with six seeds each, from 700 on."""
    base = replace(FIRST_RUN, epochs=4, evaluations=2, device="cpu")
    configs = [replace(base, plan=uniform(rate / 20), seed=700 + seed) for seed in range(6) for rate in range(1, 11)]
    names = [
        measured(lab.store, lab.store.enqueue(config, "cpu", data_folder=""), 50.0, 60.0 + number % 17).id
        for number, config in enumerate(configs)
    ]
    yield names
    for stored in lab.store.studies():
        if set(lab.store.study_cells(stored.id).values()) & set(names):
            lab.store.delete_study(stored.id)
    for name in names:
        lab.store.delete(name)


def test_forty_of_sixty_runs_become_a_study(finished_study: list[str], lab: Lab, visit: Callable[..., Page]) -> None:
    page = visit("/runs?where=seed>=700 and seed<706&group=drop_rate", height=1600)
    page.get_by_text("Drop rate p: 0.05").wait_for(timeout=60_000)
    page.get_by_role("button", name="Next").click()
    page.get_by_text("51 to 60 of 60").wait_for(timeout=30_000)
    where = page.get_by_label("Filter", exact=True)
    where.fill("seed>=700 and seed<704")
    where.press("Enter")
    page.get_by_role("button", name="Select all 40 runs").click()
    page.get_by_text("40 runs selected", exact=True).wait_for(timeout=30_000)
    page.get_by_role("button", name="Make a study").click()
    page.get_by_text("10 arms × 4 seeds: 40 of 40 runs are there, 0 would be trained.").wait_for(timeout=30_000)
    page.get_by_role("button", name="Create the study").click()
    page.locator("h1", has_text="Mask on").wait_for(timeout=30_000)
    dots = page.locator("[role='figure'][aria-label*='Dot plot of accuracy']")
    dots.first.wait_for(timeout=60_000)
    assert page.locator(".arms tbody tr").count() == 10
    page.get_by_label("Show uniform, stochastic (p = 0.5) in the figures").uncheck()
    page.get_by_text("1 of 10 arms hidden").wait_for()
    page.wait_for_function(
        """() => [...document.querySelectorAll("[role='figure'][aria-label*='Dot plot of accuracy']")].every((figure) =>
            !figure.getAttribute("aria-label").includes("p = 0.5)"))""",
        timeout=30_000,
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="Table as CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 41, "a line for each run"
    assert {run.status for run in lab.store.runs() if run.id in finished_study} == {Status.FINISHED}
