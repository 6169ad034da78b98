"""Figures of contributions, maps and predictions: data and titles agree with the input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from mlae_lab.core.patterns import allocation
from mlae_lab.data.overlay import Row
from mlae_lab.locations import PACKAGE
from mlae_lab.ui import figures
from mlae_lab.ui.figures.base import DIVERGING
from mlae_lab.ui.figures.maps import SCALES, glow_note

PLAN = allocation((2, 0, 1))
MEAN = ((0.1, 0.2), (None, None), (0.4, None))
SHIRT = ((0.1, 0.3), (None, None), (0.2, None))
ROWS = [
    Row("iVBORw0KGgo", "bag", (np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, -2.0], [0.5, 0.0]]))),
    Row("/9j/4AAQ", "shirt", (np.array([[0.0, 0.0], [8.0, 2.0]]), None)),
]


def layout(figure: figures.Figure) -> dict:
    return json.loads(figure.spec)["layout"]


def test_an_expert_compared_with_its_mean() -> None:
    figure = figures.against_figure(SHIRT, MEAN, PLAN, "shirt")
    heat, struck = figure.data
    assert heat["z"] == [[0.0, 50.0], [None, None], [-50.0, None]]
    assert heat["zmin"] == -50
    assert len(struck["x"]) == 3
    assert "shirt: layer 1, expert 2 adds 50 % more" in figure.alt


def test_classes_by_experts_of_one_layer_and_of_all() -> None:
    values = [MEAN, SHIRT]
    every = figures.class_figure(values, MEAN, ["all", "shirt"], PLAN, None, relative=True)
    assert every.data[0]["z"] == [[0, 0, 0], [0, 50, -50]]
    assert every.data[0]["x"] == ["1.1", "1.2", "3.1"]
    assert layout(every)["xaxis"]["ticktext"] == ["1", "3"]
    assert len(layout(every)["shapes"]) == 1
    single = figures.class_figure(values, MEAN, ["all", "shirt"], PLAN, 0, relative=False)
    assert single.data[0]["z"] == [[0.1, 0.2], [0.1, 0.3]]
    assert "Largest contribution: layer 1, expert 2, class shirt" in single.alt


def test_a_class_without_an_image_has_no_colour() -> None:
    empty = ((None, None), (None, None), (None, None))
    figure = figures.class_figure([MEAN, empty], MEAN, ["a", "b"], PLAN, None, relative=True)
    assert figure.data[0]["z"][1] == [None] * 3
    assert "no expert contributes" in figures.against_figure(empty, MEAN, PLAN, "b").alt


@pytest.mark.parametrize(
    ("scale", "first", "second"),
    [
        (SCALES[0], [0.25, 0.5], [0.0, 0.0]),
        (SCALES[1], [0.0, 0.333], [0.0, 0.0]),
        (SCALES[2], [0.125, 0.25], [0.0, 0.0]),
    ],
)
def test_maps_are_drawn_over_their_images(scale: str, first: list[float], second: list[float]) -> None:
    figure = figures.maps_figure(ROWS, ["expert 1", "expert 2"], "t", "q", "n", (False, True), scale, 0.5)
    plain, signed = figure.data
    assert (plain["zmin"], signed["zmin"], plain["opacity"]) == (0, -1, 0.5)
    assert plain["z"][0] == [
        None,
        None,
        None,
        *first,
        None,
        None,
        None,
    ]  # image, gap, map, gap, the other map
    assert plain["z"][3] == [None, None, None, *second, None, None, None]
    assert signed["z"][0][6:] == ([0.125, -0.25] if scale == SCALES[2] else [0.5, -1.0])
    assert signed["z"][3][6:] == [
        None,
        None,
    ]
    assert plain["text"][1][4] == "bag, expert 1: 4"
    images = layout(figure)["images"]
    assert [(i["x"], i["y"], i["sizex"]) for i in images] == [(x - 0.5, y - 0.5, 2) for y in (0, 3) for x in (0, 3, 6)][
        :5
    ]
    assert images[0]["source"].startswith("data:image/png")
    assert images[3]["source"].startswith("data:image/jpeg")
    words = [word["text"] for word in layout(figure)["annotations"]]
    assert words[:3] == ["image", "expert 1", "2"]
    assert {"bag", "shirt"} <= set(words)
    assert ("4" in words) == (scale != SCALES[2])


def test_maps_with_a_sign_have_the_colours_of_all_other_figures() -> None:
    figure = figures.maps_figure(ROWS, ["expert 1", "expert 2"], "t", "q", "n", (False, True))
    low, _middle, high = [colour for _, colour in figure.data[1]["colorscale"]]
    dark = (PACKAGE / "ui" / "palette.js").read_text().partition("dark:")[2]
    named = {name: tuple(bytes.fromhex(code)) for name, code in re.findall(r'(\w+): "#(\w{6})"', dark)}
    assert low == "rgb({},{},{})".format(*named["low"])
    assert high == "rgb({},{},{})".format(*named["high"])
    assert [name for _, name in DIVERGING] == ["@low", "@surface", "@high"]


def test_dark_and_bright_are_explained_for_each_scale() -> None:
    assert [glow_note(scale) for scale in SCALES] == [
        "Dark: 0, bright: the largest value of the map.",
        "Dark: the map's smallest value, bright: its largest.",
        "Dark: 0, bright: the largest value of all maps.",
    ]
    assert glow_note() == glow_note(SCALES[0])


def test_a_prediction_is_marked_correct_or_not() -> None:
    top = [{"class": 1, "probability": 0.9}, {"class": 0, "probability": 0.1}]
    assert figures.classes_figure(top, ["bag", "shirt"], 1).alt.endswith("shirt, 90.0 % (correct).")
    assert "shirt, 90.0 % (true class: bag)" in figures.classes_figure(top, ["bag", "shirt"], 0).alt
    assert figures.classes_figure(top, ["bag", "shirt"]).data[0]["x"] == [90, 10]


@pytest.mark.parametrize(
    ("flips", "all_flip", "title"),
    [
        ([False, False], False, "No single layer flips the prediction shirt."),
        ([False, False], True, "No single layer flips the prediction shirt; all layers together do"),
        ([True, False], False, "Without the experts of layer 1 the prediction is not shirt"),
        ([True, True], True, "Without the experts of layer 1 or 2 the prediction is not shirt"),
        ([True] * 4, True, "Without the experts of any one of 4 layers the prediction is not shirt"),
    ],
)
def test_layers_that_flip_the_prediction_are_named(flips: list[bool], all_flip: bool, title: str) -> None:
    def after(flipped: bool) -> dict:
        return {"class": 0 if flipped else 1, "probability": 0.2 if flipped else 0.8, "flips": flipped}

    without = [{**after(flipped), "layer": number} for number, flipped in enumerate(flips, 1)]
    figure = figures.without_figure(without, after(all_flip), 0.9, ["bag", "shirt"], 1)
    assert title in figure.alt
    assert figure.data[0]["y"] == [*(f"layer {n}" for n in range(1, len(flips) + 1)), "all layers"]
    assert figure.data[0]["text"] == ["becomes bag" if flipped else "" for flipped in (*flips, all_flip)]


def test_two_predictions_name_the_change() -> None:
    classes = ["bag", "shirt", "coat", "dress", "boot", "sandal"]
    before, stays = [0.1, 0.6, 0.2, 0.05, 0.05, 0.0], [0.2, 0.5, 0.2, 0.05, 0.05, 0.0]
    becomes = [0.1, 0.3, 0.55, 0.05, 0.0, 0.0]
    assert (
        "Prediction stays shirt: 50.0 %, -10.0 points (correct)"
        in figures.two_answers_figure(before, stays, classes, 1).alt
    )
    assert (
        "Prediction changes from shirt to coat, 55.0 % (true class: shirt)"
        in figures.two_answers_figure(before, becomes, classes, 1).alt
    )
    same = figures.two_answers_figure(before, before, classes)
    assert json.loads(same.spec)["layout"]["margin"]["t"] >= 64  # room for the legend under the title
    assert "Prediction stays shirt: 60.0 %." in same.alt
    assert len(same.data[0]["y"]) == 5
    assert same.data[0]["x"] == same.data[1]["x"]


def test_every_colour_has_a_meaning_in_the_palette() -> None:
    known = (PACKAGE / "ui" / "palette.js").read_text()
    drawn = [
        figures.against_figure(SHIRT, MEAN, PLAN, "a"),
        figures.class_figure([MEAN], MEAN, ["a"], PLAN, None, relative=False),
        figures.maps_figure(ROWS, ["a", "b"], "t", "q", "n"),
        figures.classes_figure([{"class": 0, "probability": 1.0}], ["a"]),
        figures.without_figure([], {"class": 0, "probability": 1.0, "flips": True}, 1.0, ["a"], 0),
    ]  # fmt: skip
    used = {name for figure in drawn for name in re.findall(r'"@([a-z]+)"', figure.spec)}
    assert used
    assert all(f"{name}:" in known for name in used)
