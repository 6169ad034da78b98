"""The lessons: their texts, their guesses, their recordings and their worksheets."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlae_lab.lessons import LESSONS, LessonError, lesson, recording, worksheet
from mlae_lab.lessons.guess import Arrow, Cells, Curve, Row, Sliders, Verdict, counts
from mlae_lab.lessons.lesson import Lesson
from mlae_lab.lessons.recording import Recording, RecordingError, Results
from tests.reading import grade

EACH = pytest.mark.parametrize("entry", LESSONS, ids=lambda entry: entry.name)


def recorded(entry: Lesson, task: str = "") -> Results:
    results = recording.results(entry, task)
    assert results is not None, recording.state(entry)
    return results


@EACH
def test_a_recording_agrees_with_the_code(entry: Lesson) -> None:
    state = recording.state(entry)
    assert (state.word, state.reason) == ("recorded", "")
    assert state.recording is not None
    assert {run.seed for run in state.recording.runs} == {0, 1, 2}
    assert state.recording.commit
    assert state.recording.machine
    assert set(state.recording.versions) == {"python", "torch", "timm"}
    for task in entry.tasks:
        results = recorded(entry, task)
        assert all(len(results.runs(arm.name)) == 3 for arm in entry.arms_of(task))


def test_a_recording_notices_a_changed_run() -> None:
    entry = lesson("is-it-better")
    known = recorded(entry).recording
    arm = replace(entry.arms[0], config=replace(entry.arms[0].config, epochs=4))
    changed = replace(entry, arms=(arm, *entry.arms[1:]))
    assert recording.outdated(changed, known) == "the settings of a on fashion with seed 0 have changed since"
    more = replace(entry, arms=(*entry.arms, replace(arm, name="c")))
    assert recording.outdated(more, known) == "it has no run of c on fashion with seed 0"


def test_a_recording_of_another_format_or_a_damaged_one_is_refused() -> None:
    known = recorded(lesson("is-it-better")).recording
    assert Recording.from_json(known.to_json()) == known
    for text in (known.to_json().replace('"format":1', '"format":2'), known.to_json()[:-20], "[]", '{"format":1}'):
        with pytest.raises(RecordingError):
            Recording.from_json(text)


@EACH
def test_the_texts_are_easy_to_read(entry: Lesson) -> None:
    results = recorded(entry)
    transfer = entry.transfer(results)
    texts = [entry.title, entry.summary, *entry.background, entry.question, *entry.reveal(results), transfer.question]
    texts += [text for option in transfer.options for text in (option.text, option.feedback)]
    texts += [entry.teacher.teaches, entry.teacher.ask, *(text for pair in entry.teacher.wrong for text in pair)]
    assert grade(" ".join(texts)) <= 10


def test_the_grade_of_known_texts() -> None:
    assert grade("The cat sat on the mat.") < 1
    sentence = "Parameter-efficient adaptation methodologies necessitate comprehensive experimental characterisation."
    assert grade(sentence) > 20


@EACH
def test_the_transfer_question_has_one_correct_answer(entry: Lesson) -> None:
    for task in entry.tasks:
        transfer = entry.transfer(recorded(entry, task))
        verdicts = [option.feedback.startswith("Yes") for option in transfer.options]
        assert verdicts == [i == transfer.correct for i in range(len(transfer.options))]


@EACH
def test_a_lesson_trains_at_most_six_runs_for_any_guess(entry: Lesson) -> None:
    values = range(12) if isinstance(entry.guess, Row) else [None]
    for value in values:
        for task in entry.tasks:
            assert len(entry.live_runs(value, task)) <= 6
    assert len({other.name for other in LESSONS}) == len(LESSONS)


def test_an_unknown_lesson() -> None:
    with pytest.raises(LessonError, match="'nothing' is not a lesson: choose what-experts-add, "):
        lesson("nothing")


@pytest.mark.parametrize(
    ("guess", "fine", "bad"),
    [
        (Sliders((("a", "A"), ("b", "B"))), [10, 90.5], [[10], [10, 101], [10, None], [True, 1], "10", None]),
        (Row(("x",) * 12), 11, [12, -1, 1.0, True, "1", None]),
        (Curve((0, 0.5, 0.9), ("a", "b", "c"), "p"), [40, 20], [[40], [40, float("nan")], [40, -1], {}, None]),
        (Arrow("similarity"), "down", ["left", 1, None]),
        (Cells(2), [[0, 1], [11, 7]], [[[0, 1]], [[0, 1], [0, 1]], [[0, 1], [12, 0]], [[0, 1], [0]], "ab", None]),
        (Verdict("a", "b", ("A", "B")), ["cannot tell", 5], [["C", 5], ["A", 0], ["A", 21], ["A"], None]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_guess_from_a_browser_is_checked(guess: Sliders | Row, fine: object, bad: list) -> None:
    value = guess.checked(fine)
    assert value is not None
    assert guess.words(value)
    assert [guess.checked(entry) for entry in bad] == [None] * len(bad)


def test_answers_are_counted() -> None:
    assert counts(Arrow("x"), ["up", "down", "up"]) == {"rises": 2, "falls": 1}
    assert counts(Row(("a", "b")), [1, 1]) == {"1": 0, "2": 2}
    assert counts(Verdict("a", "b", ("A", "B")), [["B", 3]]) == {"A": 0, "B": 1, "cannot tell": 0}


class _Page(HTMLParser):
    """The addresses that a page loads, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]


@EACH
def test_a_worksheet_is_self_contained_and_has_no_answers(entry: Lesson) -> None:
    results = recorded(entry)
    text = worksheet.page(entry, results)
    parser = _Page()
    parser.feed(text)
    assert parser.addresses == []
    assert not parser.tags & {"script", "link", "iframe", "object", "img"}
    assert not re.search(r"@import|url\(", text)
    transfer = entry.transfer(results)
    for wanted in (entry.title, "Your guess", "Why?", *(option.text for option in transfer.options)):
        assert wanted in text
    for answer in (*entry.reveal(results), *(option.feedback for option in transfer.options)):
        assert answer not in text


def test_lessons_are_installed_with_the_package() -> None:
    assert '"lessons/*"' in (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
