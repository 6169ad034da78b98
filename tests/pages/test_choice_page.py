"""Choosing p and λ on the Studies page: the form, and what a study has chosen. Nothing trains here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab.core.choice_study import choice_study
from mlae_lab.core.study_file import base_config
from mlae_lab.runs import choosing, studies
from mlae_lab.runs.store import RunStore
from tests.lab import figures, html, measured, open_page

opened = partial(open_page, "studies")
BASE = replace(base_config("digits"), epochs=8, evaluations=4, device="cpu")  # evaluated after epochs 2, 4, 6, 8
pytestmark = pytest.mark.usefixtures("no_supervisor")


def button(at: AppTest, label: str):
    return next(entry for entry in at.button if entry.label == label)


def through(store: RunStore, name: str, **last: float) -> None:
    """Finish all runs of a study at their arm's accuracy."""
    for cell in studies.state(store, name).cells:
        assert cell.run is not None
        rate = cell.arm.removeprefix("p = ").replace(".", "_")
        if not cell.run.status.is_over:
            measured(store, cell.run, 10.0, 20.0, 30.0, last[f"p{rate}"])


def test_the_form_says_what_it_would_start_and_starts_it(store: RunStore) -> None:
    assert button(opened(), "Choose p and λ")
    at = opened(choose="1")
    shown = html(at)
    assert "12 settings for 4 epochs; then 3 settings for 16 epochs, the default among them; 2 seeds" in shown
    assert "0.5, 0, 0.3" in shown
    assert not at.warning
    at.number_input(key="choice_budget").set_value(2.0).run()
    (warning,) = at.warning
    assert "two arms with 2 seeds take 4" in warning.value
    at.number_input(key="choice_budget").set_value(6.0).run()
    command = next(entry.value for entry in at.code if " choose " in entry.value)
    assert "--budget 6 --seeds 2" in command
    at.selectbox(key="choice_folds").set_value(5).run()
    (warning,) = at.warning
    assert "two arms with 2 divisions of 5 folds take 20" in warning.value
    at.number_input(key="choice_seeds").set_value(1).run()
    at.number_input(key="choice_budget").set_value(10.0).run()
    assert "2 settings for 16 epochs; 5 folds of each, on parts of train and val together" in html(at)
    assert "--folds 5" in next(entry.value for entry in at.code if " choose " in entry.value)
    at.selectbox(key="choice_folds").set_value(0).run()
    at.number_input(key="choice_seeds").set_value(2).run()
    at.number_input(key="choice_budget").set_value(6.0).run()
    button(at, "Start choosing").click().run()
    (stored,) = store.studies()
    assert [arm.name for arm in stored.study.arms] == ["p = 0.5", "p = 0", "p = 0.3"]
    assert len(store.queue()) == 6


def test_minutes_need_a_run_that_was_timed(store: RunStore) -> None:
    at = opened(choose="1")
    at.button_group(key="choice_unit").set_value("minutes").run()
    (warning,) = at.warning
    assert "no similar run was timed on this machine" in warning.value


def test_the_page_of_a_choice_says_what_was_chosen_and_starts_the_final_runs(store: RunStore) -> None:
    stored = studies.new(store, choice_study(BASE, 6)[0])
    shown = html(opened(study=stored.id))
    assert "3 settings for 8 epochs. 0 of 6 runs are done; the choice follows when all are." in shown
    through(store, stored.id, p0_5=60.0, p0=80.0, p0_3=60.0)
    at = opened(study=stored.id)
    shown = html(at)
    assert "It is 20.0 points above the default, p = 0.5 (standard error" in shown
    assert "<b>p = 0, chosen</b>" in shown
    assert "p = 0.5 (default)" in shown
    assert "study-arms" in figures(at)
    assert "Chosen: p = 0." in html(opened()), "the list says it, too"
    button(at, "Start the final runs").click().run()
    final = store.studies()[0]
    assert (len(final.study.arms), len(final.study.seeds), final.study.reference) == (2, 3, "p = 0.5")
    through(store, final.id, p0_5=61.0, p0=75.0)
    report = choosing.report(store, studies.state(store, stored.id))
    assert report is not None
    assert report.sentences[-2].startswith("On test images (3 seeds) it is 14.0 points above the default")


def test_train_links_to_the_form(store: RunStore) -> None:
    at = open_page("train")
    assert any("Choose p and λ" in str(getattr(entry.proto, "label", "")) for entry in at.get("page_link"))
