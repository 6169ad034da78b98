"""Figures of similarity and of the central experiment: data and titles agree with the input."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import SimilarityStats
from mlae_lab.core.random_baseline import RandomBaseline
from mlae_lab.core.seed_statistics import seed_statistics
from mlae_lab.core.study_presets import diversity
from mlae_lab.runs.similarity_results import Point, SimilarityResults
from mlae_lab.ui.figures.base import Figure
from mlae_lab.ui.figures.curves import similarity_curve
from mlae_lab.ui.figures.diversity import diversity_figure
from mlae_lab.ui.figures.similarity import Line, by_layer_figure, overlap_figure, rank_curve, spectrum_figure


def layout(figure: Figure) -> dict:
    return json.loads(figure.spec)["layout"]


def named(figure: Figure) -> dict[str, dict]:
    return {trace["name"]: trace for trace in figure.data}


def labels(figure: Figure) -> list[str]:
    return [note["text"] for note in layout(figure)["annotations"]]


# ---------------------------------------------------------------- by layer


def test_lines_by_layer_with_gaps_and_the_random_baseline() -> None:
    lines = [Line("this run", (0.1, None, 0.3)), Line("other", (0.2, 0.2, 0.2), strong=False)]
    baseline = [RandomBaseline(0.05, 0.01), None, RandomBaseline(0.06, 0.01)]
    figure = by_layer_figure("layers", ("1", "2", "3"), lines, "A finding", "mean |cosine|", baseline)
    traces = named(figure)
    assert traces["this run"]["x"] == [0, 2]
    assert traces["this run"]["y"] == [0.1, 0.3]
    assert traces["other"]["line"]["dash"] == "dash"
    assert (
        by_layer_figure("l", ("1",), [Line("stable", (1.0,), dash="dot")], "A", "rank").data[0]["line"]["dash"] == "dot"
    )
    assert traces["random experts"]["y"] == [0.05, 0.06]
    band = traces["random experts, two standard deviations"]
    assert min(band["y"]) == 0.03
    assert max(band["y"]) == 0.08
    assert band["fill"] == "toself"
    assert sorted(labels(figure)) == ["other", "random", "this run"]
    assert layout(figure)["xaxis"]["ticktext"] == ["1", "2", "3"]
    assert layout(figure)["yaxis"]["range"][0] >= 0
    assert figure.name == "layers"
    assert "A finding" in figure.alt


def test_nothing_by_layer_is_an_empty_frame() -> None:
    assert by_layer_figure("layers", ("1",), [Line("this run", (None,))], "Nothing", "rank").data == []


# ---------------------------------------------------------------- spectrum and spaces


def test_a_spectrum_is_the_mean_share_over_layers() -> None:
    figure = spectrum_figure([[3.0, 1.0], [1.0, 1.0], []], [[2.0]], "this run", "other")
    traces = named(figure)
    assert traces["this run"]["y"] == [0.625, 0.375]
    assert traces["other"]["y"] == [1.0]
    band = traces["this run, lowest to highest layer"]
    assert band["y"] == [0.5, 0.25, 0.5, 0.75]
    assert layout(figure)["title"]["text"] == "Spectrum of ΔW: the first of 2 singular values has 62 %"
    more = spectrum_figure([[3.0, 1.0]], [[2.0, 1.0, 1.0]], "this run", "other")
    assert "the first of 2 singular values has 75 %" in more.alt
    assert labels(figure) == ["other", "this run"] or labels(figure) == ["this run", "other"]
    assert spectrum_figure([[], []]).data == []


def test_the_overlap_of_layers_leaves_the_diagonal_out() -> None:
    figure = overlap_figure([[1.0, 0.2, None], [0.2, 1.0, None], [None, None, 1.0]], ("1", "2", "3"), "row", 0.05)
    assert figure.data[0]["z"] == [[None, 0.2, None], [0.2, None, None], [None, None, None]]
    assert layout(figure)["title"]["text"] == "Row spaces of ΔW: mean overlap 0.20 (random 0.05)"
    assert figure.name == "overlap-row"
    assert "no two layers to compare" in overlap_figure([[None]], ("1",), "column", None).alt


def test_similarity_over_epochs_of_two_runs_with_the_random_baseline() -> None:
    history = [SimilarityStats(e, (0.1,), (0.1 * e,), ((),)) for e in (1, 2)]
    figure = similarity_curve(history, [SimilarityStats(2, (0.1,), (0.4,), ((),))], "other", 0.003)
    assert layout(figure)["title"]["text"] == "Experts of a layer: mean |cosine| 0.200, in the other run 0.400"
    assert named(figure)["other run, absolute"]["y"] == [0.4]
    assert layout(figure)["shapes"][0]["y0"] == 0.003
    assert "random" in labels(figure)


def test_labels_of_similarity_over_epochs_do_not_overlap() -> None:
    history = [SimilarityStats(e, (0.03,), (0.034,), ((),)) for e in (1, 2, 3)]
    shown = layout(similarity_curve(history, [SimilarityStats(4, (0.02,), (0.02,), ((),))], "other", 0.003))
    low, high = shown["yaxis"]["range"]
    notes = shown["annotations"]
    assert {note["x"] for note in notes} == {4}
    heights = sorted(note["y"] * (220 - 88) / (high - low) + note["yshift"] for note in notes)
    assert len(heights) == 4
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 14
    assert {note.get("name") for note in notes} == {"absolute", "signed", "other run, absolute", None}


# ---------------------------------------------------------------- the central experiment


def results(seeds: int) -> SimilarityResults:
    study = diversity(RunConfig("digits", epochs=2, evaluations=1), (0.5, 0.9), max(seeds, 1))

    def point(arm: str, rate: float, value: float) -> Point:
        values = seed_statistics(2, [value + 0.01 * seed for seed in range(seeds)])
        against = (
            {}
            if arm == "dense" or (arm != "lora" and not rate)
            else {"absolute": seed_statistics(2, [value - 0.3] * seeds)}
        )
        return Point(
            arm,
            rate,
            tuple(range(seeds)),
            {"absolute": values, "accuracy": replace(values, high=130.0)},
            against,
            "dense",
        )

    arms = [("dense", 0.0), *((arm, rate) for arm in ("expert", "token") for rate in (0.0, 0.5))]
    points = tuple(point(arm, rate, 0.3 - rate / 4) for arm, rate in arms if seeds)
    return SimilarityResults(study, (0.0, 0.5, 0.9), points, study.runs, 0, RandomBaseline(0.003, 0.001))


def test_a_line_with_its_band_for_each_arm() -> None:
    figure = diversity_figure(results(3), "absolute")
    traces = named(figure)
    assert traces["Expert dropout"]["x"] == [0.0, 0.5]
    assert traces["Expert dropout"]["y"] == pytest.approx([0.31, 0.185])
    assert traces["Expert dropout"]["text"] == ["3 seeds", "3 seeds"]
    assert {"Expert dropout, 95 % interval", "Rank dropout per token, 95 % interval"} <= set(traces)
    assert traces["dense"]["y"] == [0.31, 0.31]
    assert traces["dense"]["x"] == [0, 0.9]
    assert traces["random"]["y"] == [0.003] * 2
    assert sorted(labels(figure)) == ["dense", "expert", "random", "token"]
    assert layout(figure)["title"]["text"] == "Mean |cosine|: 0.310 dense, 0.185 at p = 0.5"
    assert figure.name == "diversity-absolute"
    assert layout(figure)["xaxis"]["tickvals"] == [0, 0.5, 0.9]


def test_the_title_names_the_means_that_are_drawn() -> None:
    """A paired difference covers fewer seeds than the mean of the dense run while runs are missing."""
    whole = results(3)
    points = tuple(
        replace(point, differences={"absolute": seed_statistics(2, [-0.5])}) if point.differences else point
        for point in whole.points
    )
    figure = diversity_figure(replace(whole, points=points), "absolute")
    assert layout(figure)["title"]["text"] == "Mean |cosine|: 0.310 dense, 0.185 at p = 0.5"


def test_an_interval_above_100_percent_does_not_extend_the_axis() -> None:
    assert layout(diversity_figure(results(3), "accuracy"))["yaxis"]["range"][1] == 102
    assert "random" not in named(diversity_figure(results(3), "accuracy"))


def test_one_seed_has_no_band_and_nothing_is_an_empty_frame() -> None:
    assert not [name for name in named(diversity_figure(results(1), "absolute")) if "interval" in name]
    empty = diversity_figure(results(0), "absolute")
    assert [trace["name"] for trace in empty.data] == ["random"]
    assert layout(empty)["title"]["text"] == "Mean |cosine| against p"


def test_ranks_over_epochs_are_shown_with_the_largest_possible_rank() -> None:
    own, other = [(1, 2.0), (2, 3.31)], [(1, 4.0), (2, 6.66)]
    figure = rank_curve("r", "effective", own, other, 4.2, 8)
    assert "Effective rank: 3.31 (max. 4.2), other run 6.66 (max. 8)" in figure.alt
    assert [trace["y"] for trace in figure.data] == [[2.0, 3.31], [4.0, 6.66]]
    assert "6.66." in rank_curve("r", "stable", own, other, 8, 8).alt  # equal limits are shown once
    assert "ΔW is 0" in rank_curve("r", "stable", []).alt
