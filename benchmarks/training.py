"""One training to its end, for benchmarks that record its result."""

from __future__ import annotations

from mlae_lab.core.events import Evaluation, Started
from mlae_lab.training.setup import Setup
from mlae_lab.training.trainer import fit


def trained(setup: Setup) -> tuple[Started, Evaluation]:
    """Train a run in this process; what it recorded at its start and at its last evaluation."""
    started, evaluation = None, None
    for event in fit(setup):
        if isinstance(event, Started):
            started = event
        elif isinstance(event, Evaluation):
            evaluation = event
    assert started
    assert evaluation
    return started, evaluation
