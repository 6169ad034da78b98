"""The Runs page: a link says what is shown, one run is edited, several are acted on."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.runs import paths
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.ui import queries, runs_table
from tests.lab import html, measured, open_page


@pytest.fixture
def runs(store: RunStore, no_supervisor: None) -> list[str]:
    """Runs with p = 0.2, 0.4, 0.6 and accuracies of 60, 80 and 70 %, oldest first."""
    pairs = ((0.2, 60.0), (0.4, 80.0), (0.6, 70.0))
    return [
        measured(store, store.enqueue(RunConfig("digits", uniform(p), epochs=2), "cpu"), accuracy).id
        for p, accuracy in pairs
    ]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What is sent to the browser for the table; the browser itself is walked in tests/browser."""
    messages: list[dict] = []
    draw = runs_table.rows_table
    monkeypatch.setattr(runs_table, "rows_table", lambda data, *rest: messages.append(data) or draw(data, *rest))
    return messages


def shown(sent: list[dict]) -> list[str]:
    return [row["id"] for row in sent[-1]["rows"]]


def key_of(at: AppTest, start: str, end: str = "") -> str:
    """The key of the button whose key begins and ends so; its middle says which runs are selected."""
    keys = {str(button.key) for button in at.button}
    (key,) = [key for key in keys if key.startswith(start) and (key.endswith(end) if end else key.count("_") == 2)]
    return key


