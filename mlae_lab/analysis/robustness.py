"""Accuracy under random masks: how much a trained network depends on all of its experts.

    f_i = m_i / (1 - p) or m_i,    m_i = 0 with probability p, else 1, sampled once for each expert

The first form is that of training with drop rate p (paper, equation 5 and section 3.3): the expected update stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.expert_state import Factors
from mlae_lab.core.plan import MAX_COLUMNS, MaskPlan
from mlae_lab.core.progress import ProgressCallback, silent
from mlae_lab.model.experts import stream


def random_states(plan: MaskPlan, rate: float, samples: int, seed: int, rescaled: bool = True) -> Iterator[Factors]:
    """Random states of a plan.

    Each row samples MAX_COLUMNS numbers from its own generator: two runs with the same seed see the same masks
    wherever their cells coincide, and an expert that is dropped at a lower rate is also dropped at a higher one.

    Args:
        plan: of the network.
        rate: p in [0, 1), the same for every expert, whatever rates the plan was trained with.
        samples: number of states.
        seed: of the generators.
        rescaled: whether active experts are rescaled by 1 / (1 - p).
    """
    generators = [stream(seed, "robust", row) for row in range(plan.rows)]  # "robust" is part of the seed: keep it
    on = 1 / (1 - rate) if rescaled else 1.0
    for _ in range(samples):
        uniform = [torch.rand(MAX_COLUMNS, generator=row, dtype=torch.float64).tolist() for row in generators]
        yield tuple(
            tuple(
                (on if u >= rate else 0.0) if kept else None for kept, u in zip(keep, row[: plan.columns], strict=True)
            )
            for keep, row in zip(plan.keep, uniform, strict=True)
        )


def accuracies(
    whatif: WhatIf, rate: float, samples: int, seed: int, rescaled: bool = True, on_progress: ProgressCallback = silent
) -> list[float]:
    """Top-1 accuracy in percent under each of the `random_states`.

    A state that is sampled again, as happens with few experts, is not evaluated again.

    Args:
        whatif: the network on its images.
        rate: see `random_states`.
        samples: see `random_states`.
        seed: see `random_states`.
        rescaled: see `random_states`.
        on_progress: called before each evaluation with (done, total); an exception that it raises stops it.
    """
    known: dict[Factors, float] = {}
    values = []
    for done, state in enumerate(random_states(whatif.plan, rate, samples, seed, rescaled)):
        on_progress(done, samples)
        if state not in known:
            known[state] = whatif.evaluate(state).accuracy
        values.append(known[state])
    return values
