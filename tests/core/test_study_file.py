"""Studies as YAML that a person writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core.choice_study import choice_study
from mlae_lab.core.config import ConfigError
from mlae_lab.core.study_file import as_yaml, base_config, read_study, with_reference
from mlae_lab.locations import PROGRAM

FACTORS = """
title: Which p?
task: digits
epochs: 4
seeds: 2
margin: 1
factors: {method: [mlae, lora], drop_rate: [0, 0.5], rank: 4}
reference: LoRA, rank = 4
"""
ARMS = """
task: digits
seeds: [3, 5]
rank: 4
arms:
  - {mask: dense}
  - {name: control, method: lora, epochs: 9}
"""


def test_factors() -> None:
    study, notes = read_study(FACTORS.replace("LoRA, rank = 4", "LoRA"))
    assert [arm.name for arm in study.arms] == [
        "Masked experts (MLAE), p = 0",
        "Masked experts (MLAE), p = 0.5",
        "LoRA",
    ]
    assert (study.title, study.seeds, study.margin, study.reference) == ("Which p?", (0, 1), 1.0, "LoRA")
    assert {arm.config.epochs for arm in study.arms} == {4}
    assert study.arms[2].config.method_settings == ("rank=4",)
    assert len(notes) == 1


def test_arms_in_a_list_take_shared_settings_that_have_a_meaning_for_them() -> None:
    study, _ = read_study(ARMS)
    assert [(arm.name, arm.config.method, arm.config.method_settings) for arm in study.arms] == [
        ("Dense", "mlae", ()), ("control", "lora", ("rank=4",)),
    ]  # fmt: skip
    assert study.seeds == (3, 5)
    assert study.title == "2 arms on Digits"


TASKS = "factors: {task: [digits, fashion], epochs: [1, 2]}\ntask: digits"


@pytest.mark.parametrize("text", [FACTORS.replace("LoRA, rank = 4", "LoRA"), ARMS, TASKS])
def test_what_is_written_is_read_back(text: str) -> None:
    study, _ = read_study(text)
    again, _ = read_study(as_yaml(study))
    assert again.hash == study.hash
    assert (again.title, again.reference, again.margin) == (study.title, study.reference, study.margin)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the file is not a mapping of settings"),
        ("- 1", "the file is not a mapping of settings"),
        ("a: &x [1]\nb: *x", "it has an alias"),
        ("task: digits\nepochs: 2\nepochs: 3", "'epochs' is given twice"),
        ("a: [", "the file is not YAML"),
        ("!!python/object/apply:os.system ['true']", "the file is not YAML"),
        ("epochs: 3", "the study names no task"),
        ("task: digits\nseeds: many", "seeds is 'many'"),
        ("task: digits\nseeds: 0", "the study has 0 seeds"),
        ("task: digits\nseeds: 1000000000", "the study has 1000000000 seeds: it must have 1 to 100"),
        ("task: digits\nseed: x", "seed is 'x'"),
        ("task: digits\nseed: 010", "seed is '010'"),
        ("task: digits\nseeds: 1:30", "seeds is '1:30': it must be a number of seeds"),
        ("task: digits\nfactors: {epochs: [2, 1:30]}", "epochs is '1:30': it must be a whole number"),
        ("task: digits\nmargin: wide", "margin is 'wide'"),
        ("task: digits\nmargin: .nan", "margin is nan"),
        (f"task: digits\nmargin: 1{'0' * 400}", "a number has more than 18 digits"),
        (f"task: digits\nepochs: 0x{'f' * 5000}", "a number has more than 18 digits"),
        ("task: digits\narms: []", "arms is not a list of settings"),
        ("task: digits\ntitle: [[1]]", r"title is \[\[1\]\]: it must be one number or text"),
        ("task: digits\ntitle: !!binary aGVsbG8=", "a value is a bytes"),
        (f"task: digits\nnotes: {'x' * 10_001}", "a text has 10,001 characters"),
        ("#" * 1_000_001, "the file has 1,000,001 characters"),
        ("task: digits\ncolour: red", "'colour' is no factor"),
        ("task: digits\nrank: 4", "rank has no meaning for any arm"),
        ("task: digits\nfactors: {epochs: [1]}\narms: []", "both factors and arms"),
        ("task: digits\nfactors: 3", "factors is not a list of names"),
        ("task: digits\narms: 3", "arms is not a list of settings"),
        ("task: digits\narms: [{rank: 4}]", "rank of arm 1 has no meaning for the method mlae"),
        ("task: digits\nepochs: [1, 2]", r"epochs is \[1, 2\]: it must be one number or text"),
    ],
)
def test_invalid_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_study(text)


def test_names_and_texts_hold_no_control_characters() -> None:
    text = 'task: digits\nnotes: "a\\ud800\\nb\\e[2J"\narms: [{name: "a\\ud800b\\e[31m\\nc", epochs: 2}]'
    study, _ = read_study(text)
    assert (study.arms[0].name, study.notes) == ("ab[31m c", "a\nb[2J")


def test_an_error_names_the_arm() -> None:
    factors = "factors: {mask: [dense, hourglass.mixed], consistency: [0, 0.5]}"
    with pytest.raises(ConfigError, match=r"\(in the arm mask = dense, consistency = 0.5\)"):
        read_study(f"task: digits\n{factors}")


def test_a_reference_may_be_named_by_the_value_of_a_factor() -> None:
    study, _ = read_study("task: digits\nfactors: {drop_rate: [0, 0.5]}")
    assert with_reference(study, "drop_rate=0.5").reference == "p = 0.5"
    assert with_reference(study, "p = 0.5").reference == "p = 0.5"
    with pytest.raises(ConfigError, match="the reference is 'drop_rate=1'"):
        with_reference(study, "drop_rate=1")


def test_a_choice_is_written_as_its_last_stage_which_a_comment_says() -> None:
    study = choice_study(replace(base_config("digits"), epochs=8), 12)[0]
    assert len({arm.config.epochs for arm in study.arms}) == 2
    text = as_yaml(study)
    assert text.startswith(f"# The last stage of a choice, without its rule: `{PROGRAM} choose` starts another choice.")
    read, _ = read_study(text)
    assert {arm.config.epochs for arm in read.arms} == {8}
    assert read.reference == study.reference


def test_arms_with_two_protocols_are_refused() -> None:
    text = "task: digits\narms: [{protocol: val}, {protocol: test, epochs: 3}]"
    with pytest.raises(ConfigError, match="protocol has the values test, val"):
        read_study(text)
