"""Presets of studies: their arms, what they refuse, their equivalent commands and the names of masks."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from mlae_lab import cli
from mlae_lab.cli.masks import plans_of
from mlae_lab.core import study_presets
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import allocation, dense, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.study import Study, product
from mlae_lab.ui.settings_code import read_settings

BASE = RunConfig("digits", dense(), epochs=4, evaluations=2, device="cpu", seed=5)
PLANS = [dense(), uniform(0.5), pattern("hourglass")]


def test_a_race_compares_its_masks_with_the_first() -> None:
    study = study_presets.race(BASE, PLANS, seeds=2)
    assert [(cell.config.plan, cell.seed) for cell in study.cells()] == [(p, s) for s in (5, 6) for p in PLANS]
    assert {replace(cell.config, plan=dense(), seed=5) for cell in study.cells()} == {BASE}
    assert study.reference == "Dense"
    assert study_presets.compared_masks(study) == study.arms


def test_a_pair_may_have_the_linear_probe() -> None:
    study = study_presets.pair(BASE, uniform(0.5), 3, probe=True)
    assert [arm.name for arm in study.arms] == ["Dense", "Uniform, p = 0.5", "Linear probe"]
    assert (study.seeds, study.reference) == ((5, 6, 7), "Dense")
    assert [arm.config.method for arm in study.arms] == ["mlae", "mlae", "linear"]
    assert study_presets.compared_masks(study) == study.arms[:2]
    assert Study.from_dict(study.to_dict()) == study


def test_repeats_have_one_arm() -> None:
    study = study_presets.repeats(BASE, (3, 5))
    assert [cell.config for cell in study.cells()] == [replace(BASE, seed=3), BASE]
    assert study_presets.repeats(replace(BASE, method="linear"), (0,)).arms[0].name == "Linear probe"
    assert study_presets.compared_masks(study) == ()


def test_other_studies_are_no_races() -> None:
    rates = product(BASE, {"learning_rate": ["0.1", "0.2"]})[0]
    assert study_presets.compared_masks(Study("rates", rates, (0,))) == ()
    assert study_presets.dropout_arms(Study("rates", rates, (0,))) is None


@pytest.mark.parametrize(
    ("config", "plans", "seeds", "why"),
    [
        (BASE, PLANS, 0, "seeds is 0: it must be a whole number from 1 to 10"),
        (BASE, PLANS, 11, "seeds is 11"),
        (BASE, PLANS, True, "seeds is True"),
        (BASE, PLANS[:1], 1, "a race has 1 mask: choose 2 to 8"),
        (BASE, [uniform(0.1 * i) for i in range(9)], 1, "a race has 9 masks"),
        (BASE, [PLANS[0], PLANS[1], PLANS[0]], 1, "masks 1 and 3 are the same"),
        (replace(BASE, method="linear"), PLANS, 1, "the method is linear and has no mask: choose mlae"),
        (replace(BASE, max_seconds=5.0), PLANS, 1, "a time limit of 5 seconds, .* set no time limit"),
        (BASE, [dense(), dense(13)], 1, "blocks.12.attn.qkv"),
        (replace(BASE, seed=2**31 - 1), PLANS, 2, "seed is 2147483648"),
    ],
)
def test_an_invalid_race_is_one_sentence(config: RunConfig, plans: list[MaskPlan], seeds: int, why: str) -> None:
    with pytest.raises((ConfigError, CatalogError), match=why):
        study_presets.race(config, plans, seeds)


def test_the_command_of_a_race_describes_the_same_race() -> None:
    config = replace(FIRST_RUN, **read_settings("epochs:3,lr:0.01,seed:4,device:cpu"))
    plans = [config.plan, dense(), pattern("random", "mixed")]
    assert study_presets.race_command(config, plans, 2, probe=True).endswith(" --seeds 2 --linear-probe")
    words = shlex.split(study_presets.race_command(config, plans, 2))
    assert words[:4] == ["python", "-m", "mlae_lab", "race"]
    args = cli._parser().parse_args(words[3:])
    assert plans_of(args, args.backbone) == plans
    assert args.seeds == 2
    assert cli.config_of(args, config.plan) == config


def test_names_are_short_and_unique() -> None:
    plans = [dense(), uniform(0.3), pattern("hourglass", "mixed"), allocation((2,)), allocation((2,) * 3)]
    plans.append(uniform(0.5, experts=4))
    assert study_presets.mask_names(plans) == [
        "Dense", "Uniform, p = 0.3", "Hourglass, mixed, p = 0.5", "Dense, 2 experts", "Dense, 6 experts",
        "Uniform, 48 experts, p = 0.5",
    ]  # fmt: skip
    twins = [allocation((1, 2), columns=2), allocation((2, 1), columns=2)]
    assert study_presets.mask_names(twins) == ["Fixed, 3 experts (1)", "Fixed, 3 experts (2)"]
    assert study_presets.mask_names(twins, {twins[0]: "Mine"}) == ["Mine", "Fixed, 3 experts"]


# ---------------------------------------------------------------- diversity


def test_the_arms_differ_in_their_dropout_only() -> None:
    study = study_presets.diversity(replace(BASE, seed=0), (0.5,), seeds=2)
    arms = study_presets.dropout_arms(study)
    assert arms is not None
    assert [*arms] == [("dense", 0), ("lora", 0), ("expert", 0.5), ("token", 0.5), ("lora", 0.5)]
    assert (study.runs, study.reference, study.seeds) == (10, "Dense", (0, 1))
    whole = replace(BASE, plan=dense(), seed=0)
    lora = replace(dense(), train_coefficients=False)
    assert {kind: arm.config for kind, arm in arms.items()} == {
        ("dense", 0): whole,
        ("lora", 0): replace(whole, plan=lora),
        ("expert", 0.5): replace(whole, plan=uniform(0.5)),
        ("token", 0.5): replace(whole, plan=uniform(0.5), mask_per="token"),
        ("lora", 0.5): replace(whole, plan=lora, input_dropout=0.5),
    }
    assert study_presets.dropout_arms(Study.from_dict(study.to_dict())) == arms


def test_the_default_has_51_runs() -> None:
    study = study_presets.diversity(BASE)
    assert len({cell.config.hash for cell in study.cells()}) == study.runs == 51


def test_the_mask_is_fitted_to_the_layers_of_the_backbone() -> None:
    config = replace(BASE, backbone="vit_large_patch16_224.augreg_in21k")
    plan = study_presets.diversity(config, (0.5,), 1, experts=4).arms[0].config.plan
    assert (plan.rows, set(plan.kept)) == (24, {4})


@pytest.mark.parametrize(
    ("config", "rates", "seeds", "message"),
    [
        (BASE, (0.95,), 3, "rates are 0.95: give 1 to 12, each from 0 to 0.9"),
        (BASE, (), 3, "give 1 to 12"),
        (BASE, (0.5,), 0, "seeds is 0: it must be a whole number from 1 to 10"),
        (replace(BASE, method="linear"), (0.5,), 3, "the method is linear and has no experts: choose mlae"),
        (replace(BASE, max_seconds=9.0), (0.5,), 3, "set no time limit"),
        (replace(BASE, mask_per="token"), (0.5,), 3, "the arms set mask-per, input-dropout, consistency and learned"),
        (replace(BASE, input_dropout=0.1), (0.5,), 3, "the arms set mask-per, input-dropout, consistency and learned"),
    ],
)
def test_an_invalid_study_of_diversity_is_one_sentence(
    config: RunConfig, rates: tuple, seeds: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        study_presets.diversity(config, rates, seeds)


def test_the_command_of_a_study_of_diversity() -> None:
    text = study_presets.diversity_command(study_presets.diversity(replace(BASE, seed=4), (0.5, 0.1), 2, experts=4))
    assert text.startswith("python -m mlae_lab diversity --task digits --experts 4 --epochs 4")
    assert "--seed 4" in text
    assert text.endswith("--seeds 2 --rates 0,0.1,0.5")
    assert "--mask" not in text


def test_seeds_with_a_gap_have_no_command_of_diversity() -> None:
    study = study_presets.diversity(RunConfig("digits"), seeds=3)
    assert "--seeds 3" in study_presets.diversity_command(study)
    assert study_presets.diversity_command(replace(study, seeds=(0, 2))) == ""
