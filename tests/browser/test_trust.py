"""Runs in the browser: stopped, resumed, moved in the queue, deleted; a killed worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import commands
from mlae_lab.runs.status import Status

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Lab

LONG = RunConfig(
    "digits", allocation((2, 2), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=10_000, evaluations=500,
    batch_size=16, device="cpu", precision="float32",
)  # fmt: skip


def shows(page: Page, word: str) -> None:
    page.wait_for_function(
        "word => [...document.querySelectorAll('.lab-status')].some(s => s.textContent === word)",
        arg=word,
        timeout=90_000,
    )


def test_two_visitors_stop_and_resume_one_run(visit: Callable[..., Page], lab: Lab) -> None:
    run = commands.launch(lab.store, LONG).id
    try:
        first, second = visit(f"/train?run={run}"), visit(f"/train?run={run}")
        for page in (first, second):
            shows(page, "running")
        first.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 2", timeout=90_000)
        first.get_by_role("button", name="Stop and keep").click()
        shows(first, "stopped")
        shows(second, "stopped")  # without a click
        step = lab.store.last(run, TrainStep)
        assert isinstance(step, TrainStep)
        second.get_by_role("button", name="Resume").dblclick()
        shows(second, "running")
        shows(first, "running")
        second.get_by_role("button", name="Stop now").click()
        second.get_by_role("button", name="Yes, stop now").click()
        shows(second, "stopped")
        events = [s.event.step for s in lab.store.events(run, TrainStep)]
        assert events == list(range(1, len(events) + 1))
        assert len(events) >= step.step
        assert len([r for r in lab.store.runs() if r.parent == run]) == 0
    finally:
        commands.stop(lab.store, run, now=True)


def test_the_queue_is_ordered_by_hand_and_a_link_to_a_deleted_run_says_so(visit: Callable[..., Page], lab: Lab) -> None:
    runs = [commands.launch(lab.store, replace(LONG, seed=seed)).id for seed in range(4)]
    try:
        page = visit("/runs")
        page.get_by_text("Active and queued").wait_for(timeout=30_000)
        assert [run.id for run in lab.store.queue()] == runs[1:]
        page.locator(f".st-key-runs_row_{runs[3]}").get_by_role("button", name="Move").click()
        page.get_by_role("button", name="First").click()
        page.wait_for_timeout(1500)
        page.keyboard.press("Escape")
        # the runs have no known owner, so moving one asks nothing
        assert [run.id for run in lab.store.queue()] == [runs[3], runs[1], runs[2]]
        page.locator(f".st-key-runs_row_{runs[1]}").get_by_role("button", name="Cancel").click()
        page.wait_for_timeout(1500)
        assert lab.store.run(runs[1]).status is Status.STOPPED
        page.get_by_label(f"Select {runs[1]}", exact=True).check()
        row = page.locator(".st-key-runs_selected")
        row.get_by_role("button", name="More").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Yes, delete").click()
        page.wait_for_timeout(1500)
        gone = visit(f"/train?run={runs[1]}")
        gone.get_by_text(f"Run {runs[1]} was deleted on").wait_for(timeout=30_000)
    finally:
        for run in runs:
            if run in [r.id for r in lab.store.runs()]:
                commands.stop(lab.store, run, now=True)


def test_stopping_the_run_of_another_visitor_asks_first(visit: Callable[..., Page], lab: Lab) -> None:
    lab.store.keep_visitor("a-visitor-of-long-ago", nickname="Ada")
    run = commands.launch(lab.store, LONG, owner="a-visitor-of-long-ago").id
    try:
        page = visit(f"/train?run={run}")
        shows(page, "running")
        page.get_by_role("button", name="Stop now").click()
        page.get_by_text("This run belongs to Ada").wait_for(timeout=30_000)
        assert lab.store.run(run).status is Status.RUNNING
        page.get_by_role("button", name="Yes, stop now").click()
        shows(page, "stopped")
    finally:
        commands.stop(lab.store, run, now=True)


def test_a_run_killed_from_outside_is_lost_with_its_reason(visit: Callable[..., Page], lab: Lab) -> None:
    run = commands.launch(lab.store, LONG).id
    page = visit(f"/train?run={run}")
    shows(page, "running")
    os.kill(lab.store.run(run).pid, signal.SIGKILL)
    shows(page, "lost")
    page.get_by_text("was killed by SIGKILL").wait_for(timeout=15_000)
    page.get_by_text("Last lines of the log").wait_for(timeout=15_000)


def test_running_runs_are_shown_on_every_page_of_a_second_browser(visit: Callable[..., Page], lab: Lab) -> None:
    run = commands.launch(lab.store, LONG).id
    try:
        for path in ("/", "/task", "/masks", "/experts", "/compare", "/doctor", "/runs"):
            page = visit(path)
            link = page.locator(".st-key-run_strip").get_by_role("link").first
            link.wait_for(timeout=30_000)
        link.click()
        page.wait_for_url(f"**/train?run={run}", timeout=20_000)
        shows(page, "running")
    finally:
        commands.stop(lab.store, run, now=True)
