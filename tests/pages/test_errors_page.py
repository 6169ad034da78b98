"""The views Errors and Seeds of the Experts page, opened through app.py on real runs of one epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from streamlit.testing.v1 import AppTest

from mlae_lab import locks
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Started
from mlae_lab.core.paired_tests import paired_tests
from mlae_lab.core.patterns import allocation, dense
from mlae_lab.data.listing import counted
from mlae_lab.runs import paths, probe
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from tests.lab import end_probe, figures, finished, html, open_page

opened = partial(open_page, "experts")

A = RunConfig(
    "digits", allocation((0,) * 10 + (8, 8), drop_rate=0.5), backbone="lab_vit_12x128.random", epochs=1, device="cpu",
    seed=3, learning_rate=5e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(probes_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, Run, Run]]:
    """A store with a masked run and its dense pair; the supervisor's lock is taken, so that nothing else starts."""
    with pytest.MonkeyPatch.context() as patch:
        store = RunStore(tmp_path_factory.mktemp("errors") / "lab")
        patch.setenv("MLAE_LAB_STORE", str(store.folder))
        lock = locks.take(paths.supervisor_lock(store.folder))
        runs = []
        for config in (A, replace(A, plan=dense())):
            runs.append(store.run(finished(store, config)))
        yield store, *runs
        os.close(lock)
        for run in runs:
            end_probe(store, run.id)


def error_analysis(store: RunStore, run: Run) -> dict:
    """The answer of the run, whose probe is then loaded, so that the page need not wait."""
    answer = probe.wait(store, run.id, "errors", {"images": "all"})
    assert answer.value is not None, answer.reason
    return answer.value


def test_errors_of_one_run(lab: tuple[RunStore, Run, Run]) -> None:
    store, run, other = lab
    answer = error_analysis(store, run)
    at = opened(run=run.id, view="errors")
    assert set(figures(at)) == {"confusion", "reliability", "class-accuracy"}
    assert f"{answer['accuracy']:.1f} %" in html(at)
    assert "Incorrect, highest confidence" in html(at)
    wrong = answer["extremes"]["wrong"][0]
    assert answer["thumbnails"][str(wrong)] in html(at)
    at.selectbox[1].set_value(other.id).run()
    assert at.query_params["other"] in (other.id, [other.id])


def test_errors_of_two_runs(lab: tuple[RunStore, Run, Run]) -> None:
    store, run, other = lab
    tests = paired_tests(error_analysis(store, run), error_analysis(store, other))
    assert tests.only_a or tests.only_b
    indices = sorted({*tests.only_a[:24], *tests.only_b[:24]})
    assert probe.wait(store, run.id, "images_at", {"indices": indices}).value
    at = opened(run=run.id, view="errors", other=other.id)
    assert not at.warning
    assert tests.verdict.replace("'", "&#x27;") in html(at)
    assert "paired-tests" in figures(at)
    assert f"Only B is correct: {counted(len(tests.only_b))}" in html(at)
    assert "none" in at.selectbox[1].options[0]


def test_runs_that_are_correct_on_the_same_images_have_no_chart(
    lab: tuple[RunStore, Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, other = lab
    for entry in (run, other):
        error_analysis(store, entry)
    monkeypatch.setattr("mlae_lab.ui.expert_views.errors.paired_tests", lambda a, _: paired_tests(a, a))
    at = opened(run=run.id, view="errors", other=other.id)
    assert "A and B are correct on the same" in html(at)
    assert set(figures(at)) == {"confusion", "reliability", "class-accuracy"}


def test_a_sample_of_many_images_is_the_chosen_option(lab: tuple[RunStore, Run, Run]) -> None:
    def drawn() -> None:
        import streamlit as st

        from mlae_lab.ui.expert_views import errors

        st.session_state["count"] = errors._image_count(st.session_state["run"])

    store, run, _ = lab
    large = store.enqueue(run.config, "cpu")
    started = store.last(run.id, Started)
    assert started is not None
    store.append(large.id, [replace(started, evaluation_images=5_000)])
    store.move(large.id, Status.STOPPED)
    at = AppTest.from_function(drawn)
    at.session_state["run"] = large
    at.run()
    (choice,) = at.segmented_control
    assert choice.value == "2,000, evenly spread"
    assert at.session_state["count"] == 2_000
    choice.set_value("all 5,000").run()
    assert at.session_state["count"] == "all"
    store.delete(large.id)


def test_seeds_of_one_run_and_the_button(lab: tuple[RunStore, Run, Run]) -> None:
    store, run, _ = lab
    at = opened(run=run.id, view="seeds")
    assert "One run does not show the variation between seeds" in html(at)
    assert set(figures(at)) == {"seeds"}
    assert "2 runs start, with seeds 4, 5; 1 of 3 exist already." in html(at)
    at.button(key="seeds_start").click().run()
    assert not at.exception
    (stored,) = store.studies()
    new = [entry for entry in store.runs() if entry.source == stored.id]
    assert [(entry.config.seed, entry.status) for entry in new] == [(5, Status.QUEUED), (4, Status.QUEUED)]
    assert "How much does the seed alone change the accuracy?" in html(at)  # this is the page of the study now
    at = opened(run=run.id, view="seeds")
    assert "nothing new starts" in html(at)
    assert at.button(key="seeds_start").disabled
    for entry in new:
        store.move(entry.id, Status.STOPPED)


def test_seeds_lead_to_the_comparison_with_another_run(lab: tuple[RunStore, Run, Run]) -> None:
    _, run, other = lab
    for name, label in ((other.id, f"Compare with run {other.id}"), ("zzzzzzzz", "Compare with another mask")):
        at = opened(run=run.id, view="seeds", other=name)
        assert label in [entry.proto.label for entry in at.get("page_link")]


def test_unknown_other_run_in_the_address_is_ignored(lab: tuple[RunStore, Run, Run]) -> None:
    store, run, _ = lab
    error_analysis(store, run)
    at = opened(run=run.id, view="errors", other="zzzzzzzz")
    assert not at.exception
    assert at.selectbox[1].value == ""
