"""The page of a race, opened through app.py, on stores whose runs were written by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs import paths, race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.ui import queries, visitor
from mlae_lab.ui.figures.race import lane_figure

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu")
PLANS = [dense(), uniform(0.5), pattern("hourglass")]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunStore]:
    """The page's store; its supervisor's place is taken, so that what is enqueued waits and no process starts."""
    store = RunStore(tmp_path / "lab")
    lock = locks.take(paths.supervisor_lock(store.folder))
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    yield store
    os.close(lock)


def measured(store: RunStore, run: Run, *accuracies: float) -> None:
    events: list[ev.Event] = [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1)]
    events += [ev.Evaluation(2 * i, 26 * i, "val", a, 1.0, 1.0) for i, a in enumerate(accuracies, 1)]
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)


def opened(runs: str | None = None) -> AppTest:
    queries.refresh()
    at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=30).run()
    at.switch_page(str(PAGES / "race.py"))
    if runs is not None:
        at.query_params["runs"] = runs
    at.run()
    assert not at.exception
    return at


def html(at: AppTest) -> str:
    return " ".join(element.proto.body for element in at.main.get("html"))


def alts(at: AppTest) -> dict[str, str]:
    found = [json.loads(e.proto.json or "{}") for e in at.main.get("bidi_component")]
    return {data["name"]: data["alt"] for data in found if "alt" in data}


def test_an_empty_store_says_what_a_race_is(store: RunStore) -> None:
    assert "No race yet" in html(opened())


def test_a_race_that_waits_then_runs_then_is_over(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2)
    link = ",".join(run.id for run in runs)
    at = opened(link)
    assert "No mask has been measured yet." in html(at)
    assert "3 masks, 2 seeds, 4 epochs each" in html(at)
    assert html(at).count("not placed yet") == 3
    assert html(at).count("seeds 0, 1") == 3
    for i, run in enumerate(runs):
        measured(store, run, 50.0, 60.0 + 3 * (i % 3) + (i > 2))
    at = opened(link)
    assert "Hourglass, fixed leads in the end with 66.5 %" in html(at)
    assert "1st, 66.5 %" in html(at)
    assert "3rd, 60.5 %" in html(at)
    assert "seeds 0, 1." in html(at)
    assert set(alts(at)) == {"race-1", "race-2", "race-3"}
    assert "Dashed: Hourglass, fixed, which leads." in alts(at)["race-1"]
    assert at.code[0].value.startswith("python -m mlae_lab race --task digits --mask 'm1_")
    assert "--seeds 2 --store " in at.code[0].value
    assert not at.warning


def test_masks_have_the_names_that_people_gave_them(store: RunStore) -> None:
    store.save_plan("Ada's <i>own</i>", PLANS[2])
    runs = race.launch(store, BASE, PLANS)
    shown = html(opened(",".join(run.id for run in runs)))
    assert "Ada&#x27;s &lt;i&gt;own" in shown
    assert "<i>own" not in shown


def test_races_are_listed(store: RunStore) -> None:
    race.launch(store, BASE, PLANS)
    race.launch(store, replace(BASE, learning_rate=0.1), PLANS[:2], seeds=3)
    shown = html(opened())
    assert shown.index("Digits, 2 masks") < shown.index("Digits, 3 masks")
    assert "0 of 6 runs over · 3 seeds" in shown


def test_two_races_with_the_same_first_run_are_listed_as_two(store: RunStore) -> None:
    race.launch(store, BASE, PLANS[:2])
    race.launch(store, BASE, [PLANS[0], PLANS[2]])
    shown = html(opened())
    assert shown.count("Digits, 2 masks") == 2
    assert "Digits, 3 masks" not in shown


def test_one_button_stops_a_race_and_another_s_only_after_a_second_click(store: RunStore) -> None:
    own = race.launch(store, BASE, PLANS)
    at = opened(",".join(run.id for run in own))
    (button,) = [b for b in at.button if b.label == "Stop the race"]
    button.click().run()
    assert {store.run(run.id).status for run in own} == {Status.STOPPED}
    assert not [b for b in at.button if b.label == "Stop the race"]
    store.keep_visitor("a-visitor-of-long-ago", nickname="Ada")
    visitor._names.clear()  # a page reads names at most once a second
    others = race.launch(store, replace(BASE, learning_rate=0.1), PLANS, owner="a-visitor-of-long-ago")
    at = opened(",".join(run.id for run in others))
    next(b for b in at.button if b.label == "Stop the race").click().run()
    assert "not yours but of Ada" in at.warning[0].value
    assert {store.run(run.id).status for run in others} == {Status.QUEUED}
    next(b for b in at.button if b.label == "Stop the race").click().run()
    assert {store.run(run.id).status for run in others} == {Status.STOPPED}


@pytest.mark.parametrize("names", ["aaaaaaaa", "../../etc", "<b>x</b>", ",", ",".join(["aaaaaaaa"] * 2 + ["bbbbbbbb"])])
def test_a_link_to_no_race_is_one_sentence(store: RunStore, names: str) -> None:
    at = opened(names)
    assert len(at.warning) == 1
    assert at.warning[0].value.startswith("This race cannot be shown: ")
    assert "<b>" not in at.warning[0].value


def test_runs_on_unequal_terms_are_one_sentence_and_their_links(store: RunStore) -> None:
    a = store.enqueue(BASE, "cpu")
    b = store.enqueue(replace(BASE, plan=PLANS[1], epochs=9), "cpu")
    at = opened(f"{a.id},{b.id}")
    assert (len(at.warning) == 1 and "numbers of epochs" in at.warning[0].value) or "epochs differ: 4 and 9" in at.warning[0].value  # fmt: skip
    assert not alts(at)


def test_a_lane_is_drawn_on_the_axes_of_all(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2)
    for run, last in zip(runs, (60.0, 70.0, 80.0, 62.0, 72.0, 82.0), strict=False):
        measured(store, run, 50.0, last)
    now = race.race(store, runs)
    first, leader = lane_figure(now, 0), lane_figure(now, 2)
    assert [trace["name"] for trace in first.data] == [
        "the leader, Hourglass, fixed", "seed 0", "seed 1", "mean of 2 seeds",
    ]  # fmt: skip
    assert first.data[-1]["y"] == [50.0, 61.0]
    assert first.data[0]["line"]["dash"] == "dash"
    assert [trace["name"] for trace in leader.data] == ["seed 0", "seed 1", "mean of 2 seeds"]
    ranges = {tuple(json.loads(lane_figure(now, n).spec)["layout"]["yaxis"]["range"]) for n in range(3)}
    assert len(ranges) == 1
