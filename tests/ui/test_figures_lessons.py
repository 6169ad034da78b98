"""Figures of the lessons, drawn from their recordings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlae_lab.lessons import LESSONS, lesson, recording
from mlae_lab.lessons.recording import Results
from mlae_lab.ui.figures import LiveCurve, LiveValues, answer_figure, class_guess_figure, lesson_curves_figure
from mlae_lab.ui.figures.lessons import cells_estimate

CHOSEN: dict[str, Any] = {
    "what-experts-add": [30.0, 90.0],
    "where-to-learn": 11,
    "what-p-does": [60.0, 50.0, 40.0, 30.0],
    "alike-or-different": "up",
    "which-experts-matter": [[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]],
    "is-it-better": ["B", 5],
}


def recorded(name: str) -> Results:
    results = recording.results(lesson(name))
    assert results is not None
    return results


@pytest.mark.parametrize("name", CHOSEN)
def test_guess_and_truth_are_in_one_figure(name: str) -> None:
    results = recorded(name)
    value = results.lesson.guess.checked(CHOSEN[name])
    assert value is not None
    without = answer_figure(results, value, LiveValues())
    arms = {arm.name: [(0, results.mean(arm.name)), (1, results.mean(arm.name))] for arm in results.lesson.arms}
    live = answer_figure(results, value, LiveValues({} if results.lesson.whatif else arms, 1.5))
    assert "this machine" not in without.spec
    assert ("yours, evaluated now" if results.lesson.whatif else "run on this machine") in live.spec
    assert "our " in without.spec.lower(), "the guess is named"
    assert without.alt.endswith(".")
    for drawn in (without, live):
        numbers = [y for trace in drawn.data for y in trace["y"]]
        assert numbers
        low, high = json.loads(drawn.spec)["layout"]["yaxis"]["range"]
        assert all(low <= y <= high for trace in drawn.data if trace["type"] == "scatter" for y in trace["y"])


def test_titles_say_what_came_out() -> None:
    probe, experts = (recorded("what-experts-add").mean(arm) for arm in ("probe", "experts"))
    title = json.loads(answer_figure(recorded("what-experts-add"), [probe, experts - 10], LiveValues()).spec)
    assert title["layout"]["title"]["text"] == "Your guess and the result: off by 0 and 10 points"
    assert "your guess was not correct" in answer_figure(recorded("alike-or-different"), "up", LiveValues()).alt
    assert "your guess was correct" in answer_figure(recorded("alike-or-different"), "down", LiveValues()).alt
    results = recorded("which-experts-matter")
    losses = results.whatif["loss"]
    expected = results.whatif["trained"]["loss"] + losses[0][0] + losses[3][4]
    assert cells_estimate(results, [[0, 0], [3, 4]]) == pytest.approx(expected)


def test_curves_show_the_recorded_run_and_the_real_one() -> None:
    results = recorded("what-p-does")
    alone = lesson_curves_figure(results, [("p0.5", 3)], [])
    assert [trace["name"] for trace in alone.data] == ["p = 0.5, recorded"]
    pair = lesson_curves_figure(
        results, [("p0.5", 3)], [LiveCurve("p0.5", 0, 3, ((1, 40.0),), ((0.5, 20.0), (1.2, 41.0)))]
    )
    assert pair.data[2]["x"] == [pytest.approx(33.33)]
    assert json.loads(pair.spec)["layout"]["title"]["text"] == "The real run and a recorded one"


@pytest.mark.parametrize("name", CHOSEN)
def test_the_class_is_shown_for_every_form_of_guess(name: str) -> None:
    guess = lesson(name).guess
    value = guess.checked(CHOSEN[name])
    drawn = class_guess_figure(guess, [value, value, value])
    assert drawn.alt.startswith("3 guesses in this lab")
    assert drawn.name == "lesson-class"


def test_every_lesson_is_drawn() -> None:
    assert list(CHOSEN) == [entry.name for entry in LESSONS]
