"""Recordings of lessons: what their runs gave, for each seed. `runs.lesson_runs` makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.errors import LabError
from mlae_lab.lessons.lesson import Arm, Lesson
from mlae_lab.locations import ASSETS

FORMAT = 1  # raised when the meaning of a field changes
FOLDER = ASSETS / "lessons"
Points = tuple[tuple[float, float], ...]  # (epochs, percent)


class RecordingError(LabError):
    """A recording that cannot be used."""


@dataclass(frozen=True)
class RecordedRun:
    """One run.

    Attributes:
        task: Of the run.
        arm: Of the lesson.
        seed: Of the run.
        config_hash: Of the run.
        accuracy: After the last epoch, in percent.
        loss: After the last epoch.
        similarity: Mean |cosine| of experts within a layer, mean over layers, None without experts.
        curve: Accuracy on val after each evaluated epoch.
        train: Running mean of the accuracy on training batches.
        seconds: Of training.
    """

    task: str
    arm: str
    seed: int
    config_hash: str
    accuracy: float
    loss: float
    similarity: float | None
    curve: Points
    train: Points
    seconds: float


@dataclass(frozen=True)
class Recording:
    """A recording of a lesson.

    Attributes:
        lesson: Its name.
        created: Time in UTC, ISO 8601.
        commit: Of the code, with "+" if files had been changed since.
        machine: Processor and number of cores.
        versions: Of Python, torch, timm and the lab.
        runs: All runs.
        whatif: Losses without single experts and without sets of experts, {} for lessons without.
        format: As in `FORMAT`.
    """

    lesson: str
    created: str
    commit: str
    machine: str
    versions: dict[str, str]
    runs: tuple[RecordedRun, ...]
    whatif: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recording:
        """Raises RecordingError for a text that is no recording of this format."""
        try:
            values = json.loads(text)
            if values.get("format") != FORMAT:
                raise RecordingError(f"the recording has format {values.get('format')!r}, and {FORMAT} is read here")
            runs = tuple(
                RecordedRun(**{**run, "curve": _points(run["curve"]), "train": _points(run["train"])})
                for run in values.pop("runs")
            )
            return cls(runs=runs, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordingError(f"the recording cannot be read: {error}") from error


def _points(values: Sequence[Sequence[float]]) -> Points:
    return tuple((x, y) for x, y in values)


@dataclass(frozen=True)
class Results:
    """A recording as the texts and figures of a lesson read it: the values of its arms on one task."""

    lesson: Lesson
    recording: Recording
    task: str

    def runs(self, arm: str, task: str = "") -> tuple[RecordedRun, ...]:
        """The runs of an arm, by seed. task: another one than that of the results."""
        wanted = (task or self.task, arm)
        return tuple(sorted((r for r in self.recording.runs if (r.task, r.arm) == wanted), key=lambda run: run.seed))

    def values(self, arm: str, task: str = "", measure: str = "") -> tuple[float, ...]:
        """A quantity of an arm, by seed. measure: another one than the lesson's."""
        name = measure or ("accuracy" if self.lesson.measure == "loss" else self.lesson.measure)
        return tuple(getattr(run, name) for run in self.runs(arm, task))

    def statistics(self, arm: str, task: str = "", measure: str = "") -> SeedStatistics:
        """Mean and interval of a quantity over seeds."""
        values = self.values(arm, task, measure)
        is_percent = (measure or self.lesson.measure) == "accuracy"
        return seed_statistics(0, values, PERCENT if is_percent else (0.0, 1.0))

    def mean(self, arm: str, task: str = "", measure: str = "") -> float:
        """The mean of a quantity over seeds."""
        return self.statistics(arm, task, measure).mean

    def difference(self, first: str, second: str) -> SeedStatistics:
        """Statistics of second minus first over paired seeds."""
        pairs = zip(self.values(first), self.values(second), strict=True)
        return seed_statistics(0, [b - a for a, b in pairs])

    @cached_property
    def whatif(self) -> dict[str, Any]:
        return self.recording.whatif


def path(name: str) -> Path:
    """The file of a lesson's recording."""
    return FOLDER / f"{name}.json"


@lru_cache(maxsize=32)
def _read(file: Path, changed: int) -> Recording:
    return Recording.from_json(file.read_text(encoding="utf-8"))


def read(name: str) -> Recording | None:
    """The recording of a lesson, None if there is none.

    Raises:
        RecordingError: The file cannot be used.
    """
    file = path(name)
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def below_the_probe() -> tuple[str, ...]:
    """A sentence for lessons with runs that end below the linear probe of the first lesson; none if it is missing."""
    recording = read("what-experts-add")
    values = [run.accuracy for run in recording.runs if run.arm == "probe"] if recording else []
    if not values:
        return ()
    return (
        f"The linear probe of the first lesson reaches {fmean(values):.0f} %. Some of these runs end below it: they "
        "train for 3 epochs, and it trained for 100.",
    )


def results(lesson: Lesson, task: str = "") -> Results | None:
    """The recording of a lesson on one of its tasks, by default its first; None if it is missing or outdated."""
    try:
        recording = read(lesson.name)
    except RecordingError:
        return None
    if recording is None or outdated(lesson, recording):
        return None
    return Results(lesson, recording, task or lesson.tasks[0])


def needed(lesson: Lesson, seeds: Sequence[int]) -> list[tuple[Arm, int]]:
    """The runs of a recording, each an arm and a seed; seed by seed."""
    return [(arm, seed) for seed in seeds for arm in lesson.arms]


def outdated(lesson: Lesson, recording: Recording) -> str:
    """Why a recording no longer agrees with the lesson's runs, a clause; "" if it does."""
    wanted = {(arm.task, arm.name, seed): arm.run(seed).hash for arm, seed in needed(lesson, _seeds(recording))}
    known = {(run.task, run.arm, run.seed): run.config_hash for run in recording.runs}
    if missing := sorted(set(wanted) - set(known)):
        return f"it has no run of {missing[0][1]} on {missing[0][0]} with seed {missing[0][2]}"
    if changed := [key for key, value in wanted.items() if known[key] != value]:
        task, arm, seed = changed[0]
        return f"the settings of {arm} on {task} with seed {seed} have changed since"
    return "it has no what-ifs" if lesson.whatif and not recording.whatif else ""


def _seeds(recording: Recording) -> tuple[int, ...]:
    return tuple(sorted({run.seed for run in recording.runs}))


@dataclass(frozen=True)
class State:
    """The state of a recording. word: "recorded", "missing" or "outdated"; reason: a clause for the last."""

    word: str
    reason: str = ""
    recording: Recording | None = None


def state(lesson: Lesson) -> State:
    """The state of the recording of a lesson."""
    try:
        recording = read(lesson.name)
    except RecordingError as error:
        return State("outdated", str(error))
    if recording is None:
        return State("missing")
    reason = outdated(lesson, recording)
    return State("outdated" if reason else "recorded", reason, recording)
