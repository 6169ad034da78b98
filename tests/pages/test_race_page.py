"""The page of a race, opened through app.py, on stores whose runs were written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.runs import archive_file, race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import visitor
from mlae_lab.ui.figures.race import lane_figure
from tests.lab import figures, html, measured, open_page

opened = partial(open_page, "race")

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu")
PLANS = [dense(), uniform(0.5), pattern("hourglass")]
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def test_empty_store_explains_a_race(store: RunStore) -> None:
    assert "No race yet" in html(opened())


def test_race_queued_running_and_finished(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2)
    link = ",".join(run.id for run in runs)
    at = opened(runs=link)
    assert "No mask has been evaluated yet." in html(at)
    assert "3 masks, 2 seeds, 4 epochs each" in html(at)
    assert html(at).count("no rank yet") == 3
    assert html(at).count("seeds 0, 1") == 3
    for i, run in enumerate(runs):
        measured(store, run, 50.0, 60.0 + 3 * (i % 3) + (i > 2))
    at = opened(runs=link)
    assert "Hourglass, fixed leads at the end with 66.5 %" in html(at)
    assert "1st, 66.5 %" in html(at)
    assert "3rd, 60.5 %" in html(at)
    assert "seeds 0, 1." in html(at)
    assert set(figures(at)) == {"race-1", "race-2", "race-3"}
    assert "Dashed: Hourglass, fixed, the leader." in figures(at)["race-1"]
    assert at.code[0].value.startswith("python -m mlae_lab race --task digits --mask 'm1_")
    assert "--seeds 2 --store " in at.code[0].value
    assert not at.warning


def test_masks_have_their_saved_names(store: RunStore) -> None:
    store.save_plan("Ada's <i>own</i>", PLANS[2])
    runs = race.launch(store, BASE, PLANS)
    shown = html(opened(runs=",".join(run.id for run in runs)))
    assert "Ada&#x27;s &lt;i&gt;own" in shown
    assert "<i>own" not in shown


def test_races_are_listed(store: RunStore) -> None:
    race.launch(store, BASE, PLANS)
    race.launch(store, replace(BASE, learning_rate=0.1), PLANS[:2], seeds=3)
    shown = html(opened())
    assert shown.index("Digits, 2 masks") < shown.index("Digits, 3 masks")
    assert "0 of 6 runs have ended · 3 seeds" in shown


def test_two_races_with_the_same_first_run_are_listed_as_two(store: RunStore) -> None:
    race.launch(store, BASE, PLANS[:2])
    race.launch(store, BASE, [PLANS[0], PLANS[2]])
    shown = html(opened())
    assert shown.count("Digits, 2 masks") == 2
    assert "Digits, 3 masks" not in shown


def test_the_stop_button_of_another_persons_race_asks_first(store: RunStore) -> None:
    own = race.launch(store, BASE, PLANS)
    at = opened(runs=",".join(run.id for run in own))
    (button,) = [b for b in at.button if b.label == "Stop the race"]
    button.click().run()
    assert {store.run(run.id).status for run in own} == {Status.STOPPED}
    assert not [b for b in at.button if b.label == "Stop the race"]
    store.keep_visitor("a-visitor-of-long-ago", nickname="Ada")
    visitor._names.clear()  # a page reads names at most once a second
    others = race.launch(store, replace(BASE, learning_rate=0.1), PLANS, owner="a-visitor-of-long-ago")
    at = opened(runs=",".join(run.id for run in others))
    next(b for b in at.button if b.label == "Stop the race").click().run()
    assert "belongs to Ada" in at.warning[0].value
    assert {store.run(run.id).status for run in others} == {Status.QUEUED}
    next(b for b in at.button if b.label == "Yes, stop the race").click().run()
    assert {store.run(run.id).status for run in others} == {Status.STOPPED}


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
    runs = race.launch(store, BASE, PLANS, seeds=2)
    for run, last in zip(runs, (60.0, 70.0, 80.0, 62.0, 72.0, 82.0), strict=False):
        measured(store, run, 50.0, last)
    now = race.race(store, runs)
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
    runs = race.launch(store, BASE, PLANS[:2], seeds=2)
    measured(store, runs[0], 50.0, 100.0)
    measured(store, runs[1], 60.0, 70.0)
    measured(store, runs[2], 55.0, 80.0)
    now = race.race(store, runs)
    assert "leads after epoch 4 of 4 with 100.0 %" in now.headline
    assert json.loads(lane_figure(now, 0).spec)["layout"]["annotations"][0]["text"] == "100.0"
    ahead = race.launch(store, replace(BASE, learning_rate=0.1), PLANS[:2])
    measured(store, ahead[0], 99.5, 100.0)
    measured(store, ahead[1], 90.0, status=Status.STOPPED)
    now = race.race(store, ahead)
    assert "leads after epoch 2 of 4 with 99.5 %" in now.headline
    figure = lane_figure(now, 0)
    label = json.loads(figure.spec)["layout"]["annotations"][0]
    assert (label["x"], label["y"], label["text"]) == (2, 99.5, "99.5")
    assert "99.5 % after epoch 2" in figure.alt


def test_a_race_without_an_archived_run_shows_the_others(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS)
    for run in runs:
        measured(store, run, 50.0, 60.0)
    archive_file.archive(store, runs[0].id)
    assert "Digits, 2 masks" in html(opened())
    at = opened(runs=",".join(run.id for run in runs))
    assert f"Run {runs[0].id} of this race" in at.info[0].value
    assert set(figures(at)) == {"race-1", "race-2"}
    assert not at.warning
