"""The figure of the learning-rate finder."""

from __future__ import annotations

import json

from mlae_lab.core.rate_curve import RatePoint, rates
from mlae_lab.ui.figures.learning_rate import rate_figure

POINTS = [RatePoint(rate, 2.0, 2.0 - i / 100) for i, rate in enumerate(rates("adamw"))]


def test_labels_of_near_lines_are_side_by_side() -> None:
    for suggestion, current in ((0.003, 0.005), (0.005, 0.003)):
        layout = json.loads(rate_figure(POINTS, suggestion, current).spec)["layout"]
        sides = {label["text"].split()[0]: label["xanchor"] for label in layout["annotations"]}
        lower = "suggested" if suggestion < current else "now"
        assert sides[lower] == "right"
        assert sorted(sides.values()) == ["left", "right"]
        assert layout["title"]["text"] == f"Suggested peak rate: {suggestion:g}"


def test_without_a_suggestion_the_title_says_so() -> None:
    layout = json.loads(rate_figure(POINTS, None, 0.005).spec)["layout"]
    assert layout["title"]["text"] == "The loss does not fall at any rate"
    assert [label["text"] for label in layout["annotations"]] == ["now 0.005"]
