"""Figures of errors and of seeds: data and titles agree with the input."""

from __future__ import annotations

import json
import re

import pytest

from mlae_lab.core.paired_tests import paired_tests
from mlae_lab.core.proportions import wilson
from mlae_lab.core.seed_statistics import seed_statistics
from mlae_lab.locations import PACKAGE
from mlae_lab.ui import figures

NAMES = ["cat", "dog", "owl"]
COUNTS = [[8, 2, 0], [5, 5, 0], [0, 0, 0]]
SHARES = [[0.8, 0.2, 0.0], [0.5, 0.5, 0.0], [None, None, None]]
CLASSES = [
    {
        "name": n,
        "images": sum(row),
        "correct": row[i],
        "low": wilson(row[i], sum(row))[0],
        "high": wilson(row[i], sum(row))[1],
    }
    for i, (n, row) in enumerate(zip(NAMES, COUNTS, strict=False))
]
BINS = [
    {"low": 0.0, "high": 0.5, "images": 0, "accuracy": None, "confidence": None},
    {"low": 0.5, "high": 1.0, "images": 20, "accuracy": 0.65, "confidence": 0.9},
]
A = {
    "task": "t", "fingerprint": "p", "names": NAMES, "indices": list(range(30)), "truth": [0] * 10 + [1] * 20,
    "predicted": [0] * 9 + [1] + [0] * 18 + [1] * 2, "confidence": [0.5] * 30,
}  # fmt: skip
B = A | {"predicted": [0] * 8 + [1] * 2 + [1] * 18 + [0] * 2}


def layout(figure: figures.Figure) -> dict:
    return json.loads(figure.spec)["layout"]


def every() -> list[figures.Figure]:
    return [
        figures.confusion_figure(NAMES, COUNTS, SHARES),
        figures.class_accuracy_figure(CLASSES, 65.0),
        figures.reliability_figure(BINS, 0.25, 0.9, 0.65),
        figures.paired_tests_figure(paired_tests(A, B)),
        figures.seeds_figure({0: 60.0, 1: 62.0}, seed_statistics(4, [60.0, 62.0]), "val"),
    ]


def test_every_colour_has_a_meaning_and_every_axis_a_name() -> None:
    known = set(re.findall(r"(\w+): \"#", (PACKAGE / "ui" / "palette.js").read_text()))
    for figure in every():
        assert set(re.findall(r'"@(\w+)"', figure.spec)) <= known
        axes = [value for name, value in layout(figure).items() if re.fullmatch(r"[xy]axis\d?", name)]
        assert len(axes) >= 2
        assert all(entry["title"]["text"] for entry in axes)
        assert layout(figure)["title"]["text"] in figure.alt
    assert len({figure.name for figure in every()}) == len(every())


def test_the_matrix_shows_shares_and_counts_each_once() -> None:
    correct, errors = figures.confusion_figure(NAMES, COUNTS, SHARES).data
    assert correct["z"] == [[0.8, None, None], [None, 0.5, None], [None, None, None]]
    assert errors["z"] == [[None, 0.2, None], [0.5, None, None], [None, None, None]]
    assert correct["text"] == [[8, "", ""], ["", 5, ""], ["", "", ""]]
    assert errors["text"] == [["", 2, ""], [5, "", ""], ["", "", ""]]
    assert errors["zmax"] == 0.5
    assert errors["customdata"] == COUNTS


def test_the_matrix_names_the_most_frequent_error() -> None:
    title = layout(figures.confusion_figure(NAMES, COUNTS, SHARES))["title"]["text"]
    assert title == "Most often dog is misclassified as cat: 5 of 10 images"
    good = figures.confusion_figure(["a", "b"], [[3, 0], [0, 4]], [[1.0, 0.0], [0.0, 1.0]])
    assert layout(good)["title"]["text"] == "All 7 images are classified correctly"


