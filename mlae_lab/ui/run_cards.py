"""Runs as cards: the mask's image, the task, the number and the status."""

from __future__ import annotations

from collections.abc import Sequence

from mlae_lab.core import catalog
from mlae_lab.runs import outcomes
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run
from mlae_lab.ui import queries
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.thumbnails import mask_image


def accuracy_text(run: Run) -> str:
    """The accuracy of the last evaluation with its split, or a dash."""
    accuracy = outcomes.accuracy(queries.store(), run)
    return "–" if accuracy is None else f"{accuracy:.1f} % {run.config.protocol}"


def run_cards(runs: Sequence[Run], key: str) -> str | None:
    """Draw runs as cards; returns the id of the one that was just clicked, else None."""
    items = [
        Card(
            id=run.id,
            title=catalog.task(run.config.task).title,
            line=f"{run.config.what} · {accuracy_text(run)}",
            images=(mask_image(run.config.plan),) if run.config.method == "mlae" else (),
            word=run.status.value,
            tone="good" if run.status in (Status.FINISHED, Status.RUNNING, Status.STARTING) else "",
        )
        for run in runs
    ]
    return cards(items, key=key, label="Runs", size="small")
