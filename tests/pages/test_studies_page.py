"""The page of studies, opened through app.py, on stores whose runs were written by hand."""

from __future__ import annotations

import json
import shlex
from functools import partial

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.cli import main
from mlae_lab.core.study import Study
from mlae_lab.core.study_file import described
from mlae_lab.runs import studies
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.runs.study_table import StoredStudy
from mlae_lab.ui import visitor
from tests.lab import figures, html, measured, open_page, printed_json

opened = partial(open_page, "studies")
DATA = {"task": "digits", "epochs": 4, "evaluations": 2, "device": "cpu", "factors": {"drop_rate": [0, 0.3, 0.5]}}
pytestmark = pytest.mark.usefixtures("no_supervisor")  # what is enqueued waits, and no process starts


def study_of(**more: object) -> Study:
    return described({**DATA, "seeds": 2, **more})[0]


def through(store: RunStore, stored: StoredStudy, *last: float) -> None:
    """Give the runs of a study, seed by seed, these accuracies after their last epoch."""
    cells = studies.state(store, stored.id).cells
    for cell, accuracy in zip(cells, last, strict=False):
        assert cell.run is not None
        measured(store, cell.run, 50.0, accuracy)


def button(at: AppTest, label: str):
    return next(entry for entry in at.button if entry.label == label)


def test_empty_store_explains_a_study(store: RunStore) -> None:
    assert "No study yet" in html(opened())


def test_a_study_queued_and_finished_and_its_entry_in_the_list(store: RunStore) -> None:
    stored = studies.new(store, study_of(title="Which <p>?", question="Does it help?", reference="p = 0"))
    at = opened(study=stored.id)
    assert "No run has reached its last epoch yet." in html(at)
    assert "0 of 6 runs are done, 6 queued." in html(at)
    assert not figures(at)
    through(store, stored, 90.0, 93.0, 90.2, 91.0, 94.1, 91.1)
    at = opened(study=stored.id)
    shown = html(at)
    assert "p = 0.3 is better by 3.0 points" in shown
    assert "2 comparisons with p = 0, paired by seed" in shown
    assert "Which &lt;p&gt;?" in shown
    assert "runs are done" not in shown
    of_masks = {"race-1", "race-2", "race-3"}
    assert set(figures(at)) == {"study-arms", "study-differences", "study-drop-rate", "study-curves", *of_masks}
    shown = html(opened())
    assert "3 arms × 2 seeds · 6 of 6 runs" in shown
    assert "Does it help?" in shown
    assert "<p>Compared with p = 0, p = 0.3 is better by" in shown
    assert not at.warning


def test_hidden_arms_disappear_from_the_figures(store: RunStore) -> None:
    stored = studies.new(store, study_of())
    through(store, stored, 90.0, 93.0, 90.2, 91.0, 94.1, 91.1)
    at = open_page("studies", {f"study_hidden_{stored.id}": frozenset({"p = 0.3"})}, study=stored.id)
    assert "p = 0.5" in figures(at)["study-arms"]
    assert "p = 0.3" not in figures(at)["study-arms"]


@pytest.mark.parametrize("name", ["aaaaaaaa", "../../etc", "<b>x</b>"])
def test_link_to_no_study_shows_one_sentence(store: RunStore, name: str) -> None:
    (warning,) = opened(study=name).warning
    assert "is not in the store" in warning.value
    assert "<b>" not in warning.value.replace("\\<", "")  # markdown that is escaped


def test_stop_resume_and_add_seeds(store: RunStore) -> None:
    stored = studies.new(store, study_of())
    at = opened(study=stored.id)
    button(at, "Stop the study").click().run()
    assert "6 runs stopped." in at.info[0].value
    assert {run.status for run in store.runs()} == {Status.STOPPED}
    button(at, "Resume the study").click().run()
    assert {run.status for run in store.runs()} == {Status.QUEUED}
    next(field for field in at.number_input if field.label == "Number of seeds").set_value(3).run()
    assert "Starts seeds 2 to 4 for all 3 arms: 9 runs." in html(at)
    button(at, "Add 3 seeds").click().run()
    assert store.study(stored.id).study.seeds == (0, 1, 2, 3, 4)
    assert len(store.runs()) == 15


def test_seeds_until_it_is_settled(store: RunStore) -> None:
    stored = studies.new(store, study_of())
    through(store, stored, 90.0, 93.0, 90.9, 91.0, 94.1, 91.2)
    at = opened(study=stored.id)
    next(field for field in at.number_input if field.label == "At most so many seeds in all").set_value(5).run()
    assert "Starts seeds 2 to 4 for all 3 arms: 9 runs" in html(at)
    assert "need more seeds than the limit" in html(at)
    button(at, "Add 3 seeds to settle it").click().run()
    assert store.study(stored.id).study.seeds == (0, 1, 2, 3, 4)


