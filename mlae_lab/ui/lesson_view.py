"""One lesson: guess, training, answer, one more question."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from mlae_lab.core import catalog
from mlae_lab.core.events import SimilarityStats
from mlae_lab.core.expert_state import off_text
from mlae_lab.lessons import LESSONS, recording, worksheet
from mlae_lab.lessons.guess import Cells
from mlae_lab.lessons.lesson import Lesson
from mlae_lab.lessons.recording import Results
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import lesson_runs, supervisor
from mlae_lab.runs.error_messages import EXPECTED_ERRORS
from mlae_lab.runs.lesson_runs import LessonRun
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, StoreError
from mlae_lab.ui import figures, page, queries, terms, visitor
from mlae_lab.ui.expert_views.query_result import answer
from mlae_lab.ui.figures import LiveCurve, LiveValues
from mlae_lab.ui.guess_view import guess_widget
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.navigation import link

GUESS, TRAINING, ANSWER, QUESTION = range(4)
_STEPS = ("Your guess", "Training", "The answer", "One more question")
# What a teacher's link can hide (`?hide=reason,class`).
HIDEABLE = {
    "navigation": "the sidebar and all links to other pages",
    "reason": "the field for a reason",
    "sentence": "the field for a sentence in one's words",
    "class": "what others guessed",
    "question": "the last question",
    "lab": "the link into the lab",
    "worksheet": "the worksheet",
}
_TEXT_LENGTH = 300  # characters of a reason or a sentence
_SLOW_SECONDS = 90.0
_CLASS_HOURS = 3  # of guesses that the histogram shows: those of one class, not those of last week
_CLASS_SECONDS = 3.0  # between two drawings of it, while others still guess
_WIDTHS = (2, 3)  # text, figure; equal in all steps, so that a figure keeps its width
_STATE = "lesson_progress"


@dataclass
class Progress:
    """Where this session is in a lesson.

    Attributes:
        step: Index of the step.
        draft: The guess before it is committed.
        guess: The committed guess, None before.
        reason: Given with the guess.
        sentence: The answer in the person's words.
        choice: Index of the chosen option of the last question, None before.
        runs: Ids of the runs that train for the guess.
        trouble: Why they could not be started.
        is_done: Whether the last question was answered.
        is_counted: Whether the guess is among those of the lab.
    """

    step: int = GUESS
    draft: Any = None
    guess: Any = None
    reason: str = ""
    sentence: str = ""
    choice: int | None = None
    runs: tuple[str, ...] = ()
    trouble: str = ""
    is_done: bool = False
    is_counted: bool = False

    @property
    def word(self) -> str:
        return "done" if self.is_done else "not started" if self.guess is None else "started"


def progress(lesson: Lesson, task: str = "") -> Progress:
    """The progress of this session in a lesson. task: by default the lesson's first."""
    known = st.session_state.setdefault(_STATE, {})
    return known.setdefault(f"{lesson.name}:{task or lesson.tasks[0]}", Progress())


def draw(lesson: Lesson, task: str, hidden: Collection[str]) -> None:
    """Draw a lesson.

    Args:
        lesson: The lesson.
        task: One of its tasks.
        hidden: Names of `HIDEABLE`.
    """
    results = recording.results(lesson, task)
    page.heading(lesson.title, "" if "navigation" in hidden else lesson.summary)
    if results is None:
        state = recording.state(lesson)
        reason = f": {state.reason}" if state.reason else ""
        st.warning(
            f"The recording of this lesson is {state.word}{reason}. `{PROGRAM} lessons record {lesson.name}` "
            "makes a new one."
        )
        return
    state = progress(lesson, task)
    key = f"lesson_{lesson.name}"
    _steps(lesson, state)
    step = _View(lesson, results, state, frozenset(hidden), key)
    (step.guess, step.training, step.answer, step.question)[state.step]()
    _footer(step)


def _steps(lesson: Lesson, state: Progress) -> None:
    """The four steps as a list, the present one marked."""
    items = []
    for number, name in enumerate(_STEPS):
        if number == TRAINING and not lesson.live_runs(lesson_guess(lesson), lesson.tasks[0]):
            continue
        style = "now" if number == state.step else "done" if number < state.step else ""
        current = ' aria-current="step"' if number == state.step else ""
        items.append(f'<li class="{style}"{current}>{name}</li>')
    st.html(f'<ol class="lab-steps">{"".join(items)}</ol>')


