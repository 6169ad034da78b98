"""Canvas, switches, bench, links and figures give a row one name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core import catalog
from mlae_lab.core.edits import with_modules
from mlae_lab.core.events import SimilarityStats
from mlae_lab.core.expert_state import off_text, read_off
from mlae_lab.core.patterns import dense, fitted
from mlae_lab.core.plan import MaskPlan
from mlae_lab.ui import figures
from mlae_lab.ui.live_bench import _plan

SWIN = catalog.backbone("swin_base_patch4_window7_224.ms_in22k")
QKV = fitted(dense(experts=2), SWIN.default_targets)
PLANS = [QKV, with_modules(QKV, SWIN, ("attn.qkv", "attn.proj"))]


def drawn() -> None:
    import streamlit as st

    from mlae_lab.ui.expert_switch import expert_switch
    from mlae_lab.ui.mask_grid import mask_grid

    plan = st.session_state["plan"]
    mask_grid(plan, 1, lambda plan, rev: None, key="canvas")
    expert_switch(plan, (), 1, lambda cells: None, key="switches")


def labels_of(figure: figures.Figure) -> list[str]:
    return list(figure.data[0]["y"])


@pytest.mark.parametrize("plan", PLANS, ids=["one kind", "two kinds"])
def test_a_row_of_swin_has_one_name_everywhere(plan: MaskPlan) -> None:
    at = AppTest.from_function(drawn)
    at.session_state["plan"] = plan
    at.run()
    assert not at.exception
    shown: list[Any] = [json.loads(element.proto.json)["labels"] for element in at.main.get("bidi_component")]
    assert len(shown) == 2
    canvas = ((0.5,) * plan.columns,) * plan.rows
    shown += [
        _plan(plan)["labels"],
        labels_of(figures.expert_figure(canvas, "contribution", plan, 1)),
        labels_of(figures.against_figure(canvas, canvas, plan, "class cat")),
        labels_of(figures.mask_difference_figure(plan, plan)),
    ]
    steps = [{"kept": 1, "accuracy": 50.0, "loss": 1.0, "cell": [plan.rows, 2]}]
    greedy = figures.greedy_figure({"removal": steps}, plan)
    assert greedy.data[0]["customdata"] == [[1.0, f"layer {plan.row_labels[-1]}, expert 2"]]
    assert {tuple(labels) for labels in shown} == {plan.row_labels}
    assert len(set(plan.row_labels)) == plan.rows


@pytest.mark.parametrize("plan", PLANS, ids=["one kind", "two kinds"])
def test_a_link_names_a_row_of_swin_as_the_canvas_does(plan: MaskPlan) -> None:
    for row in (0, 4, plan.rows - 1):
        assert off_text(plan, [(row, 1)]) == f"L{plan.row_labels[row].replace(' ', '.')}E2"
        assert read_off(plan, off_text(plan, [(row, 1)])) == ((row, 1),)
        assert read_off(plan, f"L{row + 1}E2") == ((row, 1),), "as in a link of version 0.5"


def test_the_tile_of_the_most_similar_layer_has_the_name_of_its_row() -> None:
    plan = PLANS[1]
    pair = ((1.0, 0.1), (0.1, 1.0))
    means = tuple(0.9 if row == 30 else 0.1 for row in range(plan.rows))
    figure = figures.similarity_tiles(SimilarityStats(1, means, means, (pair,) * plan.rows), plan.row_labels)
    assert f"Most similar in layer {plan.row_labels[30]} (" in figure.alt


def test_the_scale_of_cosines_ends_where_most_of_them_do() -> None:
    def stats(*cosines: float) -> SimilarityStats:
        return SimilarityStats(1, cosines, cosines, tuple(((1.0, c), (c, 1.0)) for c in cosines))

    assert figures.cosine_reach(stats(*[0.05] * 40, 0.9)) == 0.05  # one outlier has full colour
    assert figures.cosine_reach(stats(*[0.05] * 40), stats(*[-0.12] * 40)) == 0.15
    assert figures.cosine_reach(stats(0.0001)) == 0.01
    assert figures.cosine_reach(stats(-1.0)) == 1.0
    tiles = figures.similarity_tiles(stats(0.05, -0.02), ["1", "2"], baseline=0.0029)
    heat = tiles.data[0]
    assert (heat["zmin"], heat["zmax"]) == (-0.05, 0.05)
    assert heat["colorbar"]["ticktext"] == ["−0.05", "random<br>±0.0029", "0.05"]
