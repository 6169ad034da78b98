"""How the masks of a study stand while it runs. Expected values computed by hand."""

from __future__ import annotations

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core import study_presets
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs import presets, standings, studies
from mlae_lab.runs.standings import Race
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore
from tests.lab import measured

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu", seed=5)  # evaluated after epochs 2 and 4
PLANS = [dense(), uniform(0.5), pattern("hourglass")]
pytestmark = pytest.mark.usefixtures("no_supervisor")  # runs stay queued, no process starts


def started(store: RunStore, plans: list[MaskPlan] = PLANS, seeds: int = 1) -> tuple[str, list[Run]]:
    """A race and its queued runs, seed by seed."""
    study = study_presets.race(BASE, plans, seeds)
    name = presets.launch(store, study).id
    return name, presets.runs_of(store, name, study)


def standing(store: RunStore, name: str) -> Race:
    race = standings.race(store, studies.state(store, name))
    assert race is not None
    return race


def test_before_the_first_evaluation(store: RunStore) -> None:
    name, runs = started(store)
    state = standing(store, name)
    assert (state.epoch, state.standings, state.is_through) == (None, (), False)
    assert state.headline == "No mask has been evaluated yet."
    measured(store, runs[0], 50.0, 60.0)
    assert standing(store, name).headline == "Only Dense has been evaluated so far."


def test_a_slow_lane_is_left_out_of_the_comparison(store: RunStore) -> None:
    name, runs = started(store)
    measured(store, runs[0], 50.0, 60.0)
    measured(store, runs[1], 52.0, status=Status.RUNNING)
    state = standing(store, name)
    assert state.epoch == 2
    assert [s.lane for s in state.standings] == [1, 0]
    assert "Uniform, p = 0.5 leads after epoch 2 of 4 with 52.0 %, 2.0 points ahead of Dense." in state.headline
    assert state.missing == "1 of 3 masks has not reached this epoch."
    store.append(runs[1].id, [ev.Evaluation(4, 52, "val", 59.0, 1.0, 2.0)])
    measured(store, runs[2], 90.0, status=Status.STOPPED)
    state = standing(store, name)
    assert state.epoch == 4
    assert [(s.lane, s.rank) for s in state.standings] == [(0, 1), (1, 2)]
    assert not state.is_through


def three_seeds(store: RunStore, *gains: float, plans: list[MaskPlan] = PLANS[:2]) -> Race:
    """A race whose second mask ends above the first by these points."""
    name, runs = started(store, plans, len(gains))
    for i, run in enumerate(runs):
        seed, lane = divmod(i, len(plans))
        measured(store, run, 50.0, 60.0 + seed + (gains[seed] if lane == 1 else -8.0 * lane))
    return standing(store, name)


def test_masks_with_equal_accuracy_are_level(store: RunStore) -> None:
    state = three_seeds(store, 0.0)
    assert state.headline == "Dense and Uniform, p = 0.5 are level at the end, at 60.0 %."
    assert [(s.rank, state.distance(s)) for s in state.standings] == [(1, "leads"), (1, "level with the leader")]


def test_the_compared_seeds_are_those_of_the_most_masks(store: RunStore) -> None:
    name, runs = started(store, seeds=2)
    for run in runs[:5]:
        measured(store, run, 50.0, 60.0)
    state = standing(store, name)
    assert state.seeds == (5,)
    assert len(state.standings) == 3
    measured(store, runs[5], 50.0, 60.0)
    assert standing(store, name).seeds == (5, 6)


def test_the_distance_to_the_leader_is_over_the_compared_seeds(store: RunStore) -> None:
    state = three_seeds(store, 3.0, 3.5, 4.0)
    assert (state.is_through, state.seeds, state.missing) == (True, (5, 6, 7), "")
    assert state.headline == "Uniform, p = 0.5 leads at the end with 64.5 %, 3.5 points ahead of Dense."
    assert [state.distance(s) for s in state.standings] == ["leads", "3.5 behind"]
    behind = state.standings[1].behind
    assert behind is not None
    assert (behind.n, behind.mean, behind.low) == (
        3,
        pytest.approx(3.5),
        pytest.approx(3.5 - 4.30265273 * 0.5 / 3**0.5),
    )


def test_the_race_of_given_runs(store: RunStore) -> None:
    """As an address names them; a study that has other runs, too, is not asked."""
    name, runs = started(store, seeds=2)
    for run in runs:
        measured(store, run, 50.0, 60.0)
    race = standings.race(store, presets.of_runs(store, [store.run(run.id) for run in runs[:2]]))
    assert race is not None
    assert [(lane.name, [*lane.runs]) for lane in race.lanes] == [("Dense", [5]), ("Uniform, p = 0.5", [5])]
    assert race.is_through
    assert len(standing(store, name).lanes) == 3
