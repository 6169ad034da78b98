"""Recall of each class and balanced accuracy of a run, from what every evaluation records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mlae_lab.core.events import Evaluation, unpacked
from mlae_lab.core.proportions import balanced_accuracy
from mlae_lab.data.bundled import DataError
from mlae_lab.data.image_record import ImageRecord, read_record
from mlae_lab.data.own_dataset import IMBALANCED


@dataclass(frozen=True)
class ClassRecall:
    """Of one evaluation.

    Attributes:
        names: Of the classes.
        images: Evaluation images of each class.
        correct: Of them, those that are classified correctly.
        imbalance: Images of the largest class for one of the smallest, in training and evaluation together.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    correct: tuple[int, ...]
    imbalance: float

    @property
    def balanced(self) -> float:
        """Balanced accuracy in percent."""
        return 100 * balanced_accuracy(self.correct, self.images)

    @property
    def is_unequal(self) -> bool:
        """Whether the classes are so unequal that balanced accuracy should be read next to accuracy."""
        return self.imbalance >= IMBALANCED


def class_recall(images_file: Path, evaluation: Evaluation | None) -> ClassRecall | None:
    """The recall of each class; None where it is not known: for a bundled task, which has no such file, and for more
    evaluation images than are recorded one by one.

    Args:
        images_file: Of the run, `paths.RunPaths.images`.
        evaluation: One of the run.
    """
    if evaluation is None or not evaluation.correct:
        return None
    try:
        record = _record(images_file, images_file.stat().st_mtime_ns)
        if record is None:
            return None
        labels = record.evaluation.labels
        is_correct = unpacked(evaluation.correct, len(labels))
    except (OSError, DataError, ValueError):
        return None
    images, total = Counter(labels), Counter((*record.train.labels, *labels))
    correct = Counter(label for label, hit in zip(labels, is_correct, strict=True) if hit)
    classes = range(len(record.classes))
    return ClassRecall(
        record.classes,
        tuple(images[label] for label in classes),
        tuple(correct[label] for label in classes),
        max(total.values()) / min(total.values()),
    )


@lru_cache(maxsize=64)
def _record(file: Path, modified: int) -> ImageRecord | None:
    del modified  # only tells the cache that the file changed
    return read_record(file)
