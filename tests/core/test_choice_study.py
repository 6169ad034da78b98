"""The study that chooses: its grid and stages within a budget, its default, what trains next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core.choice import Scores
from mlae_lab.core.choice_study import (
    choice_of,
    choice_study,
    command,
    design,
    distances,
    final_study,
    finalists,
    next_arms,
    proposed,
    seeds_of,
    stages,
)
from mlae_lab.core.paper import BY_DROP_RATE
from mlae_lab.core.patterns import pattern
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.study import Study
from mlae_lab.core.study_file import base_config

BASE = replace(base_config("digits"), epochs=16)
VALUES = proposed(BASE)


def test_the_default_is_the_best_single_p_of_the_paper() -> None:
    """Table 15 by group mean: natural, specialised and structured tasks are the first 7, the next 4 and the last 8."""
    tasks = list(BY_DROP_RATE)

    def score(p: float) -> float:
        values = [BY_DROP_RATE[task][p] for task in tasks]
        return sum(sum(part) / len(part) for part in (values[:7], values[7:11], values[11:])) / 3

    assert max((0, 0.1, 0.3, 0.5, 0.7, 0.9), key=score) == float(VALUES["drop_rate"][0])
    assert VALUES["learning_rate"] == ("0.005", "0.01", "0.002")


@pytest.mark.parametrize(
    ("budget", "grid", "rungs", "cost"),
    [
        (4, (2, 1, 1), ((16, 2),), 4),
        (6, (3, 1, 1), ((16, 3),), 6),
        (12, (3, 2, 2), ((4, 12), (16, 3)), 12),
        (16, (3, 2, 2), ((4, 12), (16, 5)), 16),
        (54, (3, 3, 3), ((16, 27),), 54),
        (1000, (3, 3, 3), ((16, 27),), 54),
    ],
)
def test_a_larger_budget_tries_more_and_never_costs_more(
    budget: float, grid: tuple[int, ...], rungs: tuple[tuple[int, int], ...], cost: float
) -> None:
    plan = design(VALUES, 16, 2, budget, lambda epochs: epochs / 16)
    assert (tuple(map(len, plan.values.values())), plan.rungs, plan.cost) == (grid, rungs, cost)
    assert {name: texts[0] for name, texts in plan.values.items()} == {name: texts[0] for name, texts in VALUES.items()}


def test_short_runs_are_not_shortened() -> None:
    assert design(VALUES, 4, 2, 24, lambda epochs: epochs / 4).rungs == ((4, 12),)


@pytest.mark.parametrize(
    ("folds", "divisions", "why"),
    [
        (5, 1, "two arms with 5 folds take 10: allow at least 10, or fewer folds"),
        (5, 2, "two arms with 2 divisions of 5 folds take 20: allow at least 20, or fewer divisions"),
    ],
)
def test_a_budget_of_folds_names_folds(folds: int, divisions: int, why: str) -> None:
    base = replace(BASE, folds=folds)
    with pytest.raises(ConfigError, match=why):
        choice_study(base, 3, seeds=seeds_of(base, divisions))


def test_a_budget_in_seconds_counts_what_runs_take() -> None:
    study, plan = choice_study(BASE, 600, "seconds", lambda config: 10 + config.epochs)  # 14 and 26 seconds
    assert plan.cost == 2 * (plan.rungs[0][1] * 14 + plan.rungs[1][1] * 26) <= 600
    assert plan.rungs == ((4, 12), (16, 5))
    assert study.choice is not None
    assert (study.choice.budget, study.choice.unit) == (600, "seconds")


@pytest.mark.parametrize(
    ("budget", "values", "why"),
    [
        (3, {}, "the budget is 3, and two arms with 2 seeds take 4: allow at least 4, or fewer seeds"),
        (0, {}, "the budget is 0: it must be above 0"),
        (float("nan"), {}, "it must be above 0"),
        (12, {"drop_rate": ["0.5", "2"]}, "drop rate is 2.0"),
        (12, {"drop_rate": ["0.5", "0.5"]}, "are not all different"),
        (12, {"drop_rate": ["0.5", "0.50"]}, "two of the values are equal"),
        (12, {name: VALUES[name][:1] for name in VALUES}, "every setting has one value"),
    ],
)
def test_what_cannot_be_chosen_is_refused(budget: float, values: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        choice_study(BASE, budget, values=values)


def test_a_method_without_masked_experts_has_nothing_to_choose() -> None:
    with pytest.raises(ConfigError, match="the method lora has no masked experts"):
        choice_study(replace(BASE, method="lora"), 12)


def study_of(budget: float = 12) -> Study:
    return choice_study(replace(BASE, protocol="test", seed=7), budget)[0]


def test_first_stage_holds_the_grid_for_a_quarter_of_the_epochs_and_the_default_for_all() -> None:
    study = study_of()
    (short_default, short), (default, full) = study.compared
    assert (len(short), len(full), study.seeds) == (12, 1, (0, 1))
    assert {arm.config.epochs for arm in short} == {4}
    assert {arm.config.protocol for arm in study.arms} == {"val"}
    assert default == study.reference == "p = 0.5, λ = 1, learning rate = 0.005, 16 epochs"
    assert short_default == "p = 0.5, λ = 1, learning rate = 0.005, 4 epochs"
    assert full[0].config == replace(study.arm(short_default).config, epochs=16)
    assert full[0].config.plan.drop_rate == ((0.5,) * 8,) * 12
    assert Study.from_dict(study.to_dict()) == study
    assert list(stages(study)) == ["12 settings for 4 epochs", "3 settings for 16 epochs, the default among them"]


def test_second_stage_holds_the_best_and_follows_a_complete_first_one() -> None:
    study = study_of()
    short = study.compared[0][1]
    accuracies = {arm.name: {0: 50.0 + number, 1: 50.0} for number, arm in enumerate(short)}
    incomplete = accuracies | {short[3].name: {0: 99.0}}
    assert next_arms(study, incomplete) == ()
    added = next_arms(study, accuracies)
    assert [arm.name for arm in added] == [
        "p = 0.3, λ = 4, learning rate = 0.005, 16 epochs",
        "p = 0.3, λ = 4, learning rate = 0.01, 16 epochs",
    ]
    longer = study.extended(arms=added)
    assert next_arms(longer, accuracies) == ()
    assert [arm.config for arm in finalists(longer)[1:]] == [replace(arm.config, epochs=16) for arm in short[-2:]]
    assert distances(finalists(longer), study.reference) == {study.reference: 0, added[0].name: 2, added[1].name: 3}


def test_the_choice_waits_for_every_run_of_the_last_stage() -> None:
    study = study_of(6)
    names = [arm.name for arm in study.arms]
    assert names == ["p = 0.5", "p = 0", "p = 0.3"]
    scores = {name: Scores({0: 70.0 + 20 * number, 1: 70.0}) for number, name in enumerate(names)}
    assert choice_of(study, {names[0]: scores[names[0]]}) is None
    assert choice_of(study, scores | {names[1]: Scores({0: 90.0})}) is None
    chosen = choice_of(study, scores)
    assert chosen is not None
    assert (chosen.best, chosen.default) == ("p = 0.3", "p = 0.5")


def test_seeds_that_are_added_to_a_cross_validation_leave_its_choice() -> None:
    base = replace(BASE, folds=5)
    study = choice_study(base, 15, values=proposed(base) | {"coefficient_init": ("1",), "learning_rate": ("0.005",)},
                         seeds=range(5))[0]  # fmt: skip
    scores = {arm.name: Scores({0: 70.0 + number}) for number, arm in enumerate(study.arms)}
    chosen = choice_of(study, scores)
    assert chosen is not None
    assert choice_of(replace(study, seeds=tuple(range(7))), scores) == chosen
    assert choice_of(replace(study, seeds=tuple(range(10))), scores) is None, "its second division is not through"


def test_final_runs_train_the_chosen_and_the_default_setting_on_train_and_val() -> None:
    study = study_of(6)
    final = final_study(study, ["p = 0", "p = 0.5"], range(3))
    assert [arm.name for arm in final.arms] == ["p = 0", "p = 0.5"]
    assert (final.reference, final.seeds, final.choice) == ("p = 0.5", (0, 1, 2), None)
    assert {arm.config.protocol for arm in final.arms} == {"test"}
    assert final_study(study, ["p = 0.5", "p = 0.5"], [4]).runs == 1


def test_command_names_what_differs_from_the_proposal() -> None:
    words = command(BASE, "12", VALUES, 2).partition(" choose ")[2]
    assert words.startswith("--task digits --budget 12 --seeds 2 --epochs 16")
    assert "--drop-rate" not in words
    assert "--mask" not in words
    assert "--lr" not in words
    other = replace(BASE, plan=pattern("hourglass", "fixed"), learning_rate=1e-3)
    words = command(other, "30min", proposed(other) | {"drop_rate": ("0.5", "0.7")}, 3)
    assert f"--mask '{other.plan.code}' --drop-rate 0.5,0.7 --lr 0.001,0.002,0.0004" in words


def test_p_that_is_learned_is_not_chosen() -> None:
    with pytest.raises(ConfigError, match="learned_drop_rates is 'layer', which leaves only an initial p to choose"):
        choice_study(replace(BASE, learned_drop_rates="layer"), 12)
