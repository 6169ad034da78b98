"""Settings in a link."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.ui.settings_code import SETTINGS, read_settings, settings_code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "default"),
        ({"epochs": 20, "learning_rate": 0.001, "seed": 3}, "epochs:20,lr:0.001,seed:3"),
        ({"task": "digits"}, "default"),
        ({"max_seconds": 90.0, "weight_decay": 1e-7}, "seconds:90.0,weight-decay:1e-07"),
        ({"method": "linear", "backbone": "lab_vit_12x128.random", "protocol": "test", "device": "cpu"},
         "method:linear,backbone:lab_vit_12x128.random,protocol:test,device:cpu"),
    ],
)  # fmt: skip
def test_a_code_gives_the_settings_back(changes: dict, code: str) -> None:
    config = replace(FIRST_RUN, **changes)
    assert settings_code(config) == code
    assert replace(FIRST_RUN, task=config.task, **read_settings(code)) == config


def test_an_empty_text_is_the_proposed_run() -> None:
    assert replace(FIRST_RUN, **read_settings("")) == FIRST_RUN


def test_links_have_every_setting_except_paths_and_separate_parameters() -> None:
    assert {f.name for f in fields(RunConfig)} - set(SETTINGS) == {
        "task",
        "plan",
        "data",
        "data_label",
        "data_notes",
        "data_fingerprint",
        "weights",
    }


@pytest.mark.parametrize(
    "code",
    ["nonsense", "epochs", "epochs=20", "data:/etc", "weights:/etc/passwd", "data_label:VTAB-1k", "plan:x",
     "task:digits", ",", "epochs:20,", "epochs:20,epochs:30", "Epochs:20", " epochs:20", "__class__:x"],
)  # fmt: skip
def test_what_is_no_list_of_settings_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown|twice"):
        read_settings(code)


@pytest.mark.parametrize(
    "code",
    ["epochs:0", "epochs:", "epochs:ten", "epochs:1e3", "epochs:20.0", "epochs:٣", "epochs:1_0", "epochs:" + "9" * 5000,
     "lr:nan", "lr:inf", "lr:-1", "lr:0", "lr:1e999", "seconds:0", "seconds:None", "seed:-1", "batch-size:99999",
     "method:lorra", "device:tpu", "precision:", "warmup:1", "evaluations:true"],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_the_run(code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        replace(FIRST_RUN, **read_settings(code))
    assert len(str(raised.value)) < 300
