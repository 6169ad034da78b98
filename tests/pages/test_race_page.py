"""Races on the page Race and on the page of their study, opened through app.py, on stores whose runs were written by
hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import archive_file, presets, standings, studies
from mlae_lab.runs.standings import Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui.figures.race import lane_figure
from tests.lab import figures, html, measured, open_page

opened = partial(open_page, "race")

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu")
PLANS = [dense(), uniform(0.5), pattern("hourglass")]
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def started(
    store: RunStore, plans: list[MaskPlan] = PLANS, seeds: int = 1, config: RunConfig = BASE
) -> tuple[str, list[Run]]:
    """A race: the id of its study, and its queued runs, seed by seed."""
    study = study_presets.race(config, plans, seeds)
    name = presets.launch(store, study).id
    return name, presets.runs_of(store, name, study)


def state(store: RunStore, name: str) -> Race:
    race = standings.race(store, studies.state(store, name))
    assert race is not None
    return race


def test_empty_store_explains_a_race(store: RunStore) -> None:
    assert "No race yet" in html(opened())


def test_race_queued_and_finished_on_its_page_and_by_an_old_link(store: RunStore) -> None:
    name, runs = started(store, seeds=2)
    at = open_page("studies", study=name)
    assert "No mask has been evaluated yet." in html(at)
    assert html(at).count("no rank yet") == 3
    assert html(at).count("seeds 0, 1") == 3
    for i, run in enumerate(runs):
        measured(store, run, 50.0, 60.0 + 3 * (i % 3) + (i > 2))
    link = ",".join(run.id for run in runs)
    of_study, of_link = open_page("studies", study=name), opened(runs=link)
    for at in (of_study, of_link):
        assert "Hourglass, fixed leads at the end with 66.5 %" in html(at)
        assert "1st, 66.5 %" in html(at)
        assert "3rd, 60.5 %" in html(at)
        assert "seeds 0, 1." in html(at)
        assert {"race-1", "race-2", "race-3"} <= set(figures(at))
        assert "Dashed: Hourglass, fixed, the leader." in figures(at)["race-1"]
        assert not at.warning
    assert "No arm can be distinguished from Dense with 2 seeds." in html(of_study)
    assert "3 masks, 2 seeds, 4 epochs each" in html(of_link)


def test_two_masks_are_shown_cell_by_cell_and_over_epochs(store: RunStore) -> None:
    name, runs = started(store, PLANS[:2])
    for run, last in zip(runs, (60.0, 62.5), strict=True):
        measured(store, run, 50.0, last)
    at = open_page("studies", study=name)
    assert "A is Dense, B is Uniform, p = 0.5." in html(at)
    assert "96 with another drop rate" in figures(at)["mask-difference"]
    assert "B − A: +2.5 points, one pair" in figures(at)["difference"]


def test_masks_have_their_saved_names(store: RunStore) -> None:
    store.save_plan("Ada's <i>own</i>", PLANS[2])
    _, runs = started(store)
    shown = html(opened(runs=",".join(run.id for run in runs)))
    assert "Ada&#x27;s &lt;i&gt;own" in shown
    assert "<i>own" not in shown


def test_studies_that_compare_masks_are_listed(store: RunStore) -> None:
    started(store)
    started(store, PLANS[:2], 3, replace(BASE, learning_rate=0.1))
    presets.launch(store, study_presets.repeats(BASE, (0, 1)))
    shown = html(opened())
    assert shown.index("Digits, 2 masks") < shown.index("Digits, 3 masks")
    assert "0 of 6 runs are done · 3 seeds" in shown
    assert "Digits, 1 mask" not in shown


@pytest.mark.parametrize("names", ["aaaaaaaa", "../../etc", "<b>x</b>", ",", ",".join(["aaaaaaaa"] * 2 + ["bbbbbbbb"])])
def test_link_to_no_race_shows_one_sentence(store: RunStore, names: str) -> None:
    at = opened(runs=names)
    assert len(at.warning) == 1
    assert at.warning[0].value.startswith("This race cannot be shown: ")
    assert "<b>" not in at.warning[0].value


def test_runs_that_differ_in_settings_show_one_sentence_and_links(store: RunStore) -> None:
    a = store.enqueue(BASE, "cpu")
    b = store.enqueue(replace(BASE, plan=PLANS[1], epochs=9), "cpu")
    at = opened(runs=f"{a.id},{b.id}")
    (warning,) = at.warning
    assert "epochs differ: 4 and 9" in warning.value
    assert not figures(at)


def test_a_lane_is_drawn_on_the_axes_of_all(store: RunStore) -> None:
    name, runs = started(store, seeds=2)
    for run, last in zip(runs, (60.0, 70.0, 80.0, 62.0, 72.0, 82.0), strict=False):
        measured(store, run, 50.0, last)
    now = state(store, name)
    first, leader = lane_figure(now, 0), lane_figure(now, 2)
    assert [trace["name"] for trace in first.data] == [
        "the leader, Hourglass, fixed",
        "seed 0",
        "seed 1",
        "mean of 2 seeds",
    ]
    assert first.data[-1]["y"] == [50.0, 61.0]
    assert first.data[0]["line"]["dash"] == "dash"
    assert [trace["name"] for trace in leader.data] == ["seed 0", "seed 1", "mean of 2 seeds"]
    assert json.loads(first.spec)["layout"]["annotations"][0]["text"] == "61.0"
    ranges = {tuple(json.loads(lane_figure(now, n).spec)["layout"]["yaxis"]["range"]) for n in range(3)}
    assert len(ranges) == 1


def test_the_number_on_the_line_is_that_of_the_headline(store: RunStore) -> None:
    """A lane that is ahead of the others, and a lane whose second seed is not compared."""
    name, runs = started(store, PLANS[:2], seeds=2)
    measured(store, runs[0], 50.0, 100.0)
    measured(store, runs[1], 60.0, 70.0)
    measured(store, runs[2], 55.0, 80.0)
    now = state(store, name)
    assert "leads after epoch 4 of 4 with 100.0 %" in now.headline
    assert json.loads(lane_figure(now, 0).spec)["layout"]["annotations"][0]["text"] == "100.0"
    name, ahead = started(store, PLANS[:2], config=replace(BASE, learning_rate=0.1))
    measured(store, ahead[0], 99.5, 100.0)
    measured(store, ahead[1], 90.0, status=Status.STOPPED)
    now = state(store, name)
    assert "leads after epoch 2 of 4 with 99.5 %" in now.headline
    figure = lane_figure(now, 0)
    label = json.loads(figure.spec)["layout"]["annotations"][0]
    assert (label["x"], label["y"], label["text"]) == (2, 99.5, "99.5")
    assert "99.5 % after epoch 2" in figure.alt


def test_a_race_without_an_archived_run_shows_the_others(store: RunStore) -> None:
    _, runs = started(store)
    for run in runs:
        measured(store, run, 50.0, 60.0)
    archive_file.archive(store, runs[0].id)
    at = opened(runs=",".join(run.id for run in runs))
    assert f"Run {runs[0].id} of this race" in at.info[0].value
    assert set(figures(at)) == {"race-1", "race-2"}
    assert not at.warning
