"""A study made of runs: arms from what differs, seeds from the runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.study_of_runs import study_of

BASE = RunConfig("digits", uniform(0.5), epochs=4)


def test_what_differs_makes_the_arms_and_seeds_are_those_of_the_runs() -> None:
    configs = [
        replace(BASE, plan=uniform(p), learning_rate=rate, seed=seed)
        for p, rate, seed in ((0.5, 1e-3, 3), (0.5, 1e-3, 1), (0.2, 1e-2, 1))
    ]
    study = study_of(configs)
    assert [arm.name for arm in study.arms] == [
        "uniform, stochastic (p = 0.5), learning rate = 0.001", "uniform, stochastic (p = 0.2), learning rate = 0.01",
    ]  # fmt: skip
    assert study.arms[0].values == (("mask", uniform(0.5).code), ("learning_rate", "0.001"))
    assert (study.seeds, study.title, study.runs) == ((1, 3), "Mask × learning rate on Digits", 4)
    assert {cell.config for cell in study.cells()} > set(configs)


def test_methods_with_settings_and_other_tasks() -> None:
    configs = [
        BASE, replace(BASE, method="lora", method_settings=("rank=4",)), replace(BASE, method="linear"),
        replace(BASE, task="fashion"),
    ]  # fmt: skip
    names = [arm.name for arm in study_of(configs, "Mine").arms]
    assert len(set(names)) == 4
    assert names[1] == "LoRA, rank = 4, Digits"
    assert study_of(configs, "Mine").title == "Mine"
    assert study_of(configs).title == "Method × method settings × task"


def test_a_mask_names_its_method_too() -> None:
    configs = [BASE, replace(BASE, plan=uniform(0.2)), replace(BASE, method="linear")]
    assert [arm.name for arm in study_of(configs).arms] == [
        "uniform, stochastic (p = 0.5)", "uniform, stochastic (p = 0.2)", "Linear probe",
    ]  # fmt: skip


def test_the_same_settings_are_one_arm_and_no_run_makes_no_study() -> None:
    study = study_of([BASE, BASE, replace(BASE, seed=5)])
    assert [(arm.name, arm.values) for arm in study.arms] == [("stochastic mask", ())]
    assert study.seeds == (0, 5)
    with pytest.raises(ConfigError, match="select at least one"):
        study_of([])
