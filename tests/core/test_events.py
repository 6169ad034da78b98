"""Events: JSON gives every kind back, with NaN, infinities and missing values."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from mlae_lab.core import events as ev
from tests.reference import unpacked

NAN, INF = float("nan"), float("inf")
CANVAS = ((0.5, None), (None, None), (1.0, 1e-9))
EVENTS: list[ev.Event] = [
    ev.Started(295_008, 7690, 85_798_656, 800, 200, 6500, "cuda", "bfloat16", 1.25),
    ev.TrainStep(step=1, epoch=1, loss=2.302585, accuracy=12.5, learning_rate=5e-4, active=48, seconds=0.01),
    ev.Evaluation(epoch=3, step=39, split="val", accuracy=78.0, loss=0.7, seconds=4.5),
    ev.ExpertStats(3, CANVAS, CANVAS, CANVAS, CANVAS),
    ev.SimilarityStats(3, (0.25, None), (0.5, None), (((1.0, 0.5), (0.5, 1.0)), ())),
    ev.Saved(epoch=3, step=39, bytes=123_456),
    ev.Preparing(3, 1000),
    ev.Resumed(epoch=2, step=26, seconds=3.5, source="abcd2345"),
    ev.SampleImages(images=("iVBORw0KGgo=",), labels=("T-shirt/top",)),
    ev.Predictions(epoch=3, step=39, predicted=("Tröja", "7"), confidence=(0.5, 1.0)),
    ev.SearchGeneration(
        epoch=3,
        step=39,
        generation=2,
        generations=15,
        candidates=100,
        images=200,
        best=61.5,
        mean=50.25,
        parameters=212_345,
        seconds=9.5,
        labels=("Prompts",),
        chosen=(("10", "0"),),
        levels=((1.0, 0.0),),
    ),
    ev.Statistics(
        3,
        39,
        {"one": 0.5, "by_layer": (0.5, None), "by_expert": CANVAS, "none": None},
        {"one": ("One", "%")},
        {"by_expert": ev.Grid(("1", "2"), ("q", "k"), "part", "Size.")},
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_json_gives_every_kind_back(event: ev.Event) -> None:
    back = ev.from_json(type(event), ev.to_json(event))
    assert back == event
    assert type(back) is type(event)
    hash(back)  # nested tuples all the way down, so events can be keys of a cache


def test_the_table_of_kinds_is_complete() -> None:
    assert {event.kind for event in EVENTS} == set(ev.KINDS)
    assert all(ev.KINDS[kind].kind == kind for kind in ev.KINDS)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_not_a_number_and_infinity_are_kept(value: float) -> None:
    step = dataclasses.replace(EVENTS[1], loss=value)
    assert repr(ev.from_json(ev.TrainStep, ev.to_json(step))) == repr(step)
    stats = ev.ExpertStats(1, ((value, None),), CANVAS, CANVAS, CANVAS)
    assert repr(ev.from_json(ev.ExpertStats, ev.to_json(stats))) == repr(stats)


def test_small_and_large_numbers_keep_every_digit() -> None:
    step = dataclasses.replace(EVENTS[1], loss=0.1 + 0.2, learning_rate=5e-324, seconds=1.7976931348623157e308)
    assert ev.from_json(ev.TrainStep, ev.to_json(step)) == step


def test_json_holds_the_fields_by_name() -> None:
    assert json.loads(ev.to_json(EVENTS[5])) == {"epoch": 3, "step": 39, "bytes": 123_456}


def test_statistics_do_not_change_after_they_were_made() -> None:
    values = {"one": 0.5}
    event = ev.Statistics(1, 1, values)
    values["one"] = 0.7
    assert event.values == {"one": 0.5}
    with pytest.raises(TypeError):
        event.values["one"] = 0.7  # type: ignore[index]
    assert {event: "a key"}[ev.Statistics(1, 1, {"one": 0.5})] == "a key"


@pytest.mark.parametrize(
    ("values", "labels", "rule"),
    [
        ({"<b>": 1.0}, {}, "1 to 48 of a-z"),
        ({"a" * 49: 1.0}, {}, "1 to 48 of a-z"),
        ({f"n{i}": 1.0 for i in range(65)}, {}, "at most 64 are recorded"),
        ({"one": NAN}, {}, "neither a finite number nor None"),
        ({"one": (1.0, INF)}, {}, "neither a finite number nor None"),
        ({"one": ((1.0, NAN), (1.0, 1.0))}, {}, "neither a finite number nor None"),
        ({"one": "text"}, {}, "neither a finite number nor None"),
        ({"one": (1.0,)}, {}, "2 numbers, or a canvas of 2 x 2"),
        ({"one": ((1.0, 1.0), (1.0,))}, {}, "2 numbers, or a canvas of 2 x 2"),
        ({"one": ((1.0, 1.0), 1.0)}, {}, "2 numbers, or a canvas of 2 x 2"),
        ({"one": 1.0}, {"two": ("Two", "")}, "must belong to a value"),
        ({"one": 1.0}, {"one": ("T" * 101, "")}, "at most 100 letters"),
    ],
)
def test_statistics_that_break_a_rule_are_refused(values: dict, labels: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ev.Statistics(1, 1, values, labels).require_valid(2, 2)


@pytest.mark.parametrize(
    ("name", "grid", "rule"),
    [
        ("layers", ev.Grid(("1",), ("1",), "rank", ""), "a label for each row and column"),
        ("other", ev.Grid(("1",), ("1",), "rank", ""), "a label for each row and column"),
        ("cells", ev.Grid(("1",), ("1",), "rank", ""), "a label for each row and column"),
        ("cells", ev.Grid(("1",), ("1", "2" * 101), "rank", ""), "at most 100 letters"),
        ("cells", ev.Grid(("1",), ("1", "2"), "rank", "n" * 401), "at most 400 letters"),
    ],
)
def test_a_grid_that_does_not_fit_its_canvas_is_refused(name: str, grid: ev.Grid, rule: str) -> None:
    values = {"layers": (1.0,), "cells": ((1.0, None),)}
    ev.Statistics(1, 1, values, {}, {"cells": ev.Grid(("1",), ("1", "2"), "rank", "")}).require_valid(None, None)
    with pytest.raises(ValueError, match=rule):
        ev.Statistics(1, 1, values, {}, {name: grid}).require_valid(None, None)


def test_statistics_of_every_size_are_valid() -> None:
    values = {"one": 1.0, "none": None, "layers": (1, None), "experts": ((1.0, None), (None, 2))}
    ev.Statistics(1, 1, values, {"one": ("One", "%")}).require_valid(2, 2)


def test_statistics_of_a_method_without_a_mask_have_sizes_of_their_own() -> None:
    values = {"rank": (1.0,) * 48, "kept": ((1.0, 0.0, 1.0),) * 5}
    ev.Statistics(1, 1, values, {}).require_valid(None, None)
    for wrong in (((1.0, 2.0), (1.0,)), (1.0,) * 257, ((1.0,) * 257,)):
        with pytest.raises(ValueError, match="or a canvas of"):
            ev.Statistics(1, 1, {"one": wrong}, {}).require_valid(None, None)


@pytest.mark.parametrize(("values", "mean"), [((), None), ((None, None), None), ((1.0, None, 2.0), 1.5), ((0.0,), 0.0)])
def test_mean_of_ignores_missing_values(values: tuple, mean: float | None) -> None:
    assert ev.mean_of(values) == mean


def test_mean_of_keeps_not_a_number() -> None:
    assert math.isnan(ev.mean_of((1.0, NAN)))  # type: ignore[arg-type]


@pytest.mark.parametrize("cells", [0, 1, 7, 8, 9, 96, 512 * 16])
def test_packing_gives_the_mask_back(cells: int) -> None:
    mask = [i % 3 == 0 or i == cells - 1 for i in range(cells)]
    text = ev.packed(mask)
    assert len(text) == 2 * math.ceil(cells / 8)
    assert unpacked(text, cells) == mask


def test_a_row_of_eight_experts_is_one_byte_with_expert_1_in_bit_0() -> None:
    assert ev.packed([True] + [False] * 7 + [False, True] + [False] * 6) == "0102"


def test_a_mask_of_another_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 96 cells takes 12 bytes, this one has 1"):
        unpacked("ff", 96)


def test_fields_of_a_newer_version_are_ignored() -> None:
    payload = json.loads(ev.to_json(EVENTS[1])) | {"temperature": 21.5}
    assert ev.from_json(ev.TrainStep, json.dumps(payload)) == EVENTS[1]


def test_a_step_of_an_older_version_has_no_mask() -> None:
    payload = json.loads(ev.to_json(EVENTS[1]))
    del payload["mask"]
    assert ev.from_json(ev.TrainStep, json.dumps(payload)) == EVENTS[1]


def test_unpacked_is_the_inverse_of_packed() -> None:
    for count in (1, 8, 9, 200):
        cells = tuple(i % 3 == 0 for i in range(count))
        assert ev.unpacked(ev.packed(cells), count) == cells
    with pytest.raises(ValueError, match="1 bytes do not hold 9 cells"):
        ev.unpacked("01", 9)
