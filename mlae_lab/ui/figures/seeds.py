"""Variation over seeds: the accuracy of each seed of a run."""

from __future__ import annotations

from collections.abc import Mapping

from mlae_lab.core.seed_statistics import SeedStatistics, between
from mlae_lab.ui.figures.base import FRAME, Figure, apart, axis, figure

SEEDS_NOTE = (
    "A dot is a run after its last epoch. Line: mean over seeds; band: 95 % interval of the mean, mean ± "
    "t(97.5 %, n − 1) s/√n, cut at 0 and 100 %. "
    "The band covers the variation between seeds, not between evaluation images, which are the same in all runs."
)
_HEIGHT = 320
_COLOUR = "@accent"


def seeds_figure(values: Mapping[int, float], statistics: SeedStatistics, split: str) -> Figure:
    """The accuracy of each seed, with mean and interval.

    Args:
        values: Seed to accuracy in percent.
        statistics: Of the values.
        split: "val" or "test".
    """
    labels = [str(seed) for seed in sorted(values)]
    mean = statistics.mean
    limits, shapes, ends, summary = [*values.values()], [], [], f"{mean:.1f} %, one seed"
    if statistics.low is not None and statistics.high is not None:
        summary = f"{mean:.1f} % (95 % {between(statistics.low, statistics.high, signed=False)}, n = {statistics.n})"
        limits += [statistics.low, statistics.high]
        across = {"xref": "paper", "x0": 0, "x1": 1}
        shapes = [
            {
                "type": "rect", **across, "y0": statistics.low, "y1": statistics.high, "fillcolor": _COLOUR,
                "opacity": 0.12, "line": {"width": 0}, "layer": "below",
            },
            {"type": "line", **across, "y0": mean, "y1": mean, "line": {"color": _COLOUR, "width": 2}},
        ]  # fmt: skip
        ends = [(1, mean, "mean", _COLOUR)]
    margin = max(0.08 * (max(limits) - min(limits)), 0.25 if len(limits) > 1 else 2.0)
    low, high = min(limits) - margin, min(100.0, max(limits) + margin)
    title = f"Accuracy on {split}: {summary}"
    return figure(
        [
            {
                "type": "scatter",
                "mode": "markers",
                "x": labels,
                "y": [round(values[seed], 3) for seed in sorted(values)],
                "cliponaxis": False,  # a dot at 100 % lies on the edge
                "marker": {"size": 10, "color": _COLOUR, "symbol": "circle", "line": {"width": 2, "color": _COLOUR}},
                "hovertemplate": "seed %{x}: %{y:.1f} %<extra></extra>",
            }
        ],
        title,
        f"Dots by seed: {', '.join(labels)}. {title}.",
        "seeds",
        height=_HEIGHT,
        xaxis=axis(
            "seed", type="category", categoryarray=labels, categoryorder="array", range=[-0.5, len(labels) - 0.5]
        ),
        yaxis=axis(f"top-1 accuracy on {split}, %", range=[low, high]),
        shapes=shapes,
        annotations=[label | {"xref": "paper"} for label in apart(ends, (_HEIGHT - FRAME) / (high - low))],
        margin={"l": 58, "r": 56, "t": 44, "b": 44},
    )
