"""Lesson: a question, a guess, a few runs that answer it, and what to ask next. Plain data, without torch.

A lesson is one file of this package and one line in `__init__`. Its numbers come from a recording, which the command
`lessons record` makes by training its runs (`lessons.recording`, `runs.lesson_runs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan
from mlae_lab.lessons.guess import Guess

if TYPE_CHECKING:
    from mlae_lab.lessons.recording import Results

SEEDS = (0, 1, 2)
LOCATION, FASHION = "dsprites_loc_rendered", "fashion"


def short_run(task: str, plan: MaskPlan | None = None) -> RunConfig:
    """The run of a lesson: three epochs in small batches, some 30 s of processor time with all 96 experts (LOG.md)."""
    return RunConfig(task=task, plan=plan or dense(), epochs=3, batch_size=16, learning_rate=5e-3, warmup=0.1)


def short_probe(task: str) -> RunConfig:
    """A linear probe, trained until it no longer improves; its features are computed once, so that takes seconds."""
    return RunConfig(task=task, method="linear", epochs=100, evaluations=10, learning_rate=1e-2, warmup=0.1)


@dataclass(frozen=True)
class Arm:
    """One setting of a lesson, trained with each of its seeds.

    Attributes:
        name: Unique among the arms of the lesson with the same task.
        label: In figures.
        config: Its run with seed 0.
        later: Whether it belongs to the transfer question, not to the question of the lesson.
    """

    name: str
    label: str
    config: RunConfig
    later: bool = False

    @property
    def task(self) -> str:
        return self.config.task

    def run(self, seed: int) -> RunConfig:
        """Its run with a seed."""
        return replace(self.config, seed=seed)


@dataclass(frozen=True)
class Option:
    """An answer to a transfer question. feedback: shown after it was chosen."""

    text: str
    feedback: str


@dataclass(frozen=True)
class Transfer:
    """A question that takes the finding to a new case. correct: index of the correct option."""

    question: str
    options: tuple[Option, ...]
    correct: int


@dataclass(frozen=True)
class Teacher:
    """Notes for a teacher.

    Attributes:
        teaches: What a person knows afterwards.
        ask: The question to ask the class before the answer is shown.
        wrong: Typical wrong answers, each with what to say.
    """

    teaches: str
    ask: str
    wrong: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Lesson:
    """A lesson.

    Attributes:
        name: In addresses and file names.
        title: A short question.
        summary: What it is about, one question for its card.
        minutes: How long it takes.
        background: Paragraphs that say what one needs to know.
        question: What is to be guessed.
        guess: The form of the guess.
        arms: Its settings; those of its first task belong to the recording that is shown by default.
        measure: "accuracy" in percent, "similarity" (mean |cosine|), or "loss" of a what-if.
        live: The arms that are trained for a guess, in this order.
        reveal: What the recording shows, as sentences.
        transfer: The transfer question.
        explore: Page and query that open the lesson's setting in the lab.
        teacher: Notes for a teacher.
        live_seeds: Seeds that are trained live.
        whatif: Name of the arm whose first seed is examined by what-ifs, "" for none.
    """

    name: str
    title: str
    summary: str
    minutes: int
    background: tuple[str, ...]
    question: str
    guess: Guess
    arms: tuple[Arm, ...]
    measure: str
    live: Callable[[Any], tuple[str, ...]]
    reveal: Callable[[Results], tuple[str, ...]]
    transfer: Callable[[Results], Transfer]
    explore: tuple[str, dict[str, str]]
    teacher: Teacher
    live_seeds: tuple[int, ...] = (0,)
    whatif: str = ""

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks for which the lesson has a recording, its own first."""
        return tuple(dict.fromkeys(arm.task for arm in self.arms if not arm.later))

    def arms_of(self, task: str) -> tuple[Arm, ...]:
        """The arms of the question on a task."""
        return tuple(arm for arm in self.arms if arm.task == task and not arm.later)

    def live_runs(self, value: Any, task: str) -> tuple[tuple[Arm, int], ...]:
        """The runs to train for a guess, each an arm and a seed."""
        arms = {arm.name: arm for arm in self.arms_of(task)}
        return tuple((arms[name], seed) for seed in self.live_seeds for name in self.live(value))
