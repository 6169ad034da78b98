"""Figures: data and titles agree with the input."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Grid, SearchGeneration, SimilarityStats, Started, Statistics, TrainStep
from mlae_lab.core.patterns import allocation, pattern, uniform
from mlae_lab.locations import PACKAGE
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.ui import figures
from mlae_lab.ui.figures import Running
from mlae_lab.ui.layer_grids import LayerGrid, layer_grids


def steps(count: int, per_epoch: int = 13) -> list[TrainStep]:
    return [
        TrainStep(i + 1, i // per_epoch + 1, 2.0 / (i + 1), min(99.0, float(i)), 1e-3, 48, i * 0.1)
        for i in range(count)
    ]


def evaluations(*accuracies: float) -> list[Evaluation]:
    return [Evaluation(i + 1, 13 * (i + 1), "val", a, 1.0 / (i + 1), 2.0 * i) for i, a in enumerate(accuracies)]


def reached(measured: list[Evaluation], epochs: int = 16, taken: int = 26, started: bool = True) -> Outcome:
    """A run of 800 training images in batches of 64, so of 13 steps an epoch."""
    config = RunConfig("digits", epochs=epochs)
    start = Started(1, 1, 1, 800, 200, 13 * epochs, "cpu", "float32", 0.1) if started else None
    return Outcome(config, start, measured, steps(taken)[-1])


def test_accuracy_figure_shows_every_evaluation_and_names_the_last() -> None:
    figure = figures.accuracy_figure(Running(steps(26)), reached(evaluations(40.0, 62.5)))
    measured = next(trace for trace in figure.data if trace["line"]["color"] == "@accent")
    assert measured["y"] == [40.0, 62.5]
    assert measured["x"] == [1, 2]
    assert "62.5 %" in figure.alt
    assert "epoch 2" in figure.alt


@pytest.mark.parametrize(
    ("accuracies", "reference", "low"),
    [
        ((40.0, 62.5), 50.0, 0),  # too early to say where it stays
        ((64.5, 70.0, 71.0), 65.0, 60),
        ((97.0, 99.0, 99.5), 98.0, 90),
        ((97.0, 99.0, 99.5), 52.5, 50),  # the reference stays on the axis
        ((1.0, 50.0, 60.0), 20.0, 0),
    ],
)
def test_the_accuracy_axis_begins_below_what_is_on_it_and_says_so(
    accuracies: tuple[float, ...], reference: float, low: int
) -> None:
    figure = figures.accuracy_figure(
        Running(steps(39)), reached(evaluations(*accuracies)), [figures.Reference("probe", reference)]
    )
    axis = json.loads(figure.spec)["layout"]["yaxis"]
    assert axis["range"] == [low, 102]
    assert axis["title"]["text"].endswith(f"from {low}" if low else "in %")


def test_accuracy_figure_before_the_first_evaluation() -> None:
    assert "not evaluated yet" in figures.accuracy_figure(Running(steps(3)), reached([])).alt


def test_an_evaluation_within_an_epoch_is_drawn_at_its_step() -> None:
    measured = [*evaluations(40.0, 62.5), Evaluation(3, 30, "val", 70.0, 0.3, 9.0)]
    figure = figures.accuracy_figure(Running(steps(30)), reached(measured, taken=30))
    assert next(trace for trace in figure.data if trace["line"]["color"] == "@accent")["x"] == [1, 2, 2.308]
    assert "70.0 %" in figure.alt
    assert "within epoch 3" in figure.alt


def test_training_is_drawn_at_its_share_of_an_epoch_from_the_first_step() -> None:
    outcome = reached([], taken=3)
    for figure in (
        figures.accuracy_figure(Running(steps(3)), outcome),
        figures.loss_figure(Running(steps(3)), outcome),
    ):
        assert figure.data[0]["x"] == [0.077, 0.154, 0.231]  # of 13 steps


def test_labels_at_the_right_edge_do_not_overlap() -> None:
    training = Running([TrainStep(i + 1, i // 13 + 1, 1.0, 60.0, 1e-3, 48, 0.1) for i in range(52)])
    references = [figures.Reference("probe 61.0", 61.0), figures.Reference("paper 59", 59.0)]
    outcome = reached(evaluations(50.0, 60.0, 62.0, 90.0), epochs=4, taken=52)
    layout = json.loads(figures.accuracy_figure(training, outcome, references).spec)["layout"]
    scale = (layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]) / layout["yaxis"]["range"][1]
    heights = {label["text"]: label["y"] * scale + label["yshift"] for label in layout["annotations"]}
    assert sorted(heights, key=heights.__getitem__) == ["paper 59", "train", "probe 61.0", "val"]
    ordered = sorted(heights.values())
    assert all(high - low >= 14 for low, high in pairwise(ordered))
    assert heights["val"] == 90.0 * scale


def test_labels_of_an_unfinished_run_leave_those_of_the_references_at_their_lines() -> None:
    outcome = reached(evaluations(50.0, 60.0), epochs=16)
    figure = figures.accuracy_figure(Running(steps(26)), outcome, [figures.Reference("probe 60.0", 60.0)])
    (probe,) = [label for label in json.loads(figure.spec)["layout"]["annotations"] if label["text"] == "probe 60.0"]
    assert probe["yshift"] == 0


def test_a_statistic_by_layer_has_a_line_for_each_and_their_mean() -> None:
    history = [(1, (0.5, None, 0.7)), (2, (1.5, None, 2.5)), (3, None)]
    figure = figures.statistic_figure("update_norm", ("Size", "‖ΔW‖"), history[:2], ["1", "2", "3"], 4)
    assert {trace["name"]: trace["y"] for trace in figure.data} == {
        "layer 1": [0.5, 1.5], "layer 3": [0.7, 2.5], "mean of the layers": [0.6, 2.0],
    }  # fmt: skip
    assert figure.alt == "Line chart. Size: mean 2, largest in layer 3 (2.5)."
    assert figure.name == "update-norm"
    gap = figures.statistic_figure("update_norm", ("Size", ""), history, ["1", "2", "3"], 4)
    assert gap.data[-1]["y"] == [0.6, 2.0, None]


def test_a_statistic_of_experts_is_shown_by_layer() -> None:
    figure = figures.statistic_figure("one", ("One", ""), [(1, ((1.0, 3.0), (None, None)))], ["1", "2"], 2)
    assert {trace["name"]: trace["y"] for trace in figure.data} == {"layer 1": [2.0], "mean of the layers": [2.0]}


def grids(*canvases: tuple, **more: Grid) -> list[LayerGrid]:
    labels = {"terms": ("Terms", "")}
    return layer_grids([Statistics(i, 13 * i, {"terms": c}, labels, more) for i, c in enumerate(canvases, 1)])


def test_a_grid_has_one_scale_for_all_evaluations_and_the_labels_of_the_last() -> None:
    note = Grid(("1", "2"), ("q", "k"), "part", "Size.")
    (own,) = grids(((1.0, 2.0), (None, 4.0)), ((1.0, 8.0), (None, None)), terms=note)
    assert (own.low, own.high, own.grid, list(own.canvases)) == (0.0, 8.0, note, [13, 26])
    figure = figures.layer_grid_figure(own, own.canvases[13], 1)
    assert figure.data[0]["z"] == [[1.0, 2.0], [None, 4.0]]
    assert (figure.data[0]["zmax"], figure.data[0]["x"], figure.data[0]["y"]) == (8.0, ["q", "k"], ["1", "2"])
    assert (figure.data[1]["x"], figure.data[1]["y"]) == (["q"], ["2"])
    assert "largest in layer 2, k (4)" in figure.alt


@pytest.mark.parametrize(("high", "digits"), [(0.5, ".2~r"), (8.0, ".3~r"), (12_000.0, ".3~s")])
def test_the_numbers_of_a_grid_have_no_prefix_below_a_thousand(high: float, digits: str) -> None:
    (own,) = grids(((0.25, high),))
    assert figures.layer_grid_figure(own, own.canvases[13], 1).data[0]["texttemplate"] == f"%{{z:{digits}}}"


def test_a_canvas_of_an_earlier_version_has_numbered_rows_and_columns() -> None:
    (own,) = grids(((0.0, -1.0, None),))
    assert own.grid[:3] == (("1",), ("1", "2", "3"), "column")
    assert own.low == -1.0
    assert grids((1.0, 2.0)) == []


def test_a_statistic_of_the_run_is_one_line_and_its_title_is_no_markup() -> None:
    figure = figures.statistic_figure("gap", ("<b>Gap</b>", "%"), [(1, 0.5), (2, None), (3, 0.25)], ["1"], 4)
    assert [trace["y"] for trace in figure.data] == [[0.5, None, 0.25]]
    assert figure.alt == "Line chart. &lt;b&gt;Gap&lt;/b&gt;: 0.25."


def test_a_statistic_of_a_deep_network_and_a_long_run_stays_small() -> None:
    history = [(epoch, (0.12345678,) * 48) for epoch in range(1, 1001)]
    figure = figures.statistic_figure("one", ("One", ""), history, [str(i) for i in range(48)], 1000)
    assert len(figure.spec) < 60_000
    assert figure.data[-1]["x"][-1] == 1000


@pytest.mark.parametrize("count", [1, 599, 600, 601, 6500, 10_001])
def test_thinning_keeps_the_ends_and_the_limit(count: int) -> None:
    kept = figures.thinned(list(range(count)))
    assert len(kept) <= figures.MAX_POINTS
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert kept == sorted(set(kept))


def test_a_running_mean_has_no_bias_towards_the_start() -> None:
    same = [TrainStep(i + 1, 1, 3.0, 40.0, 1e-3, 8, 0.1 * i) for i in range(50)]
    assert [m.mean_loss for m in Running(same).moments] == pytest.approx([3.0] * 50)
    assert [m.mean_accuracy for m in Running(same).moments] == pytest.approx([40.0] * 50)


@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 6500, 10_001])
def test_a_growing_curve_keeps_its_ends_and_the_limit(count: int) -> None:
    kept = [m.step for m in Running(steps(count)).moments]
    assert len(kept) <= figures.MAX_POINTS
    assert kept == sorted(set(kept))
    assert not count or (kept[0] == 1 and kept[-1] == count)


def test_a_loss_that_is_not_finite_is_left_out_of_the_mean_and_of_the_json() -> None:
    broken = [TrainStep(1, 1, 2.0, 9.0, 1e-3, 8, 0.1), TrainStep(2, 1, float("nan"), 9.0, 1e-3, 8, 0.2)]
    assert [m.mean_loss for m in Running(broken).moments] == [2.0, 2.0]
    spec = figures.loss_figure(Running(broken), reached([Evaluation(1, 2, "val", 9.0, float("inf"), 0.3)], 2)).spec
    assert "NaN" not in spec
    assert "Infinity" not in spec


def test_the_figure_of_a_long_run_is_small() -> None:
    figure = figures.loss_figure(Running(steps(6500)), reached(evaluations(*[50.0] * 20), 500))
    assert len(figure.spec) < 40_000


def test_expert_figure_strikes_absent_cells_and_finds_the_largest() -> None:
    plan = pattern("incremental")
    canvas = tuple(
        tuple(0.1 * r + 0.01 * c if k else None for c, k in enumerate(row)) for r, row in enumerate(plan.keep)
    )
    figure = figures.expert_figure(canvas, "contribution", plan, epoch=3)
    heat, struck = figure.data
    assert [list(row) for row in canvas] == heat["z"]
    assert len(struck["x"]) == 12 * 14 - 96
    assert "layer 12, expert 14" in figure.alt
    assert "epoch 3" in figure.alt


def test_coefficients_are_centred_on_their_initial_value() -> None:
    canvas = tuple((1.0,) * 7 + (1.5,) for _ in range(12))
    heat = figures.expert_figure(canvas, "coefficient", uniform(0.5), epoch=1).data[0]
    assert (heat["zmin"] + heat["zmax"]) / 2 == pytest.approx(1.0)


def test_unchanged_coefficients_have_no_largest_change() -> None:
    canvas = tuple((1.0,) * 8 for _ in range(12))
    plan = uniform(0.5)
    assert plan.coefficient_init == 1.0
    assert "Every λ has its initial value" in figures.expert_figure(canvas, "coefficient", plan, epoch=1).alt


def test_a_dense_run_has_no_most_active_expert() -> None:
    canvas = tuple((1.0,) * 8 for _ in range(12))
    assert "Every expert was active" in figures.expert_figure(canvas, "active_share", uniform(0.0), epoch=1).alt


def test_similarity_tiles_of_layers_without_a_pair_of_experts_say_why_they_are_empty() -> None:
    plan = allocation((0, 1, 2), columns=2)
    stats = SimilarityStats(1, (None, None, 0.5), (None, None, 0.5), ((), ((1.0,),), ((1.0, 0.5), (0.5, 1.0))))
    labels = json.loads(figures.similarity_tiles(stats, plan.row_labels).spec)["layout"]["annotations"]
    assert [label["text"] for label in labels] == ["1 · no experts", "2 · 1 expert", "3 · 0.50"]


def test_similarity_tiles_place_each_layer_and_leave_the_diagonal_out() -> None:
    matrix = ((1.0, 0.5), (0.5, 1.0))
    stats = SimilarityStats(4, (0.5, None, None), (0.5, None, None), (matrix, ((1.0,),), ()))
    figure = figures.similarity_tiles(stats, uniform(0.5, 3, 2).row_labels, across=2)
    values = [v for row in figure.data[0]["z"] for v in row if v is not None]
    assert values == [0.5, 0.5]
    assert "layer 1" in figure.alt
    assert "no expert" in json.dumps(json.loads(figure.spec)["layout"]["annotations"])


GENERATIONS = [
    SearchGeneration(2, 26, n, 4, 8 * n, 200, 50.0 + n, 40.0 + n, 1234, 3.0, ("qkv A", "qkv B"),
                     (("low rank", "none"), ("scalar", "none")), ((1.0, 0.0), (1 / 3, 0.0)))
    for n in (1, 2)
]  # fmt: skip


def test_a_search_is_drawn_by_generation_with_what_it_chose() -> None:
    figure = figures.search_figure(GENERATIONS)
    assert {line["name"]: line["y"] for line in figure.data} == {
        "mean of the generation": [41, 42], "best so far": [51, 52]
    }  # fmt: skip
    assert "best 52.0 % of 16 candidates, 200 images. Generation 2 of 4" in figure.alt
    chosen = figures.chosen_figure(GENERATIONS[-1])
    assert chosen.data[0]["text"] == [["low rank", "none"], ["scalar", "none"]]
    assert "1,234 parameters" in chosen.alt
    assert "none, scalar, low rank" in chosen.alt


def test_similarity_curve_without_pairs_names_the_requirement() -> None:
    stats = SimilarityStats(1, (None,), (None,), (((1.0,),),))
    assert "two experts" in figures.similarity_curve([stats]).alt


def test_every_colour_in_every_figure_has_a_meaning_in_the_palette() -> None:
    """A colour that is not in the palette would reach Plotly as "@name" and be drawn black."""
    known = (PACKAGE / "ui" / "palette.js").read_text()
    stats = SimilarityStats(1, (0.1,), (0.1,), (((1.0, 0.1), (0.1, 1.0)),))
    drawn = [
        figures.accuracy_figure(Running(steps(5)), reached(evaluations(1.0), 2)),
        figures.loss_figure(Running(steps(5)), reached(evaluations(1.0), 2)),
        figures.statistic_figure("one", ("One", "%"), [(1, (0.5, 0.7))], ["1", "2"], 2),
        figures.expert_figure(((0.5,),), "coefficient", uniform(0.5, 1, 1), 1),
        figures.similarity_tiles(stats, uniform(0.5, 1, 2).row_labels),
        figures.similarity_curve([stats]),
        figures.search_figure(GENERATIONS),
        figures.chosen_figure(GENERATIONS[0]),
        figures.balance_figure(["a"], {"train": [1], "val": [2]}),
    ]  # fmt: skip
    used = {name for figure in drawn for name in re.findall(r'"@([a-z]+)"', figure.spec)}
    assert used
    assert all(f"{name}:" in known for name in used)
