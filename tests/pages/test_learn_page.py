"""The page Learn, opened through app.py: the list, one lesson through all its steps, a teacher's link."""

from __future__ import annotations

from functools import partial

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core import events as ev
from mlae_lab.lessons import LESSONS, recording
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import queries
from tests.lab import figures, html, open_page

opened = partial(open_page, "learn")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts
NAME = "lesson_is-it-better"


def press(at: AppTest, part: str) -> None:
    queries.refresh()  # what the test did to the store counts at once
    at.button(key=f"{NAME}_{part}").click().run()
    assert not at.exception


def text(at: AppTest) -> str:
    """The HTML of the page, with ordinary spaces."""
    return html(at).replace("\u00a0", " ")


def finish(store: RunStore, run: str, accuracy: float) -> None:
    """Give a run of a lesson its three evaluations."""
    started = ev.Started(1, 1, 1, 800, 200, 150, "cpu", "float32", 0.1)
    evaluations = [ev.Evaluation(i, 50 * i, "val", accuracy, 1.0, float(i)) for i in (1, 2, 3)]
    store.append(run, [started, *evaluations])
    store.move(run, Status.FINISHED)


def test_the_list_names_every_lesson_and_its_state(store: RunStore) -> None:
    at = opened()
    shown = html(at)
    for entry in LESSONS:
        assert entry.summary in shown
    assert shown.count("not started") == len(LESSONS)


def test_a_lesson_from_the_guess_to_the_last_question(store: RunStore) -> None:
    at = opened(lesson="is-it-better")
    assert 'class="now" aria-current="step">Your guess' in html(at)
    assert at.button(key=f"{NAME}_commit").disabled
    at.radio(key=f"{NAME}_guess_verdict").set_value("B").run()
    at.text_input(key=f"{NAME}_reason").set_value("it is <new>").run()
    press(at, "commit")
    shown = text(at)
    assert "Your guess: B (p = 0.1) is better; 3 seeds needed. Because: it is &lt;new&gt;" in shown
    assert "The run is about to start. The recorded run carries the lesson." in shown
    assert figures(at)["lesson-curves"].startswith("Line chart of accuracy over training. Recorded")
    runs = store.runs()
    assert len(runs) == 6
    assert {run.relation for run in runs} == {"lesson"}
    assert store.predictions("is-it-better", "fashion") == [["B", 3]]

    press(at, "answer")
    shown, drawn = text(at), figures(at)
    results = recording.results(next(entry for entry in LESSONS if entry.name == "is-it-better"))
    assert results is not None
    for sentence in results.lesson.reveal(results):
        assert sentence in shown
    assert "Your guess: B (p = 0.1) is better; 3 seeds needed; these seeds say: cannot tell" in drawn["lesson-answer"]
    assert drawn["lesson-class"] == "1 guess in this lab: B 1."
    at.text_area(key=f"{NAME}_sentence").set_value("Ask for the interval.").run()

    for run in runs:  # now the real runs are over
        finish(store, run.id, 80.0 + run.config.seed)
    press(at, "question")
    assert "All 6 runs are over" in html(at)
    at.radio(key=f"{NAME}_option").set_value(0).run()
    press(at, "check")
    assert at.warning[0].value.startswith("Perhaps")
    at.radio(key=f"{NAME}_option").set_value(1).run()
    press(at, "check")
    assert at.success[0].value.startswith("Yes")

    press(at, "back")
    assert at.text_area(key=f"{NAME}_sentence").value == "Ask for the interval."
    at.button(key=f"{NAME}_again").click().run()
    at.radio(key=f"{NAME}_guess_verdict").set_value("A").run()
    press(at, "commit")
    assert len(store.runs()) == 6, "equal runs are shared"
    assert "All 6 runs are over" in html(at)
    assert len(store.predictions("is-it-better", "fashion")) == 1, "one guess of a session counts"


def test_a_run_that_failed_leaves_the_lesson_to_the_recorded_one(store: RunStore) -> None:
    at = opened(lesson="is-it-better")
    at.radio(key=f"{NAME}_guess_verdict").set_value("A").run()
    press(at, "commit")
    first = store.runs()[-1]
    store.move(first.id, Status.FAILED, "the disk is full")
    press(at, "answer")
    assert "A run failed: the disk is full. The recorded run carries the lesson." in html(at)


def test_a_teachers_link_hides_parts_and_a_wrong_one_is_explained(store: RunStore) -> None:
    at = opened(lesson="is-it-better", hide="navigation,reason,class,nonsense")
    assert "stSidebar" in html(at)
    assert not [field for field in at.text_input if field.label.startswith("Why?")]
    at.radio(key=f"{NAME}_guess_verdict").set_value("cannot tell").run()
    press(at, "commit")
    press(at, "answer")
    assert "lesson-class" not in figures(at)
    assert opened(lesson="is-it-better", task="digits").warning[0].value.endswith("choose fashion.")
    assert "is not a lesson" in opened(lesson="nothing").warning[0].value


def test_notes_for_teachers_and_the_link(store: RunStore) -> None:
    at = opened(view="teachers")
    shown = html(at)
    for entry in LESSONS:
        assert entry.teacher.wrong[0][0] in shown
    at.selectbox(key="lesson_link_name").set_value("alike-or-different").run()
    at.selectbox(key="lesson_link_task_alike-or-different").set_value("dsprites_loc_rendered").run()
    assert at.code[0].value == "/learn?lesson=alike-or-different&task=dsprites_loc_rendered&hide=navigation"