def lesson_guess(lesson: Lesson) -> Any:
    """Some guess: of no lesson does the number of runs depend on it being correct."""
    return 0 if lesson.guess.kind == "row" else None


def _shown(text: str) -> str:
    """A text as HTML in which no line breaks before a percent sign or within p = 0.5."""
    return escape(text).replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")


def _paragraphs(texts: Sequence[str]) -> None:
    html = "".join(f'<p class="lab-text">{_shown(text)}</p>' for text in texts)
    st.html(terms.marked(html, with_common=True))


@dataclass(frozen=True)
class _View:
    lesson: Lesson
    results: Results
    state: Progress
    hidden: frozenset[str]
    key: str

    # ---------------------------------------------------------------- guess

    def guess(self) -> None:
        """Text on the left, the widget on the right."""
        with st.container(key=f"lesson_columns_{self.lesson.name}"):
            left, right = st.columns(_WIDTHS, gap="large")
        with left:
            _paragraphs(self.lesson.background)
        with right:
            st.html(f'<p class="lab-question">{_shown(self.lesson.question)}</p>')
            self._guess_form()
        if self.lesson.live_runs(lesson_guess(self.lesson), self.results.task):
            supervisor.warm()  # while the person guesses

    def _guess_form(self) -> None:
        state, lesson = self.state, self.lesson

        @st.fragment
        def form() -> None:
            def keep(value: Any) -> None:
                state.draft = value

            guess = lesson.guess
            given = self.results.mean(guess.arms[0]) if guess.kind == "curve" else 0.0  # type: ignore[union-attr]
            value = guess_widget(guess, state.draft, given, f"{self.key}_guess", keep)
            reason = ""
            if "reason" not in self.hidden:
                reason = st.text_input(
                    "Why? One line.", state.reason, max_chars=_TEXT_LENGTH, key=f"{self.key}_reason",
                    placeholder="because …",
                )  # fmt: skip
            trains = bool(lesson.live_runs(value, self.results.task)) if value is not None else True
            label = "Commit and train" if trains and not isinstance(guess, Cells) else "Commit"
            if st.button(label, key=f"{self.key}_commit", type="primary", disabled=value is None):
                self._commit(value, reason)
                st.rerun()

        form()

    def _commit(self, value: Any, reason: str) -> None:
        state, lesson = self.state, self.lesson
        state.guess = state.draft = value
        state.reason = reason.strip()
        state.step = ANSWER
        self._count()
        if lesson.live_runs(value, self.results.task):
            state.step = TRAINING
            self._start()

    def _count(self) -> None:
        """Add the guess to those of the lab; the store counts one of each browser."""
        if self.state.is_counted:
            return
        with suppress(*EXPECTED_ERRORS):  # a read-only store, or a busy one: the next drawing tries again
            queries.store().add_prediction(
                self.lesson.name, self.results.task, self.state.guess, visitor.current(), visitor.TIMEOUT_SECONDS
            )
            self.state.is_counted = True

    def _start(self) -> None:
        state = self.state
        try:
            entries = lesson_runs.start(
                queries.store(), self.lesson, self.lesson.live_runs(state.guess, self.results.task), visitor.current()
            )
            state.runs = tuple(entry.run.id for entry in entries if entry.run is not None)
            state.trouble = ""
        except EXPECTED_ERRORS as error:
            state.trouble = visitor.sentence(error)
        queries.refresh()

    # ---------------------------------------------------------------- training

    def _live(self) -> list[LessonRun]:
        """The runs of this guess, as far as the store still has them."""
        wanted = self.lesson.live_runs(self.state.guess, self.results.task)
        entries = []
        for (arm, seed), run_id in zip(wanted, self.state.runs, strict=False):
            with suppress(StoreError):  # deleted or archived meanwhile
                entries.append(LessonRun(arm, seed, queries.run(run_id)))
        return entries

    def training(self) -> None:
        """The recorded curve at once, the real run next to it."""
        with st.container(key=f"lesson_columns_{self.lesson.name}"):
            left, right = st.columns(_WIDTHS, gap="large")
        with left:
            self._your_guess()
            wanted = self.lesson.live_runs(self.state.guess, self.results.task)
            names = dict.fromkeys(arm.label for arm, _ in wanted)
            seeds = f", {len(self.lesson.live_seeds)} seeds each" if len(self.lesson.live_seeds) > 1 else ""
            _paragraphs(
                [
                    f"A real network now trains on this machine: {' and '.join(names)}{seeds}. Others who gave the "
                    "same guess share the run.",
                    "The dashed lines were recorded before; dotted lines are the accuracy on the training images. You "
                    "need not wait: the answer is there at any time, and "
                    "the run joins it when it is over.",
                ]
            )
            if st.button("Show the answer", key=f"{self.key}_answer", type="primary"):
                self.state.step = ANSWER
                st.rerun()
        with right:
            self._watched(lambda entries: self._draw_curves(entries))

    def _watched(self, draw: Callable[[list[LessonRun]], None]) -> None:
        """Draw something that changes while the runs train."""
        session = st.session_state.setdefault("bench_session", secrets.token_hex(8))
        is_over = all(entry.run is None or entry.run.status.is_over for entry in self._live())
        seconds = None if is_over else max(1.5, queries.refresh_seconds(session))

        @st.fragment(run_every=seconds)
        def panel() -> None:
            entries = self._live()
            draw(entries)
            text, left = self._status(entries)
            # a screen reader speaks the status at each change: the seconds that count down are not part of it
            st.html(f'<p class="lab-note"><span role="status">{escape(text)}</span>{escape(left)}</p>')
            if not is_over and all(entry.run is None or entry.run.status.is_over for entry in entries):
                st.rerun()

        panel()

    def _draw_curves(self, entries: list[LessonRun]) -> None:
        wanted = self.lesson.live_runs(self.state.guess, self.results.task)
        arms = tuple(dict.fromkeys((arm.name, arm.config.epochs) for arm, _ in wanted))
        ids = tuple(entry.run.id for entry in entries if entry.run)

        def make() -> figures.Figure:
            return figures.lesson_curves_figure(self.results, arms, [_curve(entry) for entry in entries if entry.run])

        figure = queries.shared(("lesson_curves", self.lesson.name, self.results.task, ids, arms), make, 1.0)
        live_plot(figure, key=f"{self.key}_curves")

    def _status(self, entries: list[LessonRun]) -> tuple[str, str]:
        """What the runs do, what carries the lesson meanwhile, and the time that is left."""
        carries = "The recorded run carries the lesson."
        if self.state.trouble:
            return f"The run could not be started. {self.state.trouble} {carries}", ""
        runs = [entry.run for entry in entries if entry.run]
        if len(runs) < len(self.state.runs) or not runs:
            return f"A run of this lesson was deleted. {carries}", ""
        bad = [run for run in runs if run.status.is_over and run.status is not Status.FINISHED]
        if bad:
            return f"A run {bad[0].status.value}{f': {bad[0].reason}' if bad[0].reason else ''}. {carries}", ""
        if all(run.status is Status.FINISHED for run in runs):
            seconds = sum(queries.seconds(queries.store(), run) or 0.0 for run in runs)
            count = (
                "Both runs are" if len(runs) == 2 else "The run is" if len(runs) == 1 else f"All {len(runs)} runs are"
            )
            return f"{count} over: {page.seconds_text(seconds)} of training on this machine.", ""
        active = [run for run in runs if run.status.is_active]
        if not active:
            ahead = sum(run.id not in self.state.runs and not run.status.is_over for run in queries.runs())
            if ahead:
                return (
                    f"This machine is busy: {ahead} {'run' if ahead == 1 else 'runs'} of others "
                    f"{'is' if ahead == 1 else 'are'} not over. {carries}"
                ), ""
            return f"The run is about to start. {carries}", ""
        outcome = queries.tail(active[0].id).outcome(active[0].config)
        over = sum(run.status.is_over for run in runs)
        text = f"Run {over + 1} of {len(runs)} trains" if len(runs) > 1 else "The run trains"
        if outcome.step is None:
            return f"{text}: it loads the network and the images. {carries}", ""
        text += f": epoch {outcome.step.epoch} of {active[0].config.epochs}"
        left = outcome.seconds_left
        if left is None:
            return f"{text}.", ""
        slow = f" This machine is slow today. {carries}" if left > _SLOW_SECONDS else ""
        return f"{text}.{slow}", f" About {page.seconds_text(left)} left."

    # ---------------------------------------------------------------- answer

    def answer(self) -> None:
        """Guess and truth in one figure, the guesses of the class, and what follows from it."""
        with st.container(key=f"lesson_columns_{self.lesson.name}"):
            left, right = st.columns(_WIDTHS, gap="large")
        with left:
            self._your_guess()
            _paragraphs(self.lesson.reveal(self.results))
            if "sentence" not in self.hidden:
                self.state.sentence = st.text_area(
                    "What did you learn? One sentence.", self.state.sentence, max_chars=_TEXT_LENGTH, height=90,
                    key=f"{self.key}_sentence", help="Only you see it, until this page is closed.",
                )  # fmt: skip
            if "question" not in self.hidden and st.button(
                "One more question", key=f"{self.key}_question", type="primary"
            ):
                self.state.step = QUESTION
                st.rerun()
            if "question" in self.hidden:
                self.state.is_done = True
                self._ways_on()
            if self.state.runs or self.state.trouble:
                self._back(TRAINING, "Back")
        with right:
            self._result()

    def _result(self) -> None:
        """The figure of the answer and what others guessed."""
        if isinstance(self.lesson.guess, Cells):
            live_plot(
                figures.answer_figure(self.results, self.state.guess, LiveValues(without=self._without())),
                key=f"{self.key}_result",
            )
        else:
            self._watched(
                lambda entries: live_plot(
                    figures.answer_figure(self.results, self.state.guess, LiveValues(_values(self.lesson, entries))),
                    key=f"{self.key}_result",
                )
            )
        page.note(_source(self.results))
        self._count()
        if "class" not in self.hidden:
            st.fragment(run_every=_CLASS_SECONDS)(self._class)()

    def _without(self) -> float | None:
        """The loss without the chosen experts in a run of this store, None where there is none or not yet."""
        arm = next(arm for arm in self.lesson.arms_of(self.results.task) if arm.name == self.lesson.whatif)
        (entry,) = queries.shared(
            ("lesson_run", self.lesson.name), lambda: lesson_runs.existing_runs(queries.store(), [(arm, 0)]), 2.0
        )
        run = entry.run
        if run is None or run.status is not Status.FINISHED:
            page.note(
                "No finished run of this network is in this lab. So the cost of your five is estimated: the costs of "
                "the five single experts in the recorded run, added up."
                + (" The run is on its way." if run is not None else "")
            )
            if run is None and st.button("Train this network here", key=f"{self.key}_train"):
                try:
                    lesson_runs.start(queries.store(), self.lesson, [(arm, 0)], visitor.current())
                except EXPECTED_ERRORS as error:
                    st.warning(visitor.sentence(error))
                queries.refresh()
                st.rerun()
            return None
        cells = [(row, column) for row, column in self.state.guess]
        arguments = {"off": off_text(run.config.plan, cells), "images": lesson_runs.IMAGES}
        try:
            reply = answer(run, "whatif", arguments, f"{self.key}_whatif", "Switching off your five")
        except EXPECTED_ERRORS as error:
            st.warning(visitor.sentence(error))
            return None
        return reply["now"]["loss"] if reply else None

    def _class(self) -> None:
        """The guesses of all people of this lab, as a histogram."""
        guess = self.lesson.guess
        name, task = self.lesson.name, self.results.task

        def read() -> list[Any]:
            stored = queries.store().predictions(name, task, time.time() - 3600 * _CLASS_HOURS)
            return [value for value in map(guess.checked, stored) if value is not None]

        try:
            values = queries.shared(("lesson_predictions", name, task), read, 2.0)
        except EXPECTED_ERRORS:
            return
        if values:
            live_plot(figures.class_guess_figure(guess, values), key=f"{self.key}_class")
            page.note(f"All guesses of this lab in the last {_CLASS_HOURS} hours, kept without names.")

    # ---------------------------------------------------------------- one more question

    def question(self) -> None:
        """The transfer question with feedback, then the ways on."""
        transfer = self.lesson.transfer(self.results)
        state = self.state
        with st.container(key=f"lesson_columns_{self.lesson.name}"):
            left, right = st.columns(_WIDTHS, gap="large")
        with left:
            st.html(f'<p class="lab-question">{_shown(transfer.question)}</p>')
            chosen = st.radio(
                "Your answer", range(len(transfer.options)), state.choice,
                lambda i: transfer.options[i].text, key=f"{self.key}_option", label_visibility="collapsed",
            )  # fmt: skip
            if st.button("Check", key=f"{self.key}_check", type="primary", disabled=chosen is None):
                state.choice, state.is_done = chosen, True
            if state.choice is not None:
                option = transfer.options[state.choice]
                (st.success if state.choice == transfer.correct else st.warning)(option.feedback)
            if state.is_done:
                self._ways_on()
            self._back(ANSWER, "Back to the answer")
        with right:
            self._result()

    def _ways_on(self) -> None:
        if not self.hidden & {"lab", "navigation"}:
            self._open_in_lab()
        if "navigation" not in self.hidden:
            hide = {"hide": ",".join(sorted(self.hidden))} if self.hidden else {}
            names = [entry.name for entry in LESSONS]
            following = names.index(self.lesson.name) + 1 if self.lesson.name in names else len(names)
            if following < len(LESSONS):
                link("learn", f"Next lesson: {LESSONS[following].title}", lesson=LESSONS[following].name, **hide)

    def _open_in_lab(self) -> None:
        name, query = self.lesson.explore
        if name == "experts":  # of a run, which must exist
            arm = next(arm for arm in self.lesson.arms if arm.name == self.lesson.whatif)
            (entry,) = lesson_runs.existing_runs(queries.store(), [(arm, 0)])
            if entry.run is None or entry.run.status is not Status.FINISHED:
                name, query = "train", {"task": arm.task, "mask": arm.config.plan.code}
            else:
                query = {**query, "run": entry.run.id}
        link(name, "Open this in the lab", **query)

    # ---------------------------------------------------------------- shared parts

    def _your_guess(self) -> None:
        state = self.state
        reason = f" Because: {state.reason}" if state.reason else ""
        st.html(f'<p class="lab-guess">Your guess: {_shown(self.lesson.guess.words(state.guess))}.{escape(reason)}</p>')

    def _back(self, step: int, label: str) -> None:
        if st.button(label, key=f"{self.key}_back", type="tertiary"):
            self.state.step = step
            st.rerun()


