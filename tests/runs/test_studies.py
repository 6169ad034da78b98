"""Studies in a store: what starts, what is reused, what survives, and what they say. Nothing trains here."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab import locks
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.study import Arm, Study, product
from mlae_lab.core.weight_header import BackboneError
from mlae_lab.runs import commands, paths, studies, study_results
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError
from tests.lab import measured

BASE = RunConfig("digits", uniform(0.5), epochs=4, evaluations=2, device="cpu")  # evaluated after epochs 2 and 4
ARMS = product(BASE, {"drop_rate": ["0", "0.5", "0.9"]})[0]
STUDY = Study("Which p?", ARMS, (0, 1), reference="p = 0.5", margin=1.0)
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def finish(store: RunStore, name: str, **last: float) -> None:
    """Finish the queued runs of a study; each ends at its arm's number plus its seed."""
    for cell in studies.state(store, name).cells:
        if cell.run is not None and cell.run.status is Status.QUEUED:
            rate = cell.arm.removeprefix("p = ").replace(".", "_")
            measured(store, cell.run, 10.0, last.get(f"p{rate}", 50.0) + cell.seed)


def stopped_while_running(store: RunStore) -> tuple[str, Run, int]:
    """A study that is stopped while its first run is active: its id, that run, and the descriptor of the run's lock."""
    name = studies.new(store, STUDY).id
    run = store.queue()[0]
    assert store.claim(run.id, "cpu")
    lock = locks.take(store.paths(run.id).lock)
    assert lock is not None
    studies.stop(store, name)
    return name, run, lock


def test_a_study_starts_every_arm_with_the_first_seed_first(store: RunStore) -> None:
    stored = studies.new(store, STUDY, "ada")
    runs = store.queue()
    assert [(run.config.plan.drop_rate[0][0], run.config.seed) for run in runs] == [
        (p, seed) for seed in (0, 1) for p in (0.0, 0.5, 0.9)
    ]  # fmt: skip
    assert {(run.relation, run.source, run.owner) for run in runs} == {("study", stored.id, "ada")}
    assert stored.study == STUDY
    assert studies.start(store, stored.id) == [], "a second call starts nothing"
    state = studies.state(store, stored.id)
    assert (state.counts, state.done, state.is_over) == ({"queued": 6}, 0, False)


def test_equal_runs_are_reused_whoever_started_them(store: RunStore) -> None:
    before = measured(store, store.enqueue(replace(BASE, seed=1), "cpu"), 50.0, 60.0)
    plan = studies.plan(store, STUDY)
    assert (plan.to_run, plan.reused, plan.seconds, plan.unknown) == (5, 1, None, ("p = 0", "p = 0.5", "p = 0.9"))
    stored = studies.new(store, STUDY)
    cell = next(cell for cell in studies.state(store, stored.id).cells if cell.run and cell.run.id == before.id)
    assert (cell.arm, cell.seed, cell.accuracy) == ("p = 0.5", 1, 60.0)
    other = studies.new(store, replace(STUDY, title="the same again"))
    assert len(store.runs()) == 6
    assert set(store.studies_of(before.id)) == {stored.id, other.id}


def test_results_compare_every_arm_with_the_reference(store: RunStore) -> None:
    name = studies.new(store, replace(STUDY, seeds=(0, 1, 2))).id
    state = studies.state(store, name)
    assert study_results.results(store, state).verdict == "No run has reached its last epoch yet."
    ends = {"p = 0": (70, 71.1, 71.9), "p = 0.5": (80, 81, 82), "p = 0.9": (80.1, 81.0, 81.9)}
    for cell in state.cells:
        assert cell.run is not None
        measured(store, cell.run, 10.0, ends[cell.arm][cell.seed])
    state = studies.state(store, name)
    results = study_results.results(store, state)
    assert {arm["reference"] for arm in study_results.as_data(results, state)["arms"]} == {"p = 0.5"}
    assert [result.arm.name for result in results.ranked] == ["p = 0.5", "p = 0.9", "p = 0"]
    assert results.of("p = 0.5").verdict == "reference"
    assert results.of("p = 0").verdict == "worse by 10.0 points (97.5 % interval −10.4 to −9.6)"
    assert results.of("p = 0.9").verdict == "no difference larger than 1.0 points (95 % interval −0.2 to +0.2)"
    assert results.verdict == (
        "Compared with p = 0.5, p = 0 is worse by 10.0 points (97.5 % interval −10.4 to −9.6). p = 0.9 is within 1.0 "
        "points of p = 0.5."
    )
    data = study_results.as_data(results, state)
    assert [arm["mean"] for arm in data["arms"]] == pytest.approx([71.0, 81.0, 81.0])
    assert data["arms"][0]["difference"]["seeds"] == [0, 1, 2]
    assert data["arms"][1]["difference"] is None


