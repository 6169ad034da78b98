"""The recorded central experiment, which is shown before a person has run one."""

from __future__ import annotations

from mlae_lab.core import catalog
from mlae_lab.core import tour as recorded
from mlae_lab.ui import page
from mlae_lab.ui.figures.recorded_experiment import recorded_figure
from mlae_lab.ui.live_plot import live_plot
from mlae_lab.ui.tour import finding, random_similarity, recording


def recorded_experiment() -> None:
    """Draw the six recorded runs and what they say."""
    run, task = recording(), catalog.task(recorded.MASKED.task)
    page.section("What six recorded runs say")
    figure = recorded_figure(run["arms"], random_similarity(), recorded.DROP_RATE, finding().title)
    live_plot(figure, key="diversity_recorded")
    page.note(f"{finding().similarity} {finding().accuracy}")
    page.note(
        f"{task.title}, the bundled network, {run['epochs']} epochs, seeds "
        f"{', '.join(str(entry['seed']) for entry in run['arms']['masked'])}, validation; lines join runs of one seed. "
        f"Recorded by <code>python assets/record_tour.py</code> ({run['made']})."
    )
