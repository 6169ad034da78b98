"""The figures of the Methods page."""

from __future__ import annotations

import json

from mlae_lab.core.method import names
from mlae_lab.core.paper_methods import rows
from mlae_lab.core.seed_statistics import PERCENT, seed_statistics
from mlae_lab.runs.method_points import MethodPoint
from mlae_lab.runs.method_table import TablePoint
from mlae_lab.ui import figures
from mlae_lab.ui.figures.methods import Paper

POINTS = [
    MethodPoint("linear probe", "linear", 0, 0.0, seed_statistics(2, [70.0], PERCENT), "2 epochs", ("a",)),
    MethodPoint("stochastic mask", "mlae", 1000, 500.0, seed_statistics(2, [80.0, 84.0], PERCENT), "", ("b", "c")),
]
PAPER: Paper = [(row, row.accuracy["dmlab"]) for row in rows() if "dmlab" in row.accuracy]


def point(name: str, parameters: int, accuracy: float, settings: str = "") -> MethodPoint:
    return MethodPoint(name, name, parameters, parameters, seed_statistics(2, [accuracy], PERCENT), settings, (name,))


def test_the_ranking_has_the_best_on_top_with_intervals() -> None:
    figure = figures.ranking_figure(POINTS, "val", [])
    (trace,) = figure.data
    assert (trace["x"], trace["y"]) == ([70.0, 82.0], ["linear probe", "stochastic mask"])
    assert trace["error_x"]["array"][0] == 0 < trace["error_x"]["array"][1]
    assert "Best on val: stochastic mask, 82.0 % (mean of 2 seeds)" in figure.spec


def test_points_of_one_method_are_named_with_their_settings() -> None:
    points = [point("SSF", 9, 50.0, "2 epochs"), point("SSF", 9, 60.0, "4 epochs"), point("LoRA", 9, 55.0)]
    names = figures.ranking_figure(points, "val", []).data[0]["y"]
    assert names == ["SSF (2 epochs)", "LoRA", "SSF (4 epochs)"]


def test_the_paper_stands_in_the_rows_of_its_methods() -> None:
    paper = figures.ranking_figure(POINTS, "test", PAPER).data[0]
    assert set(zip(paper["y"], paper["x"], strict=True)) == {("linear probe", 33.2), ("stochastic mask", 55.7)}


def test_parameters_trained_and_active() -> None:
    figure = figures.methods_figure(POINTS, "val", False, [])
    (trace,) = figure.data
    assert (trace["x"], trace["y"]) == ([250.0, 1000], [70.0, 82.0])
    assert trace["text"] == ["linear probe (0)", "stochastic mask"]
    assert figures.methods_figure(POINTS, "val", True, []).data[0]["x"] == [125.0, 500.0]
    assert "linear probe 70.0 % with 0 parameters" in figure.alt


def test_the_points_of_the_paper_are_drawn_first_and_fit() -> None:
    figure = figures.methods_figure(POINTS, "test", False, PAPER)
    paper = figure.data[0]
    assert (paper["text"][0], paper["x"][0]) == ("Full", 85.8e6)


def test_labels_of_close_points_stand_on_different_sides() -> None:
    close = [point("SSF", 34_304, 80.0), point("LoRA", 40_000, 80.0), point("far away", 5_000_000, 60.0)]
    trace = figures.methods_figure(close, "val", False, []).data[0]
    assert trace["text"] == ["SSF", "LoRA", "far away"]
    assert trace["textposition"][0] != trace["textposition"][1]


def test_labels_that_would_cover_each_other_are_left_out_and_the_point_says_its_name() -> None:
    crowd = [point(name, 50_000 + i, 80.0 + i / 100) for i, name in enumerate(names())]
    trace = figures.methods_figure(crowd, "val", False, []).data[0]
    assert 0 < sum(map(bool, trace["text"])) < len(crowd)
    assert trace["hovertext"] == list(names())


def test_the_table_has_a_row_per_method_with_both_recipes_and_the_linear_probe_as_a_line() -> None:
    def table_point(method: str, recipe: str, *accuracies: float) -> TablePoint:
        return TablePoint(method, method.upper(), recipe, 9, seed_statistics(2, accuracies, PERCENT))

    points = [
        table_point("ssf", "own", 90.0, 92.0), table_point("lora", "common", 85.0), table_point("ssf", "common", 80.0),
        table_point("linear", "common", 70.0),
    ]  # fmt: skip
    figure = figures.table_figure(points, "Digits")
    layout = json.loads(figure.spec)["layout"]
    labels = dict(zip(layout["yaxis"]["tickvals"], layout["yaxis"]["ticktext"], strict=True))
    common, own = figure.data
    rows = [labels[round(y)] for y in common["y"]]
    assert list(zip(rows, common["x"], strict=True)) == [("LINEAR", 70.0), ("SSF", 80.0), ("LORA", 85.0)]
    assert sorted(labels) == [0, 1, 2]
    assert labels[2] == "LORA"  # on top: the best with the common recipe
    assert (labels[round(own["y"][0])], own["x"]) == ("SSF", [91.0])
    assert own["error_x"]["array"][0] == 9.0  # t(1) is 12.7: cut at 100 %
    assert common["marker"]["symbol"] != own["marker"]["symbol"]
    assert layout["shapes"][0]["x0"] == 70.0
    assert "Best: SSF, 91.0 % (2 seeds)" in layout["title"]["text"]
