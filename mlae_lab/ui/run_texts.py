"""Short texts about a run that several pages show."""

from __future__ import annotations

from collections.abc import Mapping

from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.store import Run
from mlae_lab.ui import page, queries


def accuracy_text(run: Run) -> str:
    """The accuracy of the last evaluation with its split, or a dash."""
    accuracy = queries.accuracy(run)
    return "–" if accuracy is None else f"{accuracy:.1f} % {run.config.protocol}"


def position_text(run: Run, positions: Mapping[str, tuple[int, int]]) -> str:
    """The position of a run in the queue of its device, "" for a run that does not wait.

    Args:
        run: The run.
        positions: From `RunStore.queue_positions`.
    """
    return "Position {} of {} in the queue".format(*positions[run.id]) if run.id in positions else ""


def stalled_text(run: Run) -> str:
    """That an active run makes no progress, and for how long; "" for any other run."""
    silent = stalled_for(queries.store().paths(run.id)) if run.status.is_active else None
    return "" if silent is None else f"stalled: alive, but no progress for {page.seconds_text(silent)}"
