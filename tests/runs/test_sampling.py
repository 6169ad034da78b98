"""Settings that Optuna's sampler proposes from the rows of a study."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mlae_lab.core.choice_study import awaits_sample, choice_study, sampled_arm
from mlae_lab.core.config import ConfigError
from mlae_lab.core.study import Study
from mlae_lab.core.study_file import base_config
from mlae_lab.runs import sampling, studies
from mlae_lab.runs.store import RunStore, StoreError
from tests.runs.test_choosing import end_all

BASE = replace(base_config("digits"), epochs=8, evaluations=1, device="cpu")


def study_of(budget: float = 20, **values: tuple[str, ...]) -> Study:
    return choice_study(BASE, budget, values=values, seeds=(0,), is_sampled=True)[0]


def test_the_default_comes_first_and_the_rule_holds_the_ranges() -> None:
    study = study_of(learning_rate=("0.005",))
    assert study.choice is not None
    assert [arm.name for arm in study.arms] == ["p = 0.5, λ = 1"]
    assert study.choice.space == (("drop_rate", 0, 0.9), ("coefficient_init", 0.125, 4))
    assert study.choice.rungs == ((8, 20),)
    assert Study.from_dict(study.to_dict()) == study
    assert not awaits_sample(study, {})
    assert awaits_sample(study, {study.reference: {0: 80.0}})


def test_a_proposal_is_rounded_and_stays_in_its_range() -> None:
    study = study_of(learning_rate=("0.005",))
    arm = sampled_arm(study, {"drop_rate": 0.123456, "coefficient_init": 4.0049})
    assert arm is not None
    assert arm.name == "p = 0.123, λ = 4"
    assert (arm.config.plan.drop_rate[0][0], arm.config.learning_rate) == (0.123, 0.005)
    assert sampled_arm(study, {"drop_rate": 0.50001, "coefficient_init": 1.0}) is None, "the default is there"
    uneven = study_of(drop_rate=("0.5", "0", "0.6666666"), coefficient_init=("1",), learning_rate=("0.005",))
    highest = sampled_arm(uneven, {"drop_rate": 0.66666})
    assert highest is not None
    assert float(dict(highest.values)["drop_rate"]) <= 0.6666666, "not rounded to more than the highest value"
    assert study_of(10_000).choice.rungs == ((8, 1000),), "a study has at most 1,000 arms"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("budget", "values", "why"),
    [
        (19, {}, "the budget is 19, which is 19 settings: a sampler needs at least 20, that is a budget of 20"),
        (20, {"drop_rate": ("2", "0")}, "drop rate is 2.0"),
        (20, {"drop_rate": ("0",), "coefficient_init": ("1",), "learning_rate": ("1",)}, "every setting has one value"),
    ],
)
def test_what_cannot_be_sampled_is_refused(budget: float, values: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        study_of(budget, **values)


def test_without_optuna_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"needs Optuna, which is not installed: `pip install 'mlae-lab\[optuna\]'`"):
        sampling.next_arm(study_of(), {study_of().reference: {0: 80.0}})


def test_the_same_runs_give_the_same_proposals_and_good_settings_are_found() -> None:
    """Accuracy falls with the distance of p from 0.2, so the mean of the later proposals lies nearer to it."""
    pytest.importorskip("optuna")

    def searched() -> list[float]:
        study, accuracies, rates = study_of(30, coefficient_init=("1",), learning_rate=("0.005",)), {}, []
        while True:
            arm = study.arms[-1]
            rates.append(float(dict(arm.values)["drop_rate"]))
            accuracies[arm.name] = {0: 90 - 50 * abs(rates[-1] - 0.2)}
            if not awaits_sample(study, accuracies):
                return rates
            study = study.extended(arms=[sampling.next_arm(study, accuracies)])

    rates = searched()
    assert rates == searched()
    assert len(rates) == len(set(rates)) == 30
    assert rates[0] == 0.5
    distance = [math.fabs(rate - 0.2) for rate in rates]
    assert sum(distance[20:]) < 0.5 * sum(distance[1:11])


@pytest.mark.usefixtures("no_supervisor")
def test_a_store_goes_from_proposal_to_proposal(store: RunStore) -> None:
    pytest.importorskip("optuna")
    name = studies.new(store, study_of()).id
    for number in range(1, 4):
        state = end_all(store, name, {})
        assert (len(state.stored.study.arms), state.awaits_stage) == (number, True)
        assert studies.advance(store, [name]) == [name]
        assert len(store.queue()) == 1
