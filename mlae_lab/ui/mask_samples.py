"""A hundred sampled masks of a plan, shown next to the drop rates."""

from __future__ import annotations

from mlae_lab.core.budget import Budget
from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui.bundle import bundled

_COMPONENT = bundled(
    "mask_samples",
    ("palette.js", "random.js", "mask_samples.js"),
    css="mask_samples.css",
    markup="""<div class="ms"><canvas role="img"></canvas><p class="ms-now"></p>
    <div class="ms-bar"><button type="button" data-act="play">Play</button>
    <button type="button" data-act="reseed">New seed</button><span class="ms-seed"></span></div></div>""",
    isolated=True,
)


def mask_samples(plan: MaskPlan, cost: Budget, key: str) -> None:
    """Play a hundred masks sampled in the browser: each expert is kept independently with probability 1 - p.

    They have the distribution of a run's masks, which torch samples from the seed of the run.

    Args:
        plan: The plan.
        cost: Its budget, for the expected values.
        key: Unique on the page.
    """
    _COMPONENT(
        key=key,
        data={
            "keep": [[int(k) for k in row] for row in plan.keep],
            "rate": [list(row) for row in plan.drop_rate],
            "active": cost.expected_active,
            "empty": cost.any_empty_probability,
        },
        height="content",
    )
