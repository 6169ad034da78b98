"""Figures of two masks: data and titles agree with the input, and no difference is shown by colour alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.locations import PACKAGE
from mlae_lab.runs.paired_curves import Pair
from mlae_lab.runs.paired_curves import difference as difference_of
from mlae_lab.ui import figures


def pair(seed: int, *gains: float, last_epoch: int = 3) -> Pair:
    """A pair evaluated after epochs 1, 2, ..., with B above A by these points."""
    a = tuple((epoch, 50.0 + epoch) for epoch in range(1, len(gains) + 1))
    return Pair(seed, a, tuple((e, v + gain) for (e, v), gain in zip(a, gains, strict=False)), last_epoch)


def difference(*complete_pairs: Pair) -> figures.Figure:
    return figures.difference_figure(difference_of(complete_pairs), epochs=3)


def layout(figure: figures.Figure) -> dict:
    return json.loads(figure.spec)["layout"]


def names(figure: figures.Figure) -> list[str]:
    return [trace["name"] for trace in figure.data]


THREE = (pair(0, 0.0, 1.0, 1.0), pair(1, 1.0, 2.0, 2.0), pair(2, -1.0, 3.0, 6.0))


def test_each_seed_is_a_named_line_and_the_mean_stands_out() -> None:
    figure = difference(*THREE)
    assert names(figure) == ["95 % interval of the mean", "seed 0", "seed 1", "seed 2", "mean over seeds"]
    assert figure.data[3]["y"] == [-1.0, 3.0, 6.0]
    assert figure.data[4]["y"] == [0.0, 2.0, 3.0]
    assert figure.data[4]["line"]["width"] > 2 * figure.data[3]["line"]["width"]
    assert {note["text"] for note in layout(figure)["annotations"]} >= {"seed 0", "seed 1", "seed 2", "mean"}
    assert "B − A: +3.0 points (95 %: −3.6 to +9.6)" in figure.alt
    assert "3 pairs of runs, seeds 0, 1, 2." in figure.alt
    assert "n = 3, standard deviation 2.6" in figure.alt


def test_the_band_is_the_interval() -> None:
    band = difference(*THREE).data[0]
    assert band["x"] == [1, 2, 3, 3, 2, 1]
    low, high = band["y"][2], band["y"][3]
    assert (low + high) / 2 == pytest.approx(3.0)
    assert high - low == pytest.approx(2 * 6.573, abs=0.01)


def test_the_zero_line_is_in_range() -> None:
    for shown_pairs in (THREE, (pair(0, 5.0, 6.0, 7.0),), (pair(0, -5.0, -6.0, -7.0),), ()):
        drawn_layout = layout(difference(*shown_pairs))
        low, high = drawn_layout["yaxis"]["range"]
        assert low < 0 < high
        assert [shape["y0"] for shape in drawn_layout["shapes"]] == [0]


def test_a_single_pair_has_no_mean_and_no_band() -> None:
    figure = difference(pair(4, 1.0, 2.0, 2.5))
    assert names(figure) == ["seed 4"]
    assert "B − A: +2.5 points, one pair" in figure.alt
    assert "1 pair of runs, seed 4." in figure.alt


def test_an_unfinished_pair_is_dotted_and_labelled() -> None:
    whole, half = difference(THREE[0], THREE[1], pair(7, 1.0, 1.0)).data[1:4:2]
    assert (whole["line"]["dash"], half["line"]["dash"]) == ("solid", "dot")
    assert half["opacity"] < whole["opacity"]
    assert half["name"] == "seed 7, unfinished"
    assert len(half["x"]) == 2
    assert "1 not at the last epoch" in difference(*THREE, pair(7, 1.0)).alt


def test_runs_without_evaluations_have_a_figure() -> None:
    assert "no common evaluation yet" in difference().alt
    assert "not evaluated yet" in figures.two_curves_figure((), (), "val", 3).alt


def test_end_labels_do_not_overlap() -> None:
    figure = difference(*(pair(seed, 1.0, 1.0, 1.0 + seed / 100) for seed in range(8)))
    drawn_layout = layout(figure)
    low, high = drawn_layout["yaxis"]["range"]
    scale = (drawn_layout["height"] - drawn_layout["margin"]["t"] - drawn_layout["margin"]["b"]) / (high - low)
    at = sorted(
        note["y"] * scale + note["yshift"]
        for note in drawn_layout["annotations"]
        if note["xanchor"] == "left" and "xref" not in note
    )
    assert len(at) == 9
    assert all(second - first >= 14 for first, second in pairwise(at))


def test_both_curves_with_their_bands() -> None:
    curves_a, curves_b = [[(1, 50.0), (2, 60.0)], [(1, 52.0), (2, 64.0)]], [[(1, 55.0), (2, 70.0)]]
    figure = figures.two_curves_figure(curves_a, curves_b, "test", 2)
    assert names(figure) == ["A, lowest to highest", "A", "B"]
    assert figure.data[0]["y"] == [50.0, 60.0, 64.0, 52.0]
    assert figure.data[1]["y"] == [51.0, 62.0]
    assert figure.data[2]["y"] == [55.0, 70.0]
    assert figure.data[1]["line"]["dash"] != figure.data[2]["line"]["dash"]  # distinct without colour
    assert "Accuracy on test: A 62.0 %, B 70.0 %." in figure.alt
    assert "Accuracy on val, mean of 2 seeds: A 62" in figures.two_curves_figure(curves_a, curves_a, "val", 2).alt


def test_figures_of_long_runs_of_many_seeds_are_small() -> None:
    many = [pair(seed, *[seed / 7] * 10_000, last_epoch=10_000) for seed in range(3)]
    figure = figures.difference_figure(difference_of(many), 10_000)
    assert len(figure.spec) < 120_000
    assert figure.data[1]["x"][-1] == 10_000


# ---------------------------------------------------------------- masks


def test_every_cell_shows_which_masks_have_it() -> None:
    a = MaskPlan(((1, 1, 0), (1, 1, 0)), ((0.5, 0.5, 0), (0, 0.2, 0)), block_targets(2))
    b = MaskPlan(((1, 0, 1), (1, 1, 0)), ((0.5, 0, 0.1), (0.3, 0.1, 0)), block_targets(2))
    figure = figures.mask_difference_figure(a, b)
    cells, neither = figure.data
    assert cells["text"] == [["", "A", "B"], ["↑", "↓", ""]]
    assert cells["z"] == [[0, 1, 3], [2, 2, None]]
    assert cells["customdata"][1][0] == "in both, p = 0 in A and 0.3 in B"
    assert (neither["x"], neither["y"]) == (["3"], ["2"])
    assert "1 only in A, 1 only in B, 2 with another drop rate, 1 the same" in figure.alt


def test_row_rates_are_shown_at_their_rows() -> None:
    drawn_layout = layout(figures.mask_difference_figure(uniform(0.5), pattern("incremental", "stochastic")))
    texts = {note["y"]: note["text"] for note in drawn_layout["annotations"]}
    assert texts[0] == "p 0.5 → 0.8"
    assert texts[11] == "p 0.5 → 0"
    assert 6 not in texts


def test_masks_of_different_width_and_layers() -> None:
    wide = figures.mask_difference_figure(dense(), allocation((14,) * 12))
    assert "72 only in B, 96 the same" in wide.alt
    other = replace(dense(), targets=block_targets(12, "mlp.fc1"))
    apart = figures.mask_difference_figure(dense(), other)
    assert "96 only in A, 96 only in B, 0 the same" in apart.alt
    assert apart.data[0]["y"][:1] + apart.data[0]["y"][-1:] == ["1 qkv", "12 fc1"]
    assert "All 96 experts are the same" in figures.mask_difference_figure(dense(), dense()).alt


def test_every_colour_has_a_meaning_in_the_palette() -> None:
    known = (PACKAGE / "ui" / "palette.js").read_text()
    curves = [[(1, 50.0), (2, 60.0)], [(1, 52.0), (2, 64.0)]]
    drawn = [
        difference(*THREE), difference(pair(0, 1.0)), figures.two_curves_figure(curves, curves, "val", 2),
        figures.mask_difference_figure(uniform(0.5), pattern("hourglass")),
    ]  # fmt: skip
    used = {name for figure in drawn for name in re.findall(r'"@([a-z]+)"', figure.spec)}
    assert used
    assert all(re.search(rf"\b{name}:", known) for name in used)


@pytest.mark.parametrize(
    ("a", "b", "title"),
    [
        (
            ((1, 50.0), (2, 60.0), (3, 70.0)),
            ((1, 40.0), (2, 65.0)),
            "Accuracy on val after epoch 2: A 60.0 %, B 65.0 %",
        ),
        (((1, 50.0), (2, 60.0)), ((1, 40.0), (2, 65.0)), "Accuracy on val: A 60.0 %, B 65.0 %"),
        (((1, 50.0),), (), "Accuracy on val: only A has been evaluated, 50.0 % after epoch 1"),
        (((1, 50.0),), ((2, 60.0),), "Accuracy on val: A and B have not been evaluated after the same epoch"),
    ],
)
def test_two_runs_are_compared_after_an_epoch_that_both_have(a: tuple, b: tuple, title: str) -> None:
    figure = figures.two_curves_figure((a,) if a else (), (b,) if b else (), "val", 4)
    assert layout(figure)["title"]["text"] == title