@pytest.mark.parametrize("size", [10, 34, 35, 100, 397])
def test_a_matrix_of_many_classes_can_be_read(size: int) -> None:
    names = [f"a rather long name of class {i}" for i in range(size)]
    counts = [[10 if i == j else int(j == (i + 1) % size) for j in range(size)] for i in range(size)]
    figure = figures.confusion_figure(names, counts, [[n / 11 for n in row] for row in counts])
    axis = layout(figure)["yaxis"]
    assert len(axis["tickvals"]) == len(axis["ticktext"]) <= 34
    assert max(map(len, axis["ticktext"])) <= 16
    assert set(axis["tickvals"]) <= set(names)
    assert 320 <= layout(figure)["height"] <= 860
    assert ("text" in figure.data[0]) == (size <= 16)


def test_accuracy_by_class_is_sorted_and_has_its_intervals() -> None:
    figure = figures.class_accuracy_figure(CLASSES, 65.0)
    (bars,) = figure.data
    assert (bars["x"], bars["y"]) == (["dog", "cat"], [50.0, 80.0])
    low, high = wilson(5, 10)
    assert bars["error_y"]["array"][0] == pytest.approx(100 * high - 50, abs=0.01)
    assert bars["error_y"]["arrayminus"][0] == pytest.approx(50 - 100 * low, abs=0.01)
    assert layout(figure)["title"]["text"] == "Lowest accuracy: dog (50 %), highest: cat (80 %)"
    assert layout(figure)["shapes"][0]["y0"] == 65.0


def test_the_reliability_curve_leaves_empty_bins_out() -> None:
    points, strip = figures.reliability_figure(BINS, 0.25, 0.9, 0.65).data
    assert (points["x"], points["y"], points["customdata"]) == ([0.9], [0.65], [20])
    assert points["error_y"]["array"] == [pytest.approx(wilson(13, 20)[1] - 0.65, abs=1e-4)]
    assert (strip["x"], strip["y"]) == ([0.25, 0.75], [0, 20])


@pytest.mark.parametrize(
    ("confidence", "word"), [(0.9, "Overconfident"), (0.6, "Underconfident"), (0.66, "Calibration")]
)
def test_the_title_of_the_reliability_curve_names_overconfidence(confidence: float, word: str) -> None:
    figure = figures.reliability_figure(BINS, 0.25, confidence, 0.65)
    assert layout(figure)["title"]["text"].startswith(f"{word}: ")
    assert "ECE 0.250" in figure.alt


def test_bars_go_up_for_b_and_down_for_a() -> None:
    figure = figures.paired_tests_figure(paired_tests(A, B))
    up, down = figure.data
    assert (up["x"], up["y"], down["y"]) == (["dog", "cat"], [18, 0], [-2, -1])
    assert layout(figure)["title"]["text"] == "Only B is correct on 18 images, only A on 3, of 30"
    stars = [note["x"] for note in layout(figure)["annotations"] if note["text"] == "*"]
    assert stars == ["dog"], "one image of a cat is not significant"
    same = figures.paired_tests_figure(paired_tests(A, A))
    assert layout(same)["title"]["text"] == "A and B are correct on the same 11 of 30 images"
    assert same.data[0]["x"] == []


def test_seeds_have_a_dot_each_and_their_interval() -> None:
    statistics = seed_statistics(4, [60.0, 62.0, 64.0])
    figure = figures.seeds_figure({0: 60.0, 2: 62.0, 5: 64.0}, statistics, "test")
    (dots,) = figure.data
    assert (dots["x"], dots["y"]) == (["0", "2", "5"], [60.0, 62.0, 64.0])
    band, line = layout(figure)["shapes"]
    assert (band["y0"], band["y1"], line["y0"]) == (statistics.low, statistics.high, 62.0)
    assert layout(figure)["title"]["text"] == "Accuracy on test: 62.0 % (95 % 57.0 to 67.0, n = 3)"


def test_the_axis_of_seeds_ends_at_100_percent() -> None:
    values = [99.0, 99.5, 100.0]
    figure = figures.seeds_figure(dict(enumerate(values)), seed_statistics(3, values), "test")
    assert layout(figure)["yaxis"]["range"][1] == 100.0


def test_one_seed_has_neither_mean_nor_interval() -> None:
    figure = figures.seeds_figure({3: 60.0}, seed_statistics(4, [60.0]), "val")
    assert layout(figure)["shapes"] == []
    assert layout(figure)["annotations"] == []
    assert layout(figure)["title"]["text"] == "Accuracy on val: 60.0 %, one seed"
