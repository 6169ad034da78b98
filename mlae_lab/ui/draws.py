"""A hundred random draws of a plan, played beside the set rates."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from mlae_lab.core.budget import Budget
from mlae_lab.core.plan import MaskPlan

_HERE = Path(__file__).parent
_COMPONENT = st.components.v2.component(
    "mlae_lab_draws",
    html="""<div class="dr"><canvas role="img"></canvas><p class="dr-now"></p>
    <div class="dr-bar"><button type="button" data-act="play">Play</button>
    <button type="button" data-act="again">Again</button><span class="dr-seed"></span></div></div>""",
    css=(_HERE / "draws.css").read_text(),
    js=(_HERE / "palette.js").read_text() + (_HERE / "draws.js").read_text(),
)


def draws(plan: MaskPlan, cost: Budget, key: str) -> None:
    """Play a hundred draws; the browser makes them, each expert kept with chance 1 - p for itself, as in training.

    They are draws of the same distribution, not a run's own masks: those come from the run's seed, in torch.
    cost: the plan's budget, for what is expected. key: unique on the page.
    """
    _COMPONENT(
        key=key,
        data={
            "keep": [[int(k) for k in row] for row in plan.keep],
            "rate": [list(row) for row in plan.drop_rate],
            "active": cost.expected_active,
            "empty": cost.any_empty_chance,
        },
        height="content",
    )
