"""The file of the lab's own table of methods, and what is planned and missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.core.method import BUILT_IN
from mlae_lab.runs import method_table
from mlae_lab.runs.method_table import (
    BUDGET,
    Budget,
    Result,
    Start,
    TableError,
    append,
    cells,
    missing,
    planned_hashes,
    read,
)

START = Start(
    "python -m benchmarks method_table", "2026-11-28T05:00:00Z", "abc", "a CPU, 2 cores", {"torch": "2"}, 2, 16
)
RESULT = Result("common", "ssf", "digits", 0, "", 90.0, 797, 34_304, 1290, 126, 9.5, 9.0, "python -m mlae_lab train")


def planned(result: Result) -> Result:
    """A result with the hash of the run that is planned for it."""
    return replace(result, hash=planned_hashes(BUDGET)[result.key])


RESULT = planned(RESULT)


def test_the_file_keeps_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    assert read(path) == method_table.Table()
    for entry in (START, RESULT, planned(replace(RESULT, seed=1)), replace(RESULT, accuracy=91.0)):
        append(path, entry)
    table = read(path)
    assert table.starts == (START,)
    assert {(result.seed, result.accuracy) for result in table.results} == {(0, 91.0), (1, 90.0)}


def test_a_torn_last_line_is_ignored_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    append(path, START)
    append(path, RESULT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert read(path).results == ()
    append(path, RESULT)
    assert path.read_bytes() == whole


def test_another_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"start": {"command": 1}}\n')
    with pytest.raises(TableError, match=r"line 1 of .*table\.jsonl"):
        read(path)


def test_all_methods_are_planned_with_one_budget_and_only_different_recipes() -> None:
    planned = list(cells(Budget(3, 32), tasks=["digits"], seeds=[0, 1]))
    assert {(cell.config.epochs, cell.config.batch_size, cell.config.protocol) for cell in planned} == {(3, 32, "test")}
    assert [cell.config.seed for cell in planned] == sorted(cell.config.seed for cell in planned)
    first = [cell for cell in planned if cell.config.seed == 0]
    assert [cell.config.method for cell in first if cell.recipe == "common"] == list(BUILT_IN)
    own = {cell.config.method: cell.config for cell in first if cell.recipe == "own"}
    assert (own["ssf"].learning_rate, own["glora"].learning_rate) == (5e-3, 1e-4)
    assert {"dora", "mola"}.isdisjoint(own)  # without a recipe, and with one equal to the common one
    assert len({cell.config.hash for cell in planned}) == len(planned)


def test_missing_runs_are_counted(tmp_path: Path) -> None:
    assert missing(read(tmp_path / "none")) == (0, 0)
    path = tmp_path / "table.jsonl"
    append(path, START)
    append(path, RESULT)
    of = len(list(cells(BUDGET)))
    assert missing(read(path)) == (of - 1, of)


def test_results_of_an_earlier_recipe_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    for entry in (START, RESULT, replace(planned(replace(RESULT, seed=1)), hash="of another recipe")):
        append(path, entry)
    table = read(path)
    assert ([result.seed for result in table.results], table.outdated) == ([0], 1)
    assert [point.accuracy.n for point in method_table.table_points(table, "digits")] == [1]


def test_results_without_a_start_are_refused(tmp_path: Path) -> None:
    append(tmp_path / "table.jsonl", RESULT)
    with pytest.raises(TableError, match="has results and no start"):
        read(tmp_path / "table.jsonl")


def test_points_are_means_over_seeds(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    own = replace(RESULT, recipe="own", accuracy=95.0)
    append(path, START)
    for result in (RESULT, replace(RESULT, seed=1, accuracy=92.0), own, replace(RESULT, task="fashion")):
        append(path, planned(result))
    best, other = method_table.table_points(read(path), "digits")
    assert (best.recipe, best.accuracy.mean, best.accuracy.interval) == ("own", 95.0, None)
    assert (other.recipe, other.accuracy.mean, other.accuracy.n) == ("common", 91.0, 2)
    assert other.accuracy.low is not None
    assert other.accuracy.low < 90.0