def click(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click().run()
    assert not at.exception
    return at


def test_a_link_says_what_is_shown(store: RunStore, runs: list[str], sent: list[dict]) -> None:
    at = open_page("runs", where="drop_rate>0.3", sort="accuracy", columns="name,drop_rate,tags", group="task")
    assert shown(sent) == [runs[2], runs[1]]
    assert [column[1] for column in sent[-1]["columns"]] == ["Name", "Drop rate p", "Tags"]
    assert sent[-1]["groups"] == [["Task: digits", "2 runs, mean accuracy 75.0 %"]]
    assert sent[-1]["rows"][0]["cells"]["drop_rate"] == ["0.6", None]
    json.dumps(sent[-1])
    at.text_input(key="runs_where").set_value("").run()
    assert len(shown(sent)) == 3
    at.text_input(key="runs_search").set_value(runs[0]).run()
    assert shown(sent) == [runs[0]]
    assert "where" not in at.query_params
    assert (at.query_params["search"], at.query_params["sort"]) == (runs[0], "accuracy")


def test_a_condition_that_cannot_be_used_is_named(store: RunStore, runs: list[str], sent: list[dict]) -> None:
    at = open_page("runs", where="dorp_rate>0.3")
    assert [warning.value for warning in at.warning] == [
        "There is no field 'dorp_rate': the nearest are drop_rate, drop_path and drop_rate_entropy."
    ]
    assert len(shown(sent)) == 3


def test_a_click_on_a_column_sorts_and_a_second_one_reverses(
    store: RunStore, runs: list[str], sent: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"runs_sort": "-created"}
    monkeypatch.setattr(runs_table.st, "session_state", state)
    for column, expected in (
        ("accuracy", "-accuracy"), ("accuracy", "accuracy"), ("task", "task"), ("task", "-task"), ("colour", "-task"),
    ):  # fmt: skip
        runs_table._sort(column)
        assert state["runs_sort"] == expected


def test_pages_of_fifty(store: RunStore, no_supervisor: None, sent: list[dict]) -> None:
    for seed in range(53):
        store.move(store.enqueue(RunConfig("digits", seed=seed), "cpu").id, Status.STOPPED)
    at = open_page("runs", sort="seed")
    assert len(shown(sent)) == 50
    assert "1 to 50 of 53" in html(at)
    assert at.button(key="runs_previous").disabled
    at = open_page("runs", {"runs_page": 2}, sort="seed")
    assert [store.run(run).config.seed for run in shown(sent)] == [50, 51, 52]
    assert len(sent[-1]["all"]) == 53
    assert at.button(key="runs_next").disabled
    at.text_input(key="runs_where").set_value("seed<3").run()
    assert [store.run(run).config.seed for run in shown(sent)] == [0, 1, 2]


def test_a_run_gets_a_name_tags_and_notes(store: RunStore, runs: list[str], sent: list[dict]) -> None:
    store.change_tags([runs[1]], add=["paper"])
    at = open_page("runs", select=runs[0])
    next(field for field in at.text_input if field.label == "Name").set_value("The weak one").run()
    next(field for field in at.multiselect if field.label == "Tags").set_value(["paper"]).run()
    next(field for field in at.text_area if field.label == "Notes").set_value("Why?").run()
    at = click(at, f"run_save_{runs[0]}")
    run = store.run(runs[0])
    assert (run.name, run.tags, run.notes) == ("The weak one", ("paper",), "Why?")
    assert [info.value for info in at.info] == ["Saved: 1 run."]
    row = next(row for row in sent[-1]["rows"] if row["id"] == runs[0])
    assert row["cells"]["name"][0] == "The weak one"
    assert row["small"].startswith(runs[0])


def test_the_run_of_another_person_is_renamed_after_a_question(store: RunStore, no_supervisor: None) -> None:
    run = measured(store, store.enqueue(RunConfig("digits"), "cpu", owner="ada-" * 5), 50.0).id
    at = open_page("runs", select=run)
    next(field for field in at.text_input if field.label == "Name").set_value("Mine").run()
    at = click(at, f"run_save_{run}")
    assert store.run(run).name == ""
    assert any("belongs to somebody" in warning.value for warning in at.warning)
    click(at, f"run_save_{run}_yes")
    assert store.run(run).name == "Mine"


def test_several_runs_are_tagged_made_a_study_archived_and_deleted(store: RunStore, runs: list[str]) -> None:
    at = open_page("runs", select=",".join(runs))
    assert "3 runs selected" in html(at)
    at.multiselect(key="selected_tags").set_value([]).run()
    store.change_tags([runs[0]], add=["old"])
    at = open_page("runs", select=",".join(runs))
    at.multiselect(key="selected_tags").set_value(["old"]).run()
    at = click(at, "selected_tags_add")
    assert {store.run(run).tags for run in runs} == {("old",)}
    at = click(at, "selected_study_open")
    assert "3 arms × 1 seed: 3 of 3 runs are there, 0 would be trained." in html(at)
    click(at, "selected_study")
    (stored,) = store.studies()
    assert set(store.study_cells(stored.id).values()) == set(runs)
    at = open_page("runs", select=",".join(runs[:2]))
    at = click(at, key_of(at, "selected_archive"))
    assert [run.id for run in store.runs()] == [runs[2]]
    assert paths.archived(store.folder, runs[0]).exists()
    assert at.info[0].value == "Archived: 2 runs."


def test_deleting_several_runs_asks_and_leaves_open_ones_out(store: RunStore, runs: list[str]) -> None:
    waiting = store.enqueue(RunConfig("digits"), "cpu").id
    at = open_page("runs", select=",".join([runs[0], runs[1], waiting]))
    assert "1 of them is not over" in html(at)
    at = click(at, key_of(at, "selected_delete"))
    assert len(store.runs()) == 4
    assert any("Delete 2 runs with their files?" in warning.value for warning in at.warning)
    yes = key_of(at, "selected_delete", "_yes")
    store.move(waiting, Status.STOPPED)
    queries.refresh()  # else the page may show the list that it read before
    at.run()  # a question about two runs is not one about three
    assert yes not in {button.key for button in at.button}
    assert len(store.runs()) == 4
    at = click(at, key_of(at, "selected_delete"))
    assert any("Delete 3 runs with their files?" in warning.value for warning in at.warning)
    click(at, key_of(at, "selected_delete", "_yes"))
    assert {run.id for run in store.runs()} == {runs[2]}


def test_a_failed_alert_is_shown_once(store: RunStore, runs: list[str]) -> None:
    paths.alert_failure(store.folder).write_text(json.dumps({"time": 9e9, "text": "The alert for run x failed."}))
    at = open_page("runs")
    assert [warning.value for warning in at.warning] == ["The alert for run x failed."]
    assert not at.run().warning
