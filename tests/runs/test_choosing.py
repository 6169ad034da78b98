"""A study that chooses in a store: its stages, what it says, its final runs. Nothing trains here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.choice_study import choice_study, finalists
from mlae_lab.core.study_file import base_config
from mlae_lab.runs import choosing, studies, study_results
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.runs.studies import State
from mlae_lab.runs.supervisor import Supervisor

BASE = replace(base_config("digits"), epochs=8, evaluations=1, device="cpu")
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def end(store: RunStore, run: Run, correct: int, is_known: bool = True, images: int = 200) -> None:
    """Finish a run that classifies the first `correct` images correctly."""
    epochs = run.config.epochs
    bits = ev.packed(i < correct for i in range(images)) if is_known else ""
    started = ev.Started(1, 1, 1, 800, images, 13 * epochs, "cpu", "float32", 0.1)
    last = ev.Evaluation(epochs, 13 * epochs, run.config.protocol, 100 * correct / images, 1.0, 1.0, bits)
    store.append(run.id, [started, last])
    store.move(run.id, Status.FINISHED)


def end_all(store: RunStore, name: str, correct: dict[str, int], is_known: bool = True) -> State:
    """Finish the queued runs of a study; a run's number of correct images is that of the first text in its arm."""
    for cell in studies.state(store, name).cells:
        if cell.run is not None and cell.run.status is Status.QUEUED:
            end(store, cell.run, next((n for text, n in correct.items() if text in cell.arm), 100), is_known)
    return studies.state(store, name)


def test_stages_follow_one_another_and_end_with_a_choice(store: RunStore) -> None:
    name = studies.new(store, choice_study(BASE, 12)[0], "ada").id
    assert len(store.queue()) == 26
    report = choosing.report(store, studies.state(store, name))
    assert report is not None
    assert report.choice is None
    assert report.sentences == (
        "Stage 1 of 2: 12 settings for 2 epochs. 0 of 26 runs are done; the choice follows when all are.",
    )
    state = end_all(store, name, {"p = 0, λ = 4": 150, "p = 0.3": 120})
    assert (state.is_over, state.awaits_stage) == (True, True)
    assert studies.advance(store, [name]) == [name]
    assert studies.advance(store, [name]) == [], "a second call starts nothing"
    stored = store.study(name)
    assert (stored.version, len(store.queue())) == (2, 4)
    assert {run.owner for run in store.queue()} == {"ada"}
    assert [arm.name for arm in finalists(stored.study)][1:] == [
        "p = 0, λ = 4, learning rate = 0.005, 8 epochs",
        "p = 0, λ = 4, learning rate = 0.01, 8 epochs",
    ]
    state = end_all(store, name, {"p = 0, λ = 4, learning rate = 0.005": 150})
    assert (state.is_over, state.awaits_stage, state.done) == (True, False, 30)
    report = choosing.report(store, state)
    assert report is not None
    assert report.choice is not None
    assert report.choice.chosen == "p = 0, λ = 4, learning rate = 0.005, 8 epochs"
    assert (report.choice.gain, report.choice.images, report.choice.seeds) == (25.0, 200, (0, 1))
    assert report.sentences[0] == "Chosen: p = 0, λ = 4, learning rate = 0.005."
    assert report.sentences[1].startswith(
        "It is 25.0 points above the default, p = 0.5, λ = 1, learning rate = 0.005 (standard error 3."
    )
    assert "(2 seeds and 200 images), the rule chooses it in 100 % of cases." in report.sentences[2]
    assert report.sentences[3].endswith("Both stages are resampled."), "the others are equal, so the same ones stay"
    assert report.sentences[-1].startswith("Not tested yet")


def test_a_stage_is_compared_within_itself(store: RunStore) -> None:
    name = studies.new(store, choice_study(BASE, 12)[0]).id
    state = end_all(store, name, {"2 epochs": 60, "8 epochs": 160})
    results = study_results.results(store, state)
    assert {result.comparison.mean for result in results.arms if result.comparison} == {0.0}
    assert [result.arm.name for result in results.arms if result.verdict == "reference"] == [
        "p = 0.5, λ = 1, learning rate = 0.005, 2 epochs",
        "p = 0.5, λ = 1, learning rate = 0.005, 8 epochs",
    ]
    assert results.ranked[0].arm.name == "p = 0.5, λ = 1, learning rate = 0.005, 8 epochs"
    shown = study_results.last_stage(results)
    assert len(shown.arms) == 12
    assert shown.reference.arm.config.epochs == 2
    assert study_results.last_stage(shown) is shown


def test_a_stopped_choice_waits_and_resume_starts_the_next_stage(store: RunStore) -> None:
    name = studies.new(store, choice_study(BASE, 12)[0]).id
    end_all(store, name, {"p = 0.3": 150})
    studies.stop(store, name)
    assert not studies.state(store, name).awaits_stage
    assert studies.advance(store, [name]) == []
    assert len(studies.start(store, name)) == 4
    assert store.study(name).version == 2
    assert studies.state(store, name).counts == {"done": 26, "queued": 4}


