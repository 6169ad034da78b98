"""Races: what starts, which mask leads, whether the lead exceeds the noise. Expected values computed by hand."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import measured

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu", seed=5)  # evaluated after epochs 2 and 4
PLANS = [dense(), uniform(0.5), pattern("hourglass")]
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


# ---------------------------------------------------------------- launch


def test_a_race_enqueues_its_runs_by_seed(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2, owner="ada")
    assert [(run.config.plan, run.config.seed) for run in runs] == [(p, s) for s in (5, 6) for p in PLANS]
    assert {run.status for run in runs} == {Status.QUEUED}
    assert {run.owner for run in runs} == {"ada"}
    assert [(run.relation, run.parent) for run in runs] == [("race", "")] + [("race", runs[0].id)] * 5
    assert {replace(run.config, plan=dense(), seed=5) for run in runs} == {BASE}
    assert [[run.id for run in members] for members in race.races(store.runs())] == [[run.id for run in runs]]
    assert race.launch(store, BASE, PLANS, seeds=2) == runs  # existing runs are reused


def test_two_races_with_the_same_first_run_are_separate(store: RunStore) -> None:
    first_race = race.launch(store, BASE, PLANS[:2])
    other = race.launch(store, BASE, [PLANS[0], PLANS[2]])
    assert other[0] == first_race[0]
    assert [[run.id for run in members] for members in race.races(store.runs())] == [
        [run.id for run in other],
        [run.id for run in first_race],
    ]


def test_stopping_a_race_stops_all_runs_that_are_not_over(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2)
    measured(store, runs[0], 50.0, 60.0)
    assert store.claim(runs[1].id, "cpu")
    lock = locks.take(store.paths(runs[1].id).lock)
    race.stop(store, [store.run(run.id) for run in runs])
    os.close(lock)
    assert [store.run(run.id).status for run in runs] == [Status.FINISHED, Status.STOPPING] + [Status.STOPPED] * 4


def test_finished_runs_are_reused(store: RunStore) -> None:
    before = measured(store, store.enqueue(replace(BASE, plan=PLANS[1]), "cpu"), 50.0, 60.0)
    runs = race.launch(store, BASE, PLANS)
    assert runs[1] == before
    assert len(store.runs()) == 3


@pytest.mark.parametrize(
    ("config", "plans", "seeds", "why"),
    [
        (BASE, PLANS, 0, "seeds is 0: it must be a whole number from 1 to 3"),
        (BASE, PLANS, 4, "seeds is 4"),
        (BASE, PLANS, True, "seeds is True"),
        (BASE, PLANS[:1], 1, "a race has 1 mask: choose 2 to 8"),
        (BASE, [uniform(0.1 * i) for i in range(9)], 1, "a race has 9 masks"),
        (BASE, [PLANS[0], PLANS[1], PLANS[0]], 1, "masks 1 and 3 are the same"),
        (replace(BASE, method="linear"), PLANS, 1, "the method is linear and has no mask: choose mlae"),
        (replace(BASE, max_seconds=5.0), PLANS, 1, "the time limit is 5 seconds"),
        (BASE, [dense(), dense(13)], 1, "blocks.12.attn.qkv"),
        (replace(BASE, seed=2**31 - 1), PLANS, 2, "seed is 2147483648"),
    ],
)
def test_an_invalid_race_starts_nothing(
    store: RunStore, config: RunConfig, plans: list[MaskPlan], seeds: int, why: str
) -> None:
    with pytest.raises((ConfigError, CatalogError), match=why):
        race.launch(store, config, plans, seeds)
    assert store.runs() == []


# ---------------------------------------------------------------- standings


def test_before_the_first_evaluation(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS)
    state = race.race(store, runs)
    assert (state.epoch, state.standings, state.is_through) == (None, (), False)
    assert state.verdict == "No mask has been evaluated yet."
    measured(store, runs[0], 50.0, 60.0)
    assert race.race(store, runs).verdict == "Only Dense has been evaluated so far."


def test_a_slow_lane_is_left_out_of_the_comparison(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS)
    measured(store, runs[0], 50.0, 60.0)
    measured(store, runs[1], 52.0, status=Status.RUNNING)
    state = race.race(store, runs)
    assert state.epoch == 2
    assert [s.lane for s in state.standings] == [1, 0]
    assert "Uniform, p = 0.5 leads after epoch 2 of 4 with 52.0 %, 2.0 points ahead of Dense." in state.verdict
    assert state.verdict.endswith("1 of 3 masks has not reached this epoch.")
    store.append(runs[1].id, [ev.Evaluation(4, 52, "val", 59.0, 1.0, 2.0)])
    measured(store, runs[2], 90.0, status=Status.STOPPED)
    state = race.race(store, runs)
    assert state.epoch == 4
    assert [(s.lane, s.rank) for s in state.standings] == [(0, 1), (1, 2)]
    assert not state.is_through


def three_seeds(store: RunStore, *gains: float, plans: list[MaskPlan] = PLANS[:2]) -> race.Race:
    """A race whose second mask ends above the first by these points."""
    runs = race.launch(store, BASE, plans, seeds=len(gains))
    for i, run in enumerate(runs):
        seed, lane = divmod(i, len(plans))
        measured(store, run, 50.0, 60.0 + seed + (gains[seed] if lane == 1 else -8.0 * lane))
    return race.race(store, runs)


def test_one_seed_gives_no_noise(store: RunStore) -> None:
    state = three_seeds(store, 2.5)
    assert state.is_through
    assert state.verdict == (
        "Uniform, p = 0.5 leads at the end with 62.5 %, 2.5 points ahead of Dense. One seed cannot distinguish a lead "
        "from noise."
    )
    assert [state.distance(s) for s in state.standings] == ["leads", "2.5 behind"]


def test_a_lead_beyond_the_noise(store: RunStore) -> None:
    state = three_seeds(store, 3.0, 3.5, 4.0)
    assert state.seeds == (5, 6, 7)
    assert state.standings[0].accuracy == pytest.approx(64.5)
    assert "That is more than the seed noise (95 % +2.3 to +4.7, 3 seeds)." in state.verdict
    assert "chosen after the fact" not in state.verdict
    assert state.distance(state.standings[1]) == "3.5 behind, more than noise"


def test_a_lead_within_the_noise_and_the_leader_of_many(store: RunStore) -> None:
    state = three_seeds(store, 1.0, 2.0, 6.0, plans=PLANS)
    assert "That is within the seed noise (95 % −3.6 to +9.6, 3 seeds)." in state.verdict
    assert [state.distance(s) for s in state.standings][:2] == ["leads", "3.0 behind, within the noise"]
    sure = race.Race(state.lanes, 4, (5, 6, 7), state.standings, 4, True)
    assert sure.standings[2].rank == 3
    assert "behind, more than noise" in sure.distance(sure.standings[2])


def test_with_three_masks_the_leader_was_chosen_after_the_fact(store: RunStore) -> None:
    assert "chosen after the fact, which favours it" in three_seeds(store, 3.0, 3.5, 4.0, plans=PLANS).verdict


def test_masks_with_equal_accuracy_are_level(store: RunStore) -> None:
    state = three_seeds(store, 0.0)
    assert state.verdict == "Dense and Uniform, p = 0.5 are level at the end, at 60.0 %."
    assert [(s.rank, state.distance(s)) for s in state.standings] == [(1, "leads"), (1, "level with the leader")]


def test_the_compared_seeds_are_those_of_the_most_masks(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS, seeds=2)
    for run in runs[:5]:
        measured(store, run, 50.0, 60.0)
    state = race.race(store, runs)
    assert state.seeds == (5,)
    assert len(state.standings) == 3
    measured(store, runs[5], 50.0, 60.0)
    assert race.race(store, runs).seeds == (5, 6)


def test_runs_that_are_not_a_race(store: RunStore) -> None:
    a, b = (store.enqueue(replace(BASE, plan=plan), "cpu") for plan in PLANS[:2])
    other = store.enqueue(replace(BASE, plan=PLANS[1], learning_rate=0.1), "cpu")
    for runs, why in (
        ([a], "they have one mask"),
        ([a, replace(a, id="bbbbbbbb")], "they have one mask"),
        ([a, b, other], f"of {a.id} and {other.id} their learning rates differ"),
    ):
        with pytest.raises(StoreError, match=why):
            race.race(store, runs)
    same_mask = store.enqueue(replace(BASE, batch_size=32, seed=9), "cpu")
    assert "batch sizes differ" in str(race.unequal_because(store, [a, b, same_mask]))
    assert race.unequal_because(store, [a, b]) is None


def test_names_are_short_and_unique() -> None:
    plans = [dense(), uniform(0.3), pattern("hourglass", "mixed"), allocation((2,)), allocation((2,) * 3)]
    plans.append(uniform(0.5, experts=4))
    assert race.names(plans) == [
        "Dense", "Uniform, p = 0.3", "Hourglass, mixed, p = 0.5", "Dense, 2 experts", "Dense, 6 experts",
        "Uniform, 48 experts, p = 0.5",
    ]  # fmt: skip
    twins = [allocation((1, 2), columns=2), allocation((2, 1), columns=2)]
    assert race.names(twins) == ["Fixed, 3 experts (1)", "Fixed, 3 experts (2)"]
    assert race.names(twins, {twins[0]: "Mine"}) == ["Mine", "Fixed, 3 experts"]


def test_random_weights_may_differ_between_seeds_but_not_within_one(store: RunStore) -> None:
    runs = race.launch(store, BASE, PLANS[:2], seeds=2)
    for run, weights in zip(runs, ("a", "a", "b", "b"), strict=False):
        store.append(run.id, [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights=weights * 12)])
    assert race.unequal_because(store, runs) is None
    third = store.enqueue(replace(BASE, plan=PLANS[2]), "cpu")
    store.append(third.id, [ev.Started(1, 1, 1, 800, 200, 52, "cpu", "float32", 0.1, weights="c" * 12)])
    assert "their weights differ" in str(race.unequal_because(store, [*runs, third]))
