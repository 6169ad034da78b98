"""Classify many images with a run: its probe answers piece by piece, and the result is a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlae_lab.core.abstention import Abstention, chosen_threshold
from mlae_lab.core.config import RunConfig
from mlae_lab.core.sanitize import spreadsheet_text
from mlae_lab.data.image_batch import ImageBatch
from mlae_lab.data.listing import shown
from mlae_lab.errors import LabError
from mlae_lab.runs import probe
from mlae_lab.runs.store import Run, RunStore

PIECE = 64  # images in one query: progress moves, and other queries wait a second
TOP = 3  # classes of each image in the table, unless others are wanted
MAX_TOP = 10  # classes of each image that are kept


class PredictionError(LabError):
    """Images that cannot be classified; its text says why and what would work."""


@dataclass(frozen=True)
class Classified:
    """The prediction for a file.

    Attributes:
        path: Below the folder.
        top: The most probable classes with their probabilities, the best first; empty for an unreadable file.
        problem: Why it cannot be read, "" if it can.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    problem: str = ""

    def abstains(self, threshold: float | None) -> bool:
        """Whether its probability is below the threshold, if there is one."""
        return threshold is not None and bool(self.top) and self.top[0][1] < threshold


def classified(
    store: RunStore,
    run_id: str,
    batch: ImageBatch,
    start: int = 0,
    on_progress: Callable[[probe.Answer], None] = lambda answer: None,
) -> Iterator[list[Classified]]:
    """Classify the images of a batch with a run that is over, preprocessed as its evaluation images are.

    Args:
        store: Of the run.
        run_id: Its id.
        batch: The images.
        start: How many of them to skip.
        on_progress: Called while an answer is awaited, with its state; it may raise.

    Yields:
        The predictions for the next images.

    Raises:
        PredictionError: The run cannot answer.
        StoreError: The run is unknown.
    """
    for at in range(start, len(batch.paths), PIECE):
        paths = list(batch.paths[at : at + PIECE])
        arguments = {"folder": str(batch.folder), "files": paths, "top": MAX_TOP, "stamp": batch.stamp(paths)}
        answer = probe.wait(store, run_id, "classify", arguments, on_progress)
        if answer.value is None:
            raise PredictionError(answer.reason)
        names = answer.value["classes"]
        yield [
            Classified(path, tuple((names[k], float(p)) for k, p in row["top"]), row["problem"])
            for path, row in zip(paths, answer.value["rows"], strict=True)
        ]


# ---------------------------------------------------------------- threshold


def no_threshold(config: RunConfig) -> str:
    """Why no threshold can be chosen on the run's images, a sentence without a full stop; "" if one can."""
    if config.protocol == "test":
        return (
            "this run was trained on train and val (protocol test), so it has no val image that it was not trained "
            "on, and test is for the final accuracy: choose the threshold with a run of protocol val, or name one"
        )
    return ""


def threshold_of(run: Run, errors: Mapping[str, Any], wanted: float) -> Abstention:
    """The threshold for an accuracy of the predictions that are kept, chosen on the run's evaluation images.

    Args:
        run: Of protocol val.
        errors: Its answer to the query `errors` for all images.
        wanted: In percent.

    Raises:
        PredictionError: The run was trained on its val images.
        AbstentionError: The accuracy is out of range, or no confidence reaches it.
    """
    if why := no_threshold(run.config):
        raise PredictionError(why)
    correct = [truth == guess for truth, guess in zip(errors["truth"], errors["predicted"], strict=True)]
    return chosen_threshold(correct, errors["confidence"], wanted)


# ---------------------------------------------------------------- table


def counts(rows: Sequence[Classified], threshold: float | None) -> dict[str, int]:
    """Images by predicted class, the most frequent first, without those that the run abstains for."""
    return dict(Counter(row.top[0][0] for row in rows if row.top and not row.abstains(threshold)).most_common())


def as_csv(rows: Sequence[Classified], top: int = TOP, threshold: float | None = None) -> str:
    """A line for each file: file, class, probability, abstain (yes or no), further classes, problem.

    Args:
        rows: The predictions.
        top: How many classes of each image, 1 to MAX_TOP.
        threshold: Below which the run abstains, None for never. The most probable class is written all the same.
    """
    further = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("class", "probability")]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["file", "class", "probability", "abstain", *further, "problem"])
    for row in rows:
        cells: list[str] = []
        for rank in range(top):
            name, probability = row.top[rank] if rank < len(row.top) else ("", None)
            cells += [spreadsheet_text(shown(name)), "" if probability is None else f"{probability:.6f}"]
        abstain = ("yes" if row.abstains(threshold) else "no") if row.top else ""
        writer.writerow([spreadsheet_text(shown(row.path)), *cells[:2], abstain, *cells[2:], row.problem])
    return file.getvalue()
