"""The lessons of the page Learn. A new lesson is a file of this package and a line in `LESSONS`."""

from __future__ import annotations

from mlae_lab.errors import LabError
from mlae_lab.lessons.alike_or_different import ALIKE_OR_DIFFERENT
from mlae_lab.lessons.is_it_better import IS_IT_BETTER
from mlae_lab.lessons.lesson import Lesson
from mlae_lab.lessons.what_experts_add import WHAT_EXPERTS_ADD
from mlae_lab.lessons.what_p_does import WHAT_P_DOES
from mlae_lab.lessons.where_to_learn import WHERE_TO_LEARN
from mlae_lab.lessons.which_experts_matter import WHICH_EXPERTS_MATTER

LESSONS: tuple[Lesson, ...] = (
    WHAT_EXPERTS_ADD,
    WHERE_TO_LEARN,
    WHAT_P_DOES,
    ALIKE_OR_DIFFERENT,
    WHICH_EXPERTS_MATTER,
    IS_IT_BETTER,
)


class LessonError(LabError):
    """A lesson that does not exist."""


def lesson(name: str) -> Lesson:
    """The lesson of that name. Raises LessonError if there is none."""
    for entry in LESSONS:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in LESSONS)
    raise LessonError(f"{name[:60]!r} is not a lesson: choose {known}")
