"""Accuracy under random masks: how much a trained network leans on all of its experts being there.

    f_i = m_i / (1 - p) or m_i,    m_i = 0 with chance p, else 1, one draw for each expert

The first form is what training with drop rate p does (paper, equation 5 and section 3.3): the expected update stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mlae_lab.analysis.importance import ProgressCallback, silent
from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.expert_state import Factors
from mlae_lab.core.plan import MAX_COLUMNS, MaskPlan
from mlae_lab.model.experts import stream


def random_states(plan: MaskPlan, rate: float, samples: int, seed: int, rescaled: bool = True) -> Iterator[Factors]:
    """Random states of a plan.

    rate: p in [0, 1), the same for every expert, whatever rates the plan was trained with. rescaled: survivors count
    1 / (1 - p). Each row samples MAX_COLUMNS numbers from a generator of its own: two runs with one seed see the same
    masks wherever their cells coincide, and with a higher rate those that drop out with a lower one are out too.
    """
    own = [stream(seed, "robustness", row) for row in range(plan.rows)]
    on = 1 / (1 - rate) if rescaled else 1.0
    for _ in range(samples):
        chance = [torch.rand(MAX_COLUMNS, generator=one, dtype=torch.float64).tolist() for one in own]
        yield tuple(
            tuple((on if u >= rate else 0.0) if kept else None for kept, u in zip(row, us, strict=False))
            for row, us in zip(plan.keep, chance, strict=False)
        )


def accuracies(
    lab: WhatIf, rate: float, samples: int, seed: int, rescaled: bool = True, on_progress: ProgressCallback = silent
) -> list[float]:
    """Top-1 in percent under each of the random states; one that is drawn again, as happens with few experts, is not
    measured again. tell: called before each; it may raise, which ends it."""
    measured: dict[Factors, float] = {}
    found = []
    for done, state in enumerate(random_states(lab.plan, rate, samples, seed, rescaled)):
        on_progress(done, samples)
        if state not in measured:
            measured[state] = lab.try_out(state).accuracy
        found.append(measured[state])
    return found
