"""Runs as cards: the mask's image, the task, the number and the status."""

from __future__ import annotations

from collections.abc import Sequence

from mlae_lab.core import catalog
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.run_texts import accuracy_text
from mlae_lab.ui.thumbnails import mask_image


def card(run: Run, group: str = "", more: str = "") -> Card:
    """The card of a run.

    Args:
        run: The run.
        group: Title of the group of cards that it belongs to, "" for none.
        more: Added to the line under the title.
    """
    return Card(
        id=run.id,
        title=catalog.task(run.config.task).title,
        line=f"{run.config.what} · {accuracy_text(run)}{more}",
        images=(mask_image(run.config.plan),) if run.config.has_mask else (),
        word=run.status.value,
        tone="good" if run.status in (Status.FINISHED, Status.RUNNING, Status.STARTING) else "",
        group=group,
    )


def run_cards(runs: Sequence[Run], key: str) -> str | None:
    """Draw runs as cards; returns the id of the one that was just clicked, else None."""
    return cards([card(run) for run in runs], key=key, label="Runs", size="small")