def _curve(entry: LessonRun) -> LiveCurve:
    run = entry.run
    assert run is not None
    tail = queries.tail(run.id)
    outcome = tail.outcome(run.config)
    per_epoch = outcome.steps_per_epoch
    train = (
        tail.memo("lesson_train", len(tail.steps), lambda: lesson_runs.train_curve(tail.steps, per_epoch))
        if per_epoch
        else ()
    )
    return LiveCurve(entry.arm.name, entry.seed, run.config.epochs, outcome.curve, train)


def _values(lesson: Lesson, entries: Sequence[LessonRun]) -> dict[str, list[tuple[int, float]]]:
    """What the finished runs gave: for each arm (seed, value)."""
    values: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        if entry.run is not None and entry.run.status is Status.FINISHED:
            value = _value(lesson, entry.run)
            if value is not None:
                values.setdefault(entry.arm.name, []).append((entry.seed, value))
    return values


def _value(lesson: Lesson, run: Run) -> float | None:
    store = queries.store()
    if lesson.measure == "similarity":
        last = store.last(run.id, SimilarityStats)
        return lesson_runs.mean_similarity(last)
    curve = queries.curve(store, run)
    return curve[-1][1] if curve else None


def _source(results: Results) -> str:
    """Where the recorded numbers come from."""
    record = results.recording
    seeds = len({run.seed for run in record.runs})
    what = (
        f"the run with seed {record.whatif['seed']} without some of its experts, {record.whatif['images']} images"
        if results.lesson.whatif
        else f"{seeds} seeds"
    )
    bands = "" if results.lesson.whatif else " Bars and bands are 95 % intervals of the mean over seeds (Student's t)."
    task = catalog.task(results.task).title
    return escape(
        f"Recorded on {record.created[:10]}: {task}, {what}, on {record.machine}, torch "
        f"{record.versions.get('torch', '?')}, commit {record.commit}.{bands}"
    )


def _footer(view: _View) -> None:
    """Worksheet and start again."""
    with st.container(horizontal=True, gap="small", key=f"lesson_footer_{view.lesson.name}"):
        if "worksheet" not in view.hidden:
            st.download_button(
                "Worksheet", lambda: worksheet.page(view.lesson, view.results).encode(),
                file_name=f"{view.lesson.name}.html", mime="text/html", key=f"{view.key}_worksheet", on_click="ignore",
                help="One page to print: the question, space for a guess, the last question, no answers.",
            )  # fmt: skip
        if view.state.guess is not None and st.button("Start again", key=f"{view.key}_again"):
            known: dict[str, Progress] = st.session_state[_STATE]
            known[f"{view.lesson.name}:{view.results.task}"] = Progress(is_counted=view.state.is_counted)
            st.rerun()