def test_a_verdict_counts_the_seeds_of_the_arms_that_it_speaks_of(store: RunStore) -> None:
    name = studies.new(store, replace(STUDY, seeds=(0, 1, 2), margin=None)).id
    ends = {"p = 0": (70, 71.1, 71.9), "p = 0.5": (80, 81, 82), "p = 0.9": (80.2,)}
    for cell in studies.state(store, name).cells:
        if cell.seed < len(ends[cell.arm]):
            assert cell.run is not None
            measured(store, cell.run, 10.0, ends[cell.arm][cell.seed])
    assert study_results.results(store, studies.state(store, name)).verdict.endswith(
        "The other arm cannot be distinguished from p = 0.5 with one seed."
    )


def test_one_seed_settles_nothing(store: RunStore) -> None:
    name = studies.new(store, replace(STUDY, seeds=(0,))).id
    finish(store, name, p0=70.0, p0_5=80.0)
    results = study_results.results(store, studies.state(store, name))
    assert results.of("p = 0").verdict == "10.0 points below; one seed cannot distinguish that from noise"
    assert results.verdict == "One seed cannot distinguish a difference from noise."


def test_stop_resume_and_extend_lose_nothing(store: RunStore) -> None:
    name = studies.new(store, STUDY).id
    first = store.queue()[0]
    measured(store, first, 10.0, 60.0)
    assert studies.stop(store, name) == (5, 0)
    assert store.study(name).halted
    assert studies.state(store, name).counts == {"done": 1, "stopped": 5}
    begun = studies.start(store, name)
    assert len(begun) == 5
    assert not store.study(name).halted
    assert len(store.runs()) == 6, "stopped runs are resumed, none is started twice"
    longer = studies.extend(store, name, seeds=1)
    assert (longer.version, longer.study.seeds) == (2, (0, 1, 2))
    assert studies.state(store, name).counts == {"done": 1, "queued": 8}
    arm = product(BASE, {"drop_rate": ["0.3"]})[0]
    assert [arm.name for arm in studies.extend(store, name, arms=arm).study.arms][-1] == arm[0].name


def test_a_run_that_was_launched_and_not_recorded_is_stopped_too(store: RunStore) -> None:
    name = studies.new(store, STUDY).id
    with store._connection(write=True) as db:  # as after a kill between the two
        db.execute("DELETE FROM study_runs WHERE seed = 1")
    assert studies.state(store, name).counts == {"queued": 3, "missing": 3}
    assert studies.stop(store, name) == (6, 0)
    assert store.open_runs() == []
    assert studies.delete(store, name, with_runs=True) == 6


def test_a_run_that_was_deleted_is_started_anew(store: RunStore) -> None:
    name = studies.new(store, STUDY).id
    finish(store, name)
    gone = store.runs()[0].id
    commands.delete(store, gone)
    assert studies.state(store, name).counts == {"done": 5, "missing": 1}
    assert len(studies.start(store, name)) == 1
    assert studies.state(store, name).counts == {"done": 5, "queued": 1}


