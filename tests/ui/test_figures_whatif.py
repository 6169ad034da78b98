"""Figures of a run without some of its experts: data and titles agree with the input."""

from __future__ import annotations

import json

from mlae_lab.core.patterns import allocation
from mlae_lab.ui import figures
from mlae_lab.ui.figures import Figure

PLAN = allocation((2, 0, 3))


def title(figure: Figure) -> str:
    return json.loads(figure.spec)["layout"]["title"]["text"]


def importance() -> dict:
    none = [None, None, None]
    return {
        "experts": {
            "loss": [[0.1, -0.2, None], none, [0.0, 0.3, 0.05]],
            "estimate": [[0.1, -0.1, None], none, [0.0, 0.5, 0.05]],
            "accuracy": [[-1.0, 0.5, None], none, [0.0, -2.0, 0.0]], "pearson": 0.91234, "spearman": 0.8,
        },
        "layers": {"loss": [0.1, None, 0.7], "estimate": [0.0, None, 0.55], "accuracy": [-1.0, None, -9.0]},
    }  # fmt: skip


def test_the_class_that_changes_most_is_named() -> None:
    figure = figures.class_change_figure(["cat", "dog", "eel"], [50.0, 80.0, None], [60.0, 55.0, None])
    assert title(figure) == "dog changes most: -25 points"
    bar = figure.data[0]
    assert bar["y"] == ["cat", "dog"]
    assert bar["x"] == [10.0, -25.0]
    assert title(figures.class_change_figure(["cat"], [50.0], [50.0])) == "No class changes"


def test_with_many_classes_the_largest_changes_are_shown() -> None:
    names = [f"class {i}" for i in range(200)]
    figure = figures.class_change_figure(names, [50.0] * 200, [50.0 + (i % 50) for i in range(200)])
    assert len(figure.data[0]["y"]) == 24
    assert min(figure.data[0]["x"]) >= 44


def test_exact_and_estimate_share_a_scale_and_name_their_correlation() -> None:
    exact, estimate = figures.importance_figures(importance(), PLAN)
    assert title(exact) == "Layer 3, expert 2 is most important (loss +0.300 without it)"
    assert title(estimate) == "First-order estimate: Pearson r 0.91, Spearman ρ 0.80"
    for figure in (exact, estimate):
        grid = figure.data[0]
        assert (grid["zmin"], grid["zmax"]) == (-0.5, 0.5)
        assert len(figure.data[1]["x"]) == 4  # absent cells are struck
    assert exact.data[0]["z"][2][1] == 0.3


def test_layers_without_experts_have_no_bar() -> None:
    figure = figures.layers_figure(importance(), PLAN)
    assert title(figure) == "Layer 3 is most important (loss +0.700 without it)"
    assert figure.data[0]["x"] == ["1", "3"]
    assert figure.data[1]["y"] == [0.0, 0.55]


def test_the_smallest_sufficient_number_is_named() -> None:
    down = [(3, 60.0), (2, 62.0), (1, 60.0), (0, 20.0)]
    up = [(0, 20.0), (1, 55.0), (2, 58.0), (3, 60.0)]

    def steps(points: list) -> list[dict]:
        return [
            {"kept": k, "accuracy": a, "loss": 1.0, "cell": None if not i else [1, i]}
            for i, (k, a) in enumerate(points)
        ]

    three_experts = allocation((3,))
    figure = figures.greedy_figure({"removal": steps(down), "addition": steps(up)}, three_experts)
    assert title(figure) == "1 of 3 experts reaches the accuracy of all (60.0 %); 2 reach 62.0 %"
    assert figure.data[0]["x"] == [0, 1, 2, 3]
    assert figure.data[0]["y"] == [20.0, 60.0, 62.0, 60.0]
    three = figures.greedy_figure(
        {"estimate": steps(down), "removal": steps(down), "addition": steps(up)}, three_experts
    )
    assert [trace["line"]["dash"] for trace in three.data[:3]] == ["dot", "solid", "solid"]
    alone = figures.greedy_figure({"removal": steps([*down[:1], (2, 50.0)])}, three_experts)
    assert title(alone) == "3 of 3 experts reach the accuracy of all (60.0 %)"


def test_two_runs_under_random_masks_share_their_bins() -> None:
    answer = {
        "accuracies": [50.0, 52.0, 51.0],
        "trained": {"accuracy": 60.0},
        "mean": 51.0,
        "deviation": 1.0,
        "rate": 0.5,
        "samples": 3,
        "images": 50,
    }
    other = {**answer, "accuracies": [30.0, 20.0, 25.0], "mean": 25.0}
    figure = figures.robustness_figure([("A", answer), ("B", other)])
    assert title(figure) == "At p = 0.5, A loses 9.0 points and B loses 35.0 points on average"
    assert figure.data[0]["xbins"] == figure.data[1]["xbins"]
    assert figure.data[0]["xbins"]["start"] < 20
    layout = json.loads(figure.spec)["layout"]
    one_mask = 1 / layout["yaxis"]["range"][1]  # height of the tallest bar, of the whole
    assert one_mask < min(note["y"] for note in layout["annotations"]) - 0.09, "labels are above the bars"
