"""Rows of runs: their fields, and how they are filtered, sorted and grouped."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern, uniform
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.where import WhereError
from mlae_lab.runs import run_table
from mlae_lab.runs.paths import database
from mlae_lab.runs.run_table import Row, as_csv, fields, groups, matching, ordered
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from tests.lab import measured


@pytest.fixture
def listed(store: RunStore) -> list[Row]:
    """A half-dropped mask, a linear probe, LoRA and a failed run without an evaluation, newest first."""
    configs = (
        RunConfig("digits", uniform(0.5), learning_rate=1e-3), RunConfig("fashion", method="linear"),
        RunConfig("digits", method="lora", method_settings=("rank=4",)), RunConfig("fashion", pattern("hourglass")),
    )  # fmt: skip
    runs = [store.enqueue(config, "cpu", owner="cli:ada") for config in configs]
    for run, accuracies in zip(runs, ((50.0, 80.0), (60.0,), (90.0,), ()), strict=True):
        measured(store, run, *accuracies, status=Status.FINISHED if accuracies else Status.FAILED)
    store.append(runs[0].id, [ev.TrainStep(52, 4, 1.0, 50.0, 1e-3, 48, 7.5)])
    store.annotate(runs[1].id, "=1+1", "The probe of Monday", add=["baseline"])
    return run_table.rows(store, store.runs())


def methods_of(listed: list[Row]) -> list[str]:
    return [row.values["method"] for row in listed]


def test_a_row_has_every_field(listed: list[Row]) -> None:
    names = {field.name for field in fields()}
    assert all(set(row.values) == names for row in listed)
    failed, lora, linear, mlae = (row.values for row in listed)
    assert (mlae["accuracy"], mlae["drop_rate"], mlae["experts"], mlae["kind"]) == (80.0, 0.5, 96, "stochastic")
    assert (mlae["mask"], mlae["learning_rate"], mlae["duration"]) == ("uniform, stochastic (p = 0.5)", 1e-3, 7.5)
    assert (lora["rank"], lora["experts"], lora["mask"], lora["owner"]) == (4, None, None, "ada")
    assert (linear["name"], linear["tags"], linear["mask_per"]) == ("=1+1", ("baseline",), None)
    assert (failed["status"], failed["accuracy"], failed["parameters"]) == ("failed", None, 1)


@pytest.mark.parametrize(
    ("where", "words", "expected"),
    [
        ("task=digits and drop_rate>0.3", "", ["mlae"]),
        ("accuracy>=60", "", ["lora", "linear", "mlae"]),
        ("rank=4 or tags=baseline", "", ["lora", "linear"]),
        ("not status=finished", "", ["mlae"]),
        ("", "monday PROBE", ["linear"]),
        ("", "ada fashion", ["mlae", "linear"]),
        ("accuracy<70", "hourglass", []),
        ("", "", ["mlae", "lora", "linear", "mlae"]),
    ],
)
def test_conditions_and_words_choose_rows(where: str, words: str, expected: list[str], listed: list[Row]) -> None:
    assert methods_of(matching(listed, where, words)) == expected


def test_an_unknown_field_names_the_nearest(listed: list[Row]) -> None:
    nearest = "the nearest are learning_rate and learned_drop_rates"
    with pytest.raises(WhereError, match=f"no field 'learning_rat': {nearest}"):
        matching(listed, "learning_rat>1")
    with pytest.raises(ConfigError, match="no field 'colour' to sort or group by"):
        ordered(listed, "colour", True)


def test_rows_are_sorted_within_groups_and_those_without_a_value_come_last(listed: list[Row]) -> None:
    assert [row.values["accuracy"] for row in ordered(listed, "accuracy", True)] == [90.0, 80.0, 60.0, None]
    assert [row.values["accuracy"] for row in ordered(listed, "accuracy", False)] == [60.0, 80.0, 90.0, None]
    grouped = ordered(listed, "accuracy", True, "task")
    assert [(row.values["task"], row.values["accuracy"]) for row in grouped] == [
        ("digits", 90.0), ("digits", 80.0), ("fashion", 60.0), ("fashion", None),
    ]  # fmt: skip
    by_task = groups(listed, "task")
    assert {title: (group.runs, group.accuracy) for title, group in by_task.items()} == {
        "digits": (2, 85.0), "fashion": (2, 60.0),
    }  # fmt: skip
    (by_protocol,) = groups(listed, "protocol").values()
    assert by_protocol.accuracy is None  # of different tasks
    assert groups(listed, "tags").keys() == {"none", "baseline"}


def test_csv_has_one_line_for_each_run_and_no_formula(listed: list[Row]) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(listed))))
    assert [line["accuracy"] for line in lines] == ["", "90.0", "60.0", "80.0"]
    assert lines[2]["name"] == "'=1+1"
    assert "bottleneck" not in lines[0]  # no run has it


def test_what_is_known_of_ended_runs_is_not_read_again(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [measured(store, store.enqueue(RunConfig("digits", seed=seed), "cpu"), 50.0) for seed in range(3)]
    waiting = store.enqueue(RunConfig("digits"), "cpu")
    known: run_table.Known = {}
    opened: list[int] = []
    connected = RunStore._connected
    monkeypatch.setattr(RunStore, "_connected", lambda *args, **named: opened.append(1) or connected(*args, **named))
    first = run_table.rows(store, store.runs(), known)
    count = len(opened)
    assert count < 10  # not one for each run
    assert set(known) == {run.id for run in runs}
    store.annotate(runs[0].id, "renamed")
    with sqlite3.connect(store.folder / "lab.sqlite") as db:
        db.execute("DELETE FROM events")
    again = run_table.rows(store, store.runs(), known)
    assert [row.values["accuracy"] for row in again] == [row.values["accuracy"] for row in first]
    assert again[-1].values["name"] == "renamed"
    store.move(waiting.id, Status.STOPPED)
    assert run_table.rows(store, store.runs(), known)[0].values["status"] == "stopped"


def test_times_are_grouped_by_day_and_sorted_within(store: RunStore) -> None:
    for number in range(4):
        run = measured(store, store.enqueue(RunConfig("digits", seed=number), "cpu"), 50.0 + number)
        created = 1.7e9 + 86_400 * (number % 2) + 60 * number
        with closing(sqlite3.connect(database(store.folder))) as db, db:
            db.execute("UPDATE runs SET created = ? WHERE id = ?", (created, run.id))
    listed = run_table.rows(store, store.runs())
    grouped = ordered(listed, "accuracy", True, "created")
    assert [row.values["accuracy"] for row in grouped] == [52.0, 50.0, 53.0, 51.0]
    assert [group.runs for group in groups(listed, "created").values()] == [2, 2]
    assert all(len(title) == len("2023-11-14") for title in groups(listed, "created"))