def test_a_start_that_is_cut_off_is_completed_by_the_next(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, left = commands.launch, [3]

    def interrupted(*args, **more):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return launch(*args, **more)

    monkeypatch.setattr(commands, "launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        studies.new(store, STUDY)
    monkeypatch.setattr(commands, "launch", launch)
    name = store.studies()[0].id
    assert studies.state(store, name).counts == {"queued": 3, "missing": 3}
    assert len(studies.start(store, name)) == 3
    assert len(store.runs()) == 6


def test_two_callers_start_a_run_once(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = store.add_study(STUDY).id
    monkeypatch.setattr(studies, "_WAIT", 0.0)
    launch, refused = commands.launch, []

    def launch_while_another_tries(*args, **more):
        if not refused:
            with pytest.raises(StoreError, match="another process is starting or stopping a study"):
                studies.start(store, name)
            refused.append(True)
        return launch(*args, **more)

    monkeypatch.setattr(commands, "launch", launch_while_another_tries)
    assert len(studies.start(store, name)) == 6
    assert refused
    assert len(store.runs()) == 6


def test_a_study_keeps_its_run_when_it_was_run_again(store: RunStore) -> None:
    name = studies.new(store, STUDY).id
    finish(store, name)
    before = studies.state(store, name).values
    measured(store, store.enqueue(replace(BASE, seed=1), "cpu"), 10.0, 99.0)  # the newest with these settings
    assert studies.start(store, name) == []
    assert studies.state(store, name).values == before


def test_a_run_that_is_stopping_or_archived_is_not_started_again(store: RunStore) -> None:
    name, run, lock = stopped_while_running(store)
    with pytest.raises(StoreError, match=f"run {run.id} is still stopping: try again in a moment"):
        studies.start(store, name)
    assert store.study(name).halted
    os.close(lock)
    store.move(run.id, Status.STOPPED)
    paths.archive(store.folder).mkdir()
    paths.archived(store.folder, run.id).touch()
    store.delete(run.id, "archived")
    with pytest.raises(StoreError, match=f"run {run.id} is archived: restore it with"):
        studies.start(store, name)
    assert len(store.runs()) == 5


def test_a_table_holds_no_formula(store: RunStore) -> None:
    arms = (Arm("=1+1", (("epochs", "4"), ("note", "-x"), ("shift", "-0.5")), BASE),)
    name = studies.new(store, Study("t", arms, (0,))).id
    results = study_results.results(store, studies.state(store, name))
    assert study_results.as_csv(results).splitlines()[1].startswith("'=1+1,4,'-x,-0.5,0,")


def test_stopping_a_study_leaves_runs_that_another_one_waits_for(store: RunStore) -> None:
    name = studies.new(store, STUDY).id
    other = studies.new(store, replace(STUDY, arms=ARMS[:1], reference="", title="other")).id
    assert studies.stop(store, name) == (4, 2)
    assert studies.state(store, other).counts == {"queued": 2}
    assert studies.stop(store, other) == (2, 0)


def test_deleting_a_study(store: RunStore) -> None:
    before = measured(store, store.enqueue(BASE, "cpu"), 50.0, 60.0)
    name = studies.new(store, STUDY).id
    with pytest.raises(StoreError, match="is not over: stop the study before you delete it"):
        studies.delete(store, name)
    finish(store, name)
    assert studies.delete(store, name, with_runs=True) == 5
    assert [run.id for run in store.runs()] == [before.id], "the reused run stays"
    assert store.studies() == []
    with pytest.raises(StoreError, match=f"study '{name}' is not in the store"):
        store.study(name)


def test_nothing_is_stored_for_a_study_that_cannot_start(store: RunStore, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"no weights")
    unfit = product(replace(BASE, weights=str(file)), {"epochs": ["3"]})[0]
    with pytest.raises(BackboneError):
        studies.new(store, replace(STUDY, arms=(*ARMS, *unfit)))
    assert store.studies() == []
    assert store.runs() == []
    with pytest.raises(ConfigError):
        studies.new(store, replace(STUDY, seeds=tuple(range(101))))


def test_an_arm_whose_method_is_not_installed_any_more_hides_no_other(store: RunStore) -> None:
    arms = product(BASE, {"method": ["mlae", "linear"]})[0]
    name = studies.new(store, Study("Methods", arms, (0, 1))).id
    finish(store, name)
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = REPLACE(config, '\"linear\"', '\"gone\"')")
        db.execute("UPDATE study_versions SET spec = REPLACE(spec, '\"linear\"', '\"gone\"')")
    state = studies.state(store, name)
    results = study_results.results(store, state)
    assert [result.parameters for result in results.arms] == [49_248, None]
    assert results.verdict == "Linear probe cannot be distinguished from Masked experts (MLAE) with 2 seeds."
    assert study_results.as_data(results, state)["arms"][1]["parameters"] is None


def test_a_damaged_study_hides_no_other(store: RunStore) -> None:
    good, bad = studies.new(store, STUDY).id, studies.new(store, replace(STUDY, title="bad")).id
    db = sqlite3.connect(paths.database(store.folder))
    db.execute("UPDATE study_versions SET spec = '{' WHERE study = ?", (bad,))
    db.commit()
    db.close()
    assert [stored.id for stored in store.studies()] == [good]
    assert store.unread_studies() == [bad]
    with pytest.raises(StoreError, match=f"study {bad} cannot be read"):
        store.study(bad)


def test_a_running_run_is_stopped_and_finishes_its_step(store: RunStore) -> None:
    name, _, lock = stopped_while_running(store)
    assert studies.state(store, name).counts == {"running": 1, "stopped": 5}
    os.close(lock)


def test_with_several_tasks_every_arm_is_compared_with_the_reference_of_its_task(store: RunStore) -> None:
    arms, _ = product(BASE, {"task": ["digits", "fashion"], "drop_rate": ["0", "0.3"]})
    study = Study("Which p?", arms, (0, 1))
    assert study.references == {
        name: f"{task}, p = 0"
        for task in ("Digits", "Fashion-MNIST-1k")
        for name in (f"{task}, p = 0", f"{task}, p = 0.3")
    }
    stored = studies.new(store, study)
    accuracies = {"Digits, p = 0": 95.0, "Digits, p = 0.3": 96.0, "Fashion-MNIST-1k, p = 0": 60.0}
    for cell in studies.state(store, stored.id).cells:
        if cell.arm in accuracies:
            assert cell.run is not None
            measured(
                store, cell.run, 10.0, accuracies[cell.arm] + (1.5 * cell.seed if "0.3" in cell.arm else cell.seed)
            )
    results = study_results.results(store, studies.state(store, stored.id))
    assert [result.verdict for result in results.arms][::2] == ["reference", "reference"]
    comparison = results.of("Digits, p = 0.3").comparison
    assert comparison is not None
    assert comparison.mean == pytest.approx(1.25)
    assert results.of("Fashion-MNIST-1k, p = 0.3").comparison is None
    assert "the reference of the same task" in results.verdict