def test_the_supervisor_starts_the_next_stage(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = studies.new(store, choice_study(BASE, 12)[0]).id
    supervisor = Supervisor(store, -1)
    monkeypatch.setattr(supervisor, "_start_queued", lambda: None)
    assert supervisor.tick()
    end_all(store, name, {})
    assert supervisor.tick(), "there is work again"
    assert len(store.queue()) == 4


def test_runs_that_the_store_has_are_reused_up_to_the_choice(store: RunStore) -> None:
    first = studies.new(store, choice_study(BASE, 12)[0]).id
    end_all(store, first, {"p = 0.3": 150})
    studies.advance(store, [first])
    end_all(store, first, {"p = 0.3": 150})
    count = len(store.runs())
    again = studies.new(store, choice_study(BASE, 12)[0]).id
    assert len(store.runs()) == count
    assert store.study(again).version == 2
    report = choosing.report(store, studies.state(store, again))
    assert report is not None
    assert report.choice is not None


def test_final_runs_give_gain_optimism_and_regret(store: RunStore) -> None:
    stored = studies.new(store, choice_study(BASE, 6)[0])
    with pytest.raises(StoreError, match="has not chosen yet"):
        choosing.final(stored, choosing.report(store, studies.state(store, stored.id)))
    state = end_all(store, stored.id, {"p = 0.5": 100, "p = 0.3": 110, "p = 0": 140})
    report = choosing.report(store, state)
    assert report is not None
    assert [arm.name for arm in choosing.final(stored, report).arms] == ["p = 0", "p = 0.5"]
    final = studies.new(store, choosing.final(stored, report, 2, every=True))
    assert {run.config.protocol for run in store.queue()} == {"test"}
    end_all(store, final.id, {"p = 0.5": 110, "p = 0.3": 150, "p = 0": 130})
    report = choosing.report(store, state)
    assert report is not None
    assert report.honesty is not None
    assert (report.honesty.test_gain, report.honesty.optimism) == pytest.approx((10.0, 10.0))
    assert (report.honesty.regret, report.honesty.best, report.honesty.tested) == (pytest.approx(10.0), "p = 0.3", 3)
    assert report.sentences[-2:] == (
        "On test images (2 seeds) it is 10.0 points above the default: an optimism of +10.0 points.",
        "Regret: 10.0 points behind the best in hindsight of 3 tested settings, p = 0.3.",
    )
    data = choosing.as_data(report)
    assert data["chosen"] == "p = 0"
    assert data["settings"] == {"drop_rate": "0", "coefficient_init": "1", "learning_rate": "0.005"}
    assert data["test"]["accuracies"]["p = 0"] == {"0": 65.0, "1": 65.0}


def test_a_kept_default_says_why_and_has_no_optimism(store: RunStore) -> None:
    stored = studies.new(store, choice_study(BASE, 6)[0])
    state = end_all(store, stored.id, {"p = 0.5": 100, "p = 0.3": 101, "p = 0": 100})
    report = choosing.report(store, state)
    assert report is not None
    assert report.sentences[:2] == (
        "The default is kept: p = 0.5.",
        "The setting with the highest accuracy, p = 0.3, is 0.5 points above it, which is within one standard error "
        "(0.5).",
    )
    final = studies.new(store, choosing.final(stored, report, 1))
    assert len(final.study.arms) == 1
    end_all(store, final.id, {})
    report = choosing.report(store, state)
    assert report is not None
    assert report.honesty is not None
    assert (report.honesty.optimism, report.honesty.regret) == (0.0, None)
    assert (
        report.sentences[-1] == "The default was tested with 1 seed; no other setting was, so the regret is not known."
    )


def test_runs_of_an_earlier_version_give_no_certainty(store: RunStore) -> None:
    stored = studies.new(store, choice_study(BASE, 4)[0])
    state = end_all(store, stored.id, {"p = 0.5": 60, "p = 0": 140}, is_known=False)
    report = choosing.report(store, state)
    assert report is not None
    assert report.choice is not None
    assert (report.choice.chosen, report.choice.optimism) == ("p = 0", None)
    assert any("do not record which images" in sentence for sentence in report.sentences)


def test_a_study_that_only_compares_has_no_choice(store: RunStore) -> None:
    study = replace(choice_study(BASE, 4)[0], choice=None)
    stored = studies.new(store, study)
    state = studies.state(store, stored.id)
    assert choosing.report(store, state) is None
    with pytest.raises(StoreError, match="only compares"):
        choosing.final(stored, None)


def test_a_new_supervisor_starts_the_stage_that_the_one_before_left(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (studies.new(store, replace(choice_study(BASE, 12)[0], title=title)).id for title in "ab")
    end_all(store, first, {})
    assert studies.state(store, second).awaits_stage
    advance = studies.advance

    def failing(store: RunStore, names: list[str]) -> list[str]:
        if names == [first]:
            raise StoreError("its run is archived")
        return advance(store, names)

    monkeypatch.setattr(studies, "advance", failing)
    supervisor = Supervisor(store, -1)
    monkeypatch.setattr(supervisor, "_start_queued", lambda: None)
    assert supervisor.tick()
    assert f"the next stage of study {first} cannot be started (its run is archived)" in capsys.readouterr().out
    assert studies.state(store, second).counts == {"done": 26, "queued": 4}, "the other study continues"
