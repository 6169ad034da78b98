"""The figures of a study, its report and what the table of its arms takes from a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.study import Study, product
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.studies import CellState, State
from mlae_lab.runs.study_results import Results, results, seeds_to_add
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui.arms_table import COLUMNS, _row
from mlae_lab.ui.figures.base import Figure
from mlae_lab.ui.figures.studies import StudyFigure, study_figures
from mlae_lab.ui.figures.study_arms import MAX_ROWS
from mlae_lab.ui.figures.study_costs import pareto
from mlae_lab.ui.figures.study_curves import mean_curve
from mlae_lab.ui.figures.study_factors import factor_figure, varying
from mlae_lab.ui.figures.study_report import study_report
from mlae_lab.ui.rows_table import named

BASE = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2)


def state_of(factors: Mapping[str, list[str]], values: Sequence[Sequence[float]], **settings: Any) -> State:
    """A study without runs. values: for each arm its accuracy with seeds 0, 1, ..."""
    arms, _ = product(BASE, factors)
    seeds = tuple(range(max(map(len, values))))
    study = Study("A study", arms, seeds, **settings)
    cells = [
        CellState(arm.name, seed, None, of_arm[seed] if seed < len(of_arm) else None)
        for seed in seeds
        for arm, of_arm in zip(arms, values, strict=True)
    ]
    return State(StoredStudy("abcdefgh", 0.0, "", False, 1, study), tuple(cells))


@pytest.fixture
def make(store: RunStore):
    return lambda factors, values, **settings: results(store, state_of(factors, values, **settings))


def layout(figure: Figure) -> dict:
    return json.loads(figure.spec)["layout"]


def by_name(drawn: Sequence[StudyFigure]) -> dict[str, Figure]:
    return {entry.figure.name: entry.figure for entry in drawn}


RATES = {"drop_rate": ["0", "0.3", "0.5"]}
VALUES = [[90.0, 91.0, 92.0], [93.0, 94.1, 95.0], [90.2, 90.9, 92.1]]


def test_arms_stand_in_order_with_intervals_seeds_and_a_line_at_the_reference(make) -> None:
    known: Results = make(RATES, VALUES)
    figure = by_name(study_figures(known, {}))["study-arms"]
    seeds, *signs = figure.data
    rows = {text: (y, x) for trace in signs for text, y, x in zip(trace["text"], trace["y"], trace["x"], strict=True)}
    assert [name for name, _ in sorted(rows.items(), key=lambda item: -item[1][0])] == ["p = 0.3", "p = 0.5", "p = 0"]
    assert rows["p = 0"] == (0, 91.0)
    assert len(seeds["x"]) == 9
    assert {trace["name"]: trace["marker"]["symbol"] for trace in signs} == {
        "better": "triangle-up", "unsettled": "circle-open", "reference": "diamond-open",
    }  # fmt: skip
    assert signs[0]["error_x"]["array"][0] > 0
    (line,) = layout(figure)["shapes"]
    assert (line["x0"], line["line"]["dash"]) == (91.0, "dash")
    assert "p = 0.3 94.0 ± 2.5 %" in figure.alt


def test_hidden_arms_are_left_out_and_the_line_of_the_reference_stays(make) -> None:
    known: Results = make(RATES, VALUES)
    figure = by_name(study_figures(known, {}, hidden={"p = 0", "p = 0.5"}))["study-arms"]
    assert [trace["text"] for trace in figure.data[1:]] == [["p = 0.3"]]
    assert layout(figure)["shapes"][0]["x0"] == 91.0
    assert study_figures(known, {}, hidden={"p = 0", "p = 0.3", "p = 0.5"}) == []


def test_differences_have_a_zero_line_a_margin_and_a_sign_for_each_verdict(make) -> None:
    known: Results = make(RATES, VALUES, margin=1.0)
    figure = by_name(study_figures(known, {}))["study-differences"]
    assert [trace["name"] for trace in figure.data] == ["better", "equivalent", "reference"]
    margin, zero = layout(figure)["shapes"]
    assert (margin["x0"], margin["x1"], zero["x0"], zero["x1"]) == (-1.0, 1.0, 0.0, 0.0)
    assert "1 of 2 distinguished" in layout(figure)["title"]["text"]


def test_one_seed_has_no_interval(make) -> None:
    figure = by_name(study_figures(make(RATES, [[90.0], [93.0], [91.0]]), {}))["study-arms"]
    assert all(trace["error_x"]["array"] == [None] * len(trace["x"]) for trace in figure.data[1:])


def test_a_factor_is_drawn_with_a_band_and_an_arm_without_it_as_a_line(make) -> None:
    factors = {"drop_rate": ["0.5", "0"], "method": ["mlae", "lora"]}
    known: Results = make(factors, [[93.0, 94.0], [90.0, 91.0], [92.0, 92.5]], reference="LoRA")
    figure = by_name(study_figures(known, {}))["study-drop-rate"]
    band, line = figure.data
    assert (line["x"], line["y"]) == ([0.0, 0.5], [90.5, 93.5])
    assert band["x"] == [0.0, 0.5, 0.5, 0.0]
    assert layout(figure)["shapes"][0]["y0"] == 92.25
    assert layout(figure)["annotations"][0]["text"] == "LoRA"
    assert varying(known.arms) == ["method", "drop_rate"]


def test_two_factors_give_lines_and_a_heat_map(make) -> None:
    factors = {"drop_rate": ["0", "0.5"], "learning_rate": ["0.001", "0.01", "0.1"]}
    known: Results = make(factors, [[90.0], [91.0], [92.0], [93.0], [94.0], [95.0]])
    drawn = by_name(study_figures(known, {}))
    (heat,) = drawn["study-heat"].data
    assert heat["z"] == [[90.0, 91.0, 92.0], [93.0, 94.0, 95.0]]
    assert layout(drawn["study-heat"])["xaxis"]["ticktext"] == ["0.001", "0.01", "0.1"]
    assert layout(drawn["study-learning-rate"])["xaxis"]["type"] == "log"
    assert [trace["name"] for trace in drawn["study-learning-rate"].data] == ["p = 0.5", "p = 0"]
    assert "study-parallel" not in drawn


def test_three_factors_give_parallel_coordinates(make) -> None:
    factors = {"drop_rate": ["0", "0.5"], "learning_rate": ["0.001", "0.01"], "epochs": ["2", "4"]}
    drawn = by_name(study_figures(make(factors, [[90.0 + i] for i in range(8)]), {}))
    lines = drawn["study-parallel"].data
    assert "study-heat" not in drawn
    assert [trace["y"] for trace in lines][-2:] == [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert (lines[-2]["line"]["width"], lines[-1]["line"]["dash"]) == (4, "dash")


def test_the_pareto_front(make) -> None:
    known: Results = make({"method": ["mlae", "lora", "linear"]}, [[90.0, 92.0], [93.0, 94.0], [80.0, 81.0]])
    assert [result.arm.name for result in pareto(known.ranked, "parameters")] == ["Linear probe", "LoRA"]
    figure = by_name(study_figures(known, {}))["study-parameters"]
    assert figure.data[0]["y"] == [80.5, 93.5]
    assert "On the Pareto front: Linear probe 80.5 %, 0 parameters; LoRA 93.5 %" in figure.alt


def test_curves_are_means_over_the_epochs_that_all_seeds_have(make) -> None:
    assert mean_curve([((2, 50.0), (4, 60.0)), ((2, 60.0),), ()]) == ((2, 55.0),)
    curves: dict[str, list[Curve]] = {"p = 0": [((2, 50.0), (4, 60.0)), ((2, 52.0), (4, 64.0))], "p = 0.3": []}
    known: Results = make(RATES, VALUES)
    figure = by_name(study_figures(known, curves))["study-curves"]
    (line,) = figure.data
    assert (line["name"], line["y"], line["line"]["dash"]) == ("p = 0", [51.0, 62.0], "dash")
    assert layout(figure)["showlegend"]


def test_a_dot_plot_shows_the_best_of_many_arms_and_the_reference(make) -> None:
    rates = [f"{i / 100:g}" for i in range(MAX_ROWS + 10)]
    known: Results = make({"drop_rate": rates}, [[50.0 + i] for i in range(len(rates))])
    drawn = study_figures(known, {})
    assert len(layout(drawn[0].figure)["annotations"]) == MAX_ROWS + 1
    assert f"The {MAX_ROWS} best of {len(rates)} arms" in drawn[0].caption
    assert drawn[0].figure.data[-1]["text"] == ["p = 0"]


def test_many_lines_are_grey_but_for_the_best(make) -> None:
    factors = {"drop_rate": ["0", "0.5"], "epochs": [str(n) for n in range(1, 11)]}
    known: Results = make(factors, [[60.0 + i] for i in range(20)])
    figure = factor_figure(known, known.ranked, "drop_rate")
    assert sum(trace["showlegend"] for trace in figure.data) == 7
    assert [trace["line"]["color"] for trace in figure.data].count("@quiet") == 3


# ---------------------------------------------------------------- the report


def test_the_report_is_one_file_that_needs_no_network(store: RunStore) -> None:
    state = state_of(RATES, VALUES, question="Which <p>?", notes="</script><b>")
    arms = (replace(state.stored.study.arms[0], name="<i>dense</i>"), *state.stored.study.arms[1:])
    study = replace(state.stored.study, arms=arms, reference="<i>dense</i>")
    cells = tuple(replace(cell, arm="<i>dense</i>") if cell.arm == "p = 0" else cell for cell in state.cells)
    state = State(replace(state.stored, study=study), cells)
    known = results(store, state)
    html = study_report(known, state, {})
    text = html[: html.index("<script")]
    assert "Which &lt;p&gt;?" in text
    assert "<i>" not in text
    assert "</script><b>" not in text
    assert "p = 0.3 is better by 3.0 points" in text
    assert "python -m mlae_lab study new study.yaml" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert data
    assert [entry["name"] for entry in json.loads(data[1])] == [
        "study-arms",
        "study-differences",
        "study-drop-rate",
    ]
    assert html.count("</script>") == 3
    assert "class Plot" in html
    assert "plotly.js v" in html


# ---------------------------------------------------------------- the table of arms


def test_the_browser_hides_arms_by_name() -> None:
    names = {"p = 0", "p = 0.3"}
    assert named(["p = 0.3", "gone"], names, frozenset()) == {"p = 0.3"}
    assert named([], names, frozenset({"p = 0"})) == frozenset()
    for malformed in (None, "p = 0", [1], {"p = 0": 1}):
        assert named(malformed, names, frozenset({"p = 0"})) == {"p = 0"}


def test_a_row_has_a_text_and_a_value_to_sort_by_for_each_column(make) -> None:
    known: Results = make(RATES, VALUES)
    images: dict[str, int] = {}
    row = _row(known.of("p = 0.3"), known, images)
    assert set(row["cells"]) == {key for key, _ in COLUMNS}
    assert row["cells"]["difference"] == ["+3.0 (+2.8 to +3.2)", pytest.approx(3.0333, abs=1e-3)]
    assert (row["styles"], row["cells"]["done"][0]) == ({"verdict": "better"}, "3 of 3")
    assert _row(known.of("p = 0"), known, images)["cells"]["p"] == ["–", None]
    assert row["image"] == 0


def test_seeds_to_add_are_those_of_the_arm_that_needs_most(make) -> None:
    known: Results = make(RATES, [[90.0, 91.0, 92.0], [95.0, 96.1, 97.0], [90.9, 91.1, 93.0]])
    comparison = known.of("p = 0.5").comparison
    assert comparison is not None
    assert comparison.settling is not None
    assert not comparison.is_different
    assert 3 < comparison.settling < 60
    assert seeds_to_add(known, 60) == comparison.settling - 3
    assert seeds_to_add(known, 4) == 1
    assert seeds_to_add(known, 2) == 0
    assert seeds_to_add(make(RATES, [[90.0], [91.0], [92.0]]), 5) == 4  # one seed says nothing about the number


def test_figures_and_report_of_several_tasks_show_one_task_at_a_time(store: RunStore) -> None:
    factors = {"task": ["digits", "fashion"], "drop_rate": ["0", "0.3", "0.5"]}
    state = state_of(factors, [[90.0, 91.0], [92.0, 93.0], [91.0, 92.0], [60.0, 61.0], [62.0, 63.5], [59.0, 60.0]])
    known = results(store, state)
    for task, best in (("digits", "92.5"), ("fashion", "62.8")):
        drawn = by_name(study_figures(known, {}, task=task))
        assert best in layout(drawn["study-arms"])["title"]["text"]
        assert len(layout(drawn["study-arms"])["yaxis"]["tickvals"]) == 3
        assert "study-drop-rate" in drawn, "the task is no factor of a figure"
    assert (
        by_name(study_figures(known, {}))["study-arms"].spec
        == by_name(study_figures(known, {}, task="digits"))["study-arms"].spec
    )
    report = study_report(known, state, {})
    assert report.count("<figcaption><b>") == 4
    assert "<b>Fashion-MNIST-1k.</b>" in report