def test_the_study_of_another_person_asks_first_and_deletion_always(store: RunStore) -> None:
    store.keep_visitor("a-visitor-of-long-ago", nickname="Ada")
    visitor._names.clear()  # a page reads names at most once a second
    stored = studies.new(store, study_of(), "a-visitor-of-long-ago")
    at = opened(study=stored.id)
    button(at, "Stop the study").click().run()
    assert "belongs to Ada" in at.warning[0].value
    assert {run.status for run in store.runs()} == {Status.QUEUED}
    button(at, "Yes, stop the study").click().run()
    assert {run.status for run in store.runs()} == {Status.STOPPED}
    at.checkbox(key="study_delete_runs").check().run()
    button(at, "Delete the study").click().run()
    assert "This cannot be undone." in at.warning[0].value
    assert store.studies()
    button(at, "Yes, delete the study").click().run()
    assert not store.studies()
    assert not store.runs()


# ---------------------------------------------------------------- a new study


def test_the_form_starts_what_it_shows_and_its_command_describes_the_same(
    store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    at = open_page("studies", {"visitor_id": "a-visitor-with-an-id"}, new="1")
    at.text_input(key="study_title").set_value("What p is best?").run()
    at.number_input(key="study_form_seeds").set_value(2)
    at.number_input(key="study_margin").set_value(0.5)
    button(at, "Add a factor").click().run()
    at.selectbox(key="study_factor_name_1").set_value("method").run()
    at.multiselect(key="study_values_1_method").set_value(["mlae", "lora"]).run()
    assert "8 of 8" in html(at)
    assert "2 combinations are equal to others" in html(at)
    next(field for field in at.selectbox if field.label == "Reference").set_value("LoRA").run()
    words = shlex.split(at.code[0].value.removeprefix("python -m mlae_lab "))
    assert main([*words, "--dry-run", "--json"]) == 0
    planned = printed_json(capsys)
    button(at, "Start study").click().run()
    (stored,) = store.studies()
    study = stored.study
    assert (stored.owner, study.title, study.reference, study.margin) == (
        "a-visitor-with-an-id", "What p is best?", "LoRA", 0.5,
    )  # fmt: skip
    assert [(arm.name, arm.config.hash) for arm in study.arms] == [
        (arm["name"], arm["config_hash"]) for arm in planned["arms"]
    ]
    assert planned["to_run"] == len(store.runs()) == 8
    assert at.query_params["study"] == stored.id


def test_a_link_brings_task_and_settings_into_the_form(store: RunStore) -> None:
    shown = html(opened(new="1", task="digits", set="epochs:7"))
    assert "<b>Digits, stochastic mask</b>" in shown
    assert "7 epochs" in shown
    (warning,) = opened(new="1", task="nothing").warning
    assert "The link could not be opened" in warning.value


def test_the_form_says_in_one_sentence_what_is_wrong(store: RunStore) -> None:
    at = opened(new="1")
    at.text_input(key="study_values_0_drop_rate").set_value("0, 2").run()
    (warning,) = at.warning
    assert warning.value.startswith("Drop rate is 2.0: it must be a number from 0 and at most 0.999")
    assert not [entry for entry in at.button if entry.label == "Start study"]
    at.text_input(key="study_values_0_drop_rate").set_value("0, 0.4").run()
    assert not at.warning


def test_a_yaml_text_starts_a_study(store: RunStore) -> None:
    at = opened(new="1")
    at.segmented_control(key="study_way").set_value("yaml").run()
    at.text_area(key="study_yaml").set_value("task: [digits").run()
    assert "is not YAML" in at.warning[0].value
    at.text_area(key="study_yaml").set_value(json.dumps({**DATA, "seeds": 1, "title": "From a file"})).run()
    button(at, "Start study").click().run()
    (stored,) = store.studies()
    assert stored.study.title == "From a file"
    assert len(store.runs()) == 3


def test_what_is_in_the_store_is_reused(store: RunStore) -> None:
    first = studies.new(store, study_of(seeds=1))
    through(store, first, 90.0, 93.0, 90.2)
    at = opened(new="1")
    at.segmented_control(key="study_way").set_value("yaml").run()
    at.text_area(key="study_yaml").set_value(json.dumps({**DATA, "seeds": 2})).run()
    assert "<dt>To run</dt><dd>3 of 6</dd>" in html(at)
    assert "1 of 2" in html(at)
