"""Figures: what goes in comes out, and the titles say what the data say."""

from __future__ import annotations

import json
import re

import pytest

from mlae_lab.core.events import Evaluation, SimilarityStats, TrainStep
from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.locations import PACKAGE
from mlae_lab.ui import figures
from mlae_lab.ui.figures import Running


def steps(count: int, per_epoch: int = 13) -> list[TrainStep]:
    return [
        TrainStep(i + 1, i // per_epoch + 1, 2.0 / (i + 1), min(99.0, float(i)), 1e-3, 48, i * 0.1)
        for i in range(count)
    ]


def evaluations(*accuracies: float) -> list[Evaluation]:
    return [Evaluation(i + 1, 13 * (i + 1), "val", a, 1.0 / (i + 1), 2.0 * i) for i, a in enumerate(accuracies)]


def test_accuracy_figure_shows_every_measurement_and_names_the_last() -> None:
    figure = figures.accuracy_figure(Running(steps(26)), evaluations(40.0, 62.5), epochs=16, split="val")
    measured = next(trace for trace in figure.data if trace["line"]["color"] == "@accent")
    assert measured["y"] == [40.0, 62.5]
    assert measured["x"] == [1, 2]
    assert "62.5 %" in figure.alt
    assert "epoch 2" in figure.alt


def test_accuracy_figure_before_the_first_measurement_says_so() -> None:
    assert "nothing is measured yet" in figures.accuracy_figure(Running(steps(3)), [], epochs=16, split="val").alt


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
    spec = figures.loss_figure(Running(broken), [Evaluation(1, 2, "val", 9.0, float("inf"), 0.3)], 2, "val").spec
    assert "NaN" not in spec
    assert "Infinity" not in spec


def test_long_run_stays_small_on_the_wire() -> None:
    figure = figures.loss_figure(Running(steps(6500)), evaluations(*[50.0] * 20), epochs=500, split="val")
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


def test_coefficients_are_centred_on_their_start() -> None:
    canvas = tuple((1.0,) * 7 + (1.5,) for _ in range(12))
    heat = figures.expert_figure(canvas, "coefficient", uniform(0.5), epoch=1).data[0]
    assert (heat["zmin"] + heat["zmax"]) / 2 == pytest.approx(1.0)


def test_a_dense_run_is_not_praised_for_one_cell() -> None:
    canvas = tuple((1.0,) * 8 for _ in range(12))
    assert "Every expert took part" in figures.expert_figure(canvas, "active_share", uniform(0.0), epoch=1).alt


def test_similarity_tiles_place_each_layer_and_leave_the_diagonal_out() -> None:
    one = ((1.0, 0.5), (0.5, 1.0))
    stats = SimilarityStats(4, (0.5, None, None), (0.5, None, None), (one, ((1.0,),), ()))
    figure = figures.similarity_tiles(stats, uniform(0.5, 3, 2), across=2)
    values = [v for row in figure.data[0]["z"] for v in row if v is not None]
    assert values == [0.5, 0.5]
    assert "layer 1" in figure.alt
    assert "no expert" in json.dumps(json.loads(figure.spec)["layout"]["annotations"])


def test_similarity_curve_without_pairs_says_what_it_needs() -> None:
    stats = SimilarityStats(1, (None,), (None,), (((1.0,),),))
    assert "two experts" in figures.similarity_curve([stats]).alt


def test_every_colour_in_every_figure_has_a_meaning_in_the_palette() -> None:
    """A colour that the palette does not know would reach Plotly as "@name" and be drawn black."""
    known = (PACKAGE / "ui" / "palette.js").read_text()
    stats = SimilarityStats(1, (0.1,), (0.1,), (((1.0, 0.1), (0.1, 1.0)),))
    made = [
        figures.accuracy_figure(Running(steps(5)), evaluations(1.0), 2, "val"), figures.loss_figure(Running(steps(5)), evaluations(1.0), 2, "val"),
        figures.expert_figure(((0.5,),), "coefficient", uniform(0.5, 1, 1), 1), figures.similarity_tiles(stats, uniform(0.5, 1, 2)),
        figures.similarity_curve([stats]), figures.active_figure(uniform(0.5)),
        figures.balance_figure(["a"], {"train": [1], "val": [2]}),
    ]  # fmt: skip
    used = {name for figure in made for name in re.findall(r'"@([a-z]+)"', figure.spec)}
    assert used
    assert all(f"{name}:" in known for name in used)


def test_active_figure_counts_what_a_step_draws() -> None:
    figure = figures.active_figure(pattern("incremental", "stochastic"))
    assert "50.4 of 96" in figure.alt
    assert sum(figure.data[1]["y"]) == pytest.approx(50.4)
