"""The figure of accuracy against parameters."""

from __future__ import annotations

from mlae_lab.core.paper_methods import rows
from mlae_lab.core.seed_statistics import PERCENT, seed_statistics
from mlae_lab.runs.method_points import MethodPoint
from mlae_lab.ui import figures

POINTS = [
    MethodPoint("linear probe", "linear", 0, 0.0, seed_statistics(2, [70.0], PERCENT), "2 epochs", ("a",)),
    MethodPoint("stochastic mask", "mlae", 1000, 500.0, seed_statistics(2, [80.0, 84.0], PERCENT), "", ("b", "c")),
]


def test_points_intervals_and_axis() -> None:
    figure = figures.methods_figure(POINTS, "val", False, [])
    (trace,) = figure.data
    assert (trace["x"], trace["y"]) == ([250.0, 1000], [70.0, 82.0])
    assert trace["error_y"]["array"][0] == 0 < trace["error_y"]["array"][1]
    assert figures.methods_figure(POINTS, "val", True, []).data[0]["x"] == [125.0, 500.0]
    assert "Best on val: stochastic mask, 82.0 % (mean of 2 seeds)" in figure.spec
    assert trace["text"] == ["linear probe (0)", "stochastic mask"]
    assert "linear probe 70.0 % with 0 parameters" in figure.alt


def test_the_paper_is_behind_the_runs() -> None:
    paper = [(row, row.accuracy["dmlab"]) for row in rows() if "dmlab" in row.accuracy]
    data = figures.methods_figure(POINTS, "test", False, paper).data
    assert len(data) == 2
    assert data[0]["text"][0] == "Full"
    assert data[0]["x"][0] == 85.8e6


def test_labels_of_close_points_stand_on_both_sides() -> None:
    accuracy = seed_statistics(2, [80.0], PERCENT)
    close = [MethodPoint(name, name, n, n, accuracy, "", ("a",)) for name, n in (("ssf", 34_304), ("lora", 49_152))]
    assert figures.methods_figure(close, "val", False, []).data[0]["textposition"] == ["middle left", "middle right"]
