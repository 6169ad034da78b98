"""Studies as plain data: arms from factors, what is refused, and what a stored study gives back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.patterns import dense, pattern, uniform
from mlae_lab.core.study import Arm, Study, configured, product

BASE = RunConfig("digits", uniform(0.5), epochs=2)


def arms(**factors: list[str]) -> list[str]:
    return [arm.name for arm in product(BASE, factors)[0]]


def test_arms_are_the_product_of_the_factors_in_order() -> None:
    assert arms(learning_rate=["0.001", "0.01"], mask=["dense", "hourglass.mixed"]) == [
        "learning rate = 0.001, Dense", "learning rate = 0.001, Hourglass, mixed",
        "learning rate = 0.01, Dense", "learning rate = 0.01, Hourglass, mixed",
    ]  # fmt: skip
    listed = product(BASE, {"mask": ["hourglass.mixed"], "epochs": ["3"]})[0]
    assert listed[0].config == replace(BASE, plan=pattern("hourglass", "mixed"), epochs=3)
    assert listed[0].values == (("mask", "hourglass.mixed"), ("epochs", "3"))


def test_a_factor_without_a_meaning_is_left_out_and_equal_arms_are_one() -> None:
    listed, notes = product(BASE, {"drop_rate": ["0", "0.3", "0.5"], "method": ["mlae", "lora"]})
    assert [arm.name for arm in listed] == [
        "Masked experts (MLAE), p = 0", "Masked experts (MLAE), p = 0.3", "Masked experts (MLAE), p = 0.5", "LoRA",
    ]  # fmt: skip
    assert listed[-1].values == (("method", "lora"),)
    assert notes == ("2 combinations are equal to others because a factor has no meaning there: counted once.",)


def test_equal_values_are_one_arm() -> None:
    listed, notes = product(BASE, {"drop_rate": ["0.3", "0.30"]})
    assert len(listed) == 1
    assert notes == ("1 combination is equal to another one because values are equal: counted once.",)


def test_settings_of_methods_masks_and_recipes_are_factors() -> None:
    config, used = configured(BASE, {"method": "lora", "rank": "4", "drop_rate": "0.1", "recipe": "common"})
    assert used == ("method", "rank", "recipe")
    assert (config.method_settings, config.epochs) == (("rank=4",), 100)
    assert configured(BASE, {"recipe": "mlae"})[0].epochs == 500
    config, _ = configured(BASE, {"recipe": "common", "method": "lora", "epochs": "7"})
    assert config.epochs == 7, "a recipe does not change what a factor sets"
    config, used = configured(
        BASE, {"expert_rank": "2", "coefficient_init": "0.5", "mask": "dense", "mask_per": "token"}
    )
    assert (config.plan.expert_rank, config.plan.coefficient_init, config.mask_per) == (1, 1.0, "token")
    config, _ = configured(BASE, {"mask": "dense", "expert_rank": "2", "drop_rate": "0.25"})
    assert config.plan == replace(dense().with_rates((0.25,) * 12), expert_rank=2)


def test_another_method_loses_the_settings_of_the_one_before() -> None:
    lora = configured(BASE, {"method": "lora", "rank": "4"})[0]
    assert configured(lora, {"method": "ssf"})[0].method_settings == ()
    assert configured(replace(BASE, mask_per="token"), {"method": "ssf"})[0].mask_per == "step"


@pytest.mark.parametrize(
    ("factors", "why"),
    [
        ({"colour": ["red"]}, "'colour' is no factor"),
        ({"seed": ["1"]}, "'seed' is no factor"),
        ({"epochs": []}, "the factor epochs has no values"),
        ({"epochs": ["2", "2"]}, "the values 2, 2 of epochs are not all different"),
        ({"epochs": ["many"]}, "epochs is 'many': it must be a whole number"),
        ({"drop_rate": ["1"]}, "drop rate is 1.0: it must be a number from 0"),
        ({"method": ["lorra"]}, "method is 'lorra'"),
        (
            {"epochs": [str(i) for i in range(1, 60)], "batch_size": [str(i) for i in range(1, 60)]},
            "3,481 combinations",
        ),
        ({"protocol": ["val", "test"]}, "protocol has the values val, test: their accuracies are not comparable"),
    ],
)
def test_invalid_factors_are_refused(factors: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        product(BASE, factors)


def test_cells_come_seed_by_seed_and_the_study_survives_json() -> None:
    listed = product(BASE, {"epochs": ["1", "2"]})[0]
    study = Study("Epochs", listed, (4, 7), question="How many?", margin=0.5, factors=(("epochs", ("1", "2")),))
    assert [(cell.arm, cell.seed, cell.config.seed) for cell in study.cells()] == [
        ("epochs = 1", 4, 4), ("epochs = 2", 4, 4), ("epochs = 1", 7, 7), ("epochs = 2", 7, 7),
    ]  # fmt: skip
    assert study.reference == "epochs = 1"
    assert Study.from_dict(json.loads(json.dumps(study.to_dict()))) == study
    longer = study.extended(seeds=(7, 8), arms=product(BASE, {"epochs": ["3"], "batch_size": ["32"]})[0])
    assert (longer.seeds, len(longer.arms)) == ((4, 7, 8), 3)
    assert longer.hash != study.hash


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"title": " "}, "the title has 0 characters"),
        ({"arms": ()}, "the study has 0 arms"),
        ({"seeds": ()}, "the study has 0 seeds"),
        ({"seeds": (1, 1)}, "are not all different"),
        ({"seeds": (-1,)}, "seed is -1"),
        ({"seeds": tuple(range(101))}, "the study has 101 seeds"),
        ({"reference": "nobody"}, "the reference is 'nobody', which is no arm: choose from a"),
        ({"margin": 0.0}, "margin is 0.0"),
        ({"arms": (Arm("a", (), BASE), Arm("a\n", (), replace(BASE, epochs=3)))}, "two arms are named 'a'"),
        ({"arms": (Arm("\u200b", (), BASE),)}, "the name of an arm has 0 characters"),
        ({"arms": (Arm("a" * 401, (), BASE),)}, "the name of an arm has 401 characters"),
        ({"arms": (Arm("a", (), BASE), Arm("b", (), replace(BASE, seed=9)))}, "a and b have the same settings"),
        ({"arms": (Arm("a", (), replace(BASE, max_seconds=5.0)),)}, "a has a time limit of 5 seconds"),
    ],
)
def test_an_invalid_study_is_refused(change: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Study(**{"title": "t", "arms": (Arm("a", (), BASE),), "seeds": (0,)} | change)


@pytest.mark.parametrize("damage", [None, [], {}, {"title": "t"}, "x"])
def test_a_damaged_description_is_one_sentence(damage: object) -> None:
    with pytest.raises(ConfigError, match="the description of the study is damaged"):
        Study.from_dict(damage)


def test_an_arm_has_a_reference_on_its_own_task() -> None:
    shapes = replace(BASE, task="fashion")
    listed = (
        *product(BASE, {"drop_rate": ["0", "0.5"]})[0],
        *(replace(arm, name=f"{arm.name} on Fashion") for arm in product(shapes, {"drop_rate": ["0.3", "0.7"]})[0]),
    )
    study = Study("Two tasks", listed, (0,), reference="p = 0.5")
    assert study.references == {
        "p = 0": "p = 0.5", "p = 0.5": "p = 0.5", "p = 0.3 on Fashion": "p = 0.3 on Fashion",
        "p = 0.7 on Fashion": "p = 0.3 on Fashion",
    }  # fmt: skip
    assert study.reference_title == "the reference of the same task"
