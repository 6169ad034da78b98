"""The run that the tour shows, and the runs that its verdict compares."""

from __future__ import annotations

from dataclasses import replace

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.core.settings import proposed_values

SEEDS = (0, 1, 2)
DROP_RATE = 0.5
EPOCHS = 8
LAYER = 7  # counted from 1: the layer whose weights are shown
MASKED = replace(
    RunConfig(task="fashion", plan=uniform(DROP_RATE), **proposed_values(RunConfig)), epochs=EPOCHS, evaluations=EPOCHS
)
DENSE = replace(MASKED, plan=dense())


def configs() -> dict[str, tuple[RunConfig, ...]]:
    """The configs of the verdict by arm, one for each seed; the tour itself shows the first masked one."""
    return {
        name: tuple(replace(config, seed=seed) for seed in SEEDS)
        for name, config in (("dense", DENSE), ("masked", MASKED))
    }
