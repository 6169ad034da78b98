"""RunConfig: the paper's values as defaults, an error for each broken rule, a stable hash."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.config import ConfigError, RunConfig, differences
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.patterns import allocation, dense, uniform
from mlae_lab.core.plan import MaskPlan, PlanError, block_targets
from mlae_lab.core.settings import settings_of
from mlae_lab.errors import LabError

CONFIGS = [
    RunConfig("digits"),
    FIRST_RUN,
    RunConfig("dsprites_loc", uniform(0.7), protocol="test", seed=7, max_seconds=60.0, evaluations=10),
    RunConfig("fashion", allocation((0, 3, 14)), backbone="lab_vit_12x128.random", device="cpu", precision="bfloat16"),
    RunConfig("digits", method="linear", epochs=1, batch_size=4096, learning_rate=1e-5, weight_decay=0.0, warmup=0.5),
]


def test_defaults_are_the_papers() -> None:
    config = RunConfig("cifar")
    assert (config.epochs, config.learning_rate, config.weight_decay, config.batch_size) == (500, 5e-4, 1e-4, 64)
    assert config.warmup == 0
    assert config.plan == dense()


@pytest.mark.parametrize("config", CONFIGS)
def test_json_gives_the_same_config_back(config: RunConfig) -> None:
    back = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert back == config
    assert back.hash == config.hash


def test_hash_is_the_same_in_a_fresh_interpreter(root: Path) -> None:
    script = (
        "import json, sys\nfrom mlae_lab.core.config import RunConfig\n"
        "for line in sys.stdin: print(RunConfig.from_dict(json.loads(line)).hash)\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(json.dumps(config.to_dict()) for config in CONFIGS),
        env={**os.environ, "PYTHONHASHSEED": "99", "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert completed.stdout.split() == [config.hash for config in CONFIGS]


def test_hash_depends_on_every_setting() -> None:
    base = RunConfig("digits")
    changes: list[dict] = [
        {"task": "fashion"}, {"plan": uniform(0.5)}, {"method": "linear"}, {"backbone": "lab_vit_12x128.random"},
        {"protocol": "test"}, {"epochs": 499}, {"max_seconds": 5.0}, {"learning_rate": 5.1e-4}, {"weight_decay": 0.0},
        {"batch_size": 65}, {"warmup": 0.1}, {"evaluations": 1}, {"seed": 1}, {"device": "cpu"},
        {"precision": "float32"}, {"data_label": "VTAB-1k"}, {"weights": "w.npz"}, {"preprocessing": "vtab"},
        {"normalisation": "imagenet"}, {"mask_per": "token"}, {"input_dropout": 0.1},
        {"optimizer": "sgd"}, {"drop_path": 0.1}, {"plan": uniform(0.5), "consistency": 0.1},
        {"learned_drop_rates": "layer"}, {"drop_rate_entropy": 2.0}, {"folds": 5}, {"image_size": 64},
        {"augmentation": "flip"}, {"mixup": 0.2}, {"label_smoothing": 0.1}, {"class_balance": "loss"},
        {"accumulation": 2}, {"weight_average": 0.99}, {"early_stopping": 3}, {"keep_best": True},
    ]  # fmt: skip
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    assert {name for change in changes for name in change} == fields - {
        "data",
        "data_notes",
        "data_fingerprint",
        "method_settings",
    }
    for change in ({"data": "/images"}, {"data_notes": ("few images",)}, {"data_fingerprint": "0123456789ab"}):
        assert dataclasses.replace(base, **change).hash == base.hash, "what no hash holds"
        assert set(differences(base, dataclasses.replace(base, **change))) <= {"data"}
    hashes = {base.hash} | {dataclasses.replace(base, **change).hash for change in changes}
    assert len(hashes) == 1 + len(changes)


@pytest.mark.parametrize(
    ("as_int", "as_float"),
    [
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"weight_decay": 0}, {"weight_decay": 0.0}),
        ({"warmup": 0}, {"warmup": 0.0}),
        ({"max_seconds": 60}, {"max_seconds": 60.0}),
    ],
)
def test_equal_configs_have_equal_hashes(as_int: dict, as_float: dict) -> None:
    from_int, from_float = RunConfig("digits", **as_int), RunConfig("digits", **as_float)
    assert from_int == from_float
    assert from_int.hash == from_float.hash
    assert from_int.to_dict() == from_float.to_dict()
    assert json.dumps(from_int.to_dict()) == json.dumps(from_float.to_dict())


def test_an_alias_becomes_the_name() -> None:
    assert RunConfig("CIFAR100").task == "cifar"
    assert RunConfig("cifar100") == RunConfig("cifar")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": 3}, ["task is 3", "must be a name"]),
        ({"backbone": None}, ["backbone is None", "must be a name"]),
        ({"plan": "dense"}, ["plan is 'dense'", "MaskPlan"]),
        ({"method": "lorra"}, ["method is 'lorra'", "lora, glora, dora"]),
        ({"method": ["mlae"]}, ["method is ['mlae']"]),
        ({"protocol": "train"}, ["protocol is 'train'", "val, test"]),
        ({"device": "gpu"}, ["device is 'gpu'", "auto, cpu, cuda"]),
        ({"precision": "fp16"}, ["precision is 'fp16'", "auto, float32, bfloat16"]),
        ({"epochs": -1}, ["epochs is -1", "whole number from 1 to 10000"]),
        ({"epochs": 0}, ["epochs is 0"]),
        ({"epochs": 10_001}, ["epochs is 10001"]),
        ({"epochs": 1.0}, ["epochs is 1.0"]),
        ({"epochs": True}, ["epochs is True"]),
        ({"batch_size": 0}, ["batch size is 0", "from 1 to 4096"]),
        ({"batch_size": 4097}, ["batch size is 4097"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"seed": 2**31}, ["seed is 2147483648"]),
        ({"evaluations": -1}, ["evaluations is -1"]),
        ({"mask_per": "image"}, ["mask-per is 'image'", "step, token"]),
        ({"input_dropout": 1}, ["input dropout is 1", "at most 0.9"]),
        ({"input_dropout": -0.1}, ["input dropout is -0.1"]),
        ({"learning_rate": 0}, ["learning rate is 0", "above 0"]),
        ({"learning_rate": 101}, ["learning rate is 101", "at most 100"]),
        ({"optimizer": "adam"}, ["optimizer is 'adam'", "adamw, sgd"]),
        ({"drop_path": 0.95}, ["drop path is 0.95", "at most 0.9"]),
        ({"consistency": 0.5}, ["consistency is 0.5 and the mask drops no expert", "set consistency to 0"]),
        ({"method": "lora", "method_settings": ("consistency=1",)}, ["consistency is 1 and dropout is 0"]),
        ({"learning_rate": float("nan")}, ["learning rate is nan"]),
        ({"learning_rate": "fast"}, ["learning rate is 'fast'", "a number"]),
        ({"weight_decay": -0.1}, ["weight decay is -0.1"]),
        ({"weight_decay": float("inf")}, ["weight decay is inf"]),
        ({"warmup": 1.0}, ["warmup is 1.0", "at most 0.9"]),
        ({"max_seconds": 0}, ["time limit is 0", "above 0"]),
        ({"max_seconds": 1e9}, ["time limit is 1000000000.0", "above 0 and at most 2,592,000"]),
        ({"max_seconds": True}, ["time limit is True"]),
        ({"data_notes": "few images"}, ["notes on the images is 'few images'", "a list of texts"]),
    ],
)
def test_an_error_names_the_value_and_the_rule(change: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig(**{"task": "digits", **change})
    for word in words:
        assert word in str(error.value)


def test_unknown_names_are_catalog_errors() -> None:
    with pytest.raises(CatalogError, match="'mnist' is not a task"):
        RunConfig("mnist")
    with pytest.raises(CatalogError, match="'vit' is not a backbone"):
        RunConfig("digits", backbone="vit")


def test_a_plan_with_more_rows_than_the_backbone_has_blocks() -> None:
    plan = dense(layers=24)
    with pytest.raises(CatalogError, match=r"blocks\.12\.attn\.qkv is not a linear layer of lab_vit_12x128"):
        RunConfig("digits", plan)
    assert RunConfig("digits", plan, method="linear").plan == plan  # a linear probe ignores it


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"task": "digits"},
        {"plan": dense().to_dict()},
        {"task": "digits", "plan": dense().to_dict(), "momentum": 0.5},
        [],
        None,
    ],
)
def test_a_damaged_dict_is_a_config_error(data: object) -> None:
    with pytest.raises(ConfigError):
        RunConfig.from_dict(data)  # type: ignore[arg-type]


def test_a_damaged_plan_is_a_plan_error() -> None:
    with pytest.raises(PlanError, match="the plan lacks"):
        RunConfig.from_dict({"task": "digits", "plan": {}})


@pytest.mark.parametrize("depth", [50, 980, 993, 5000])
@pytest.mark.parametrize("name", ["plan", "epochs", "data_notes", "task", "whole"])
def test_a_deeply_nested_setting_is_one_sentence(name: str, depth: int) -> None:
    value: object = []
    for _ in range(depth):
        value = [value]
    data = value if name == "whole" else {"task": "digits", "plan": uniform(0.5).to_dict(), name: value}
    with pytest.raises(LabError):
        RunConfig.from_dict(data)  # type: ignore[arg-type]


# ---------------------------------------------------------------- evaluations


def test_zero_evaluations_means_every_epoch() -> None:
    assert RunConfig("digits", epochs=3).evaluated_epochs == (1, 2, 3)
    assert RunConfig("digits", epochs=3, evaluations=5).evaluated_epochs == (1, 2, 3)


@pytest.mark.parametrize("epochs", [1, 2, 7, 16, 100, 500, 9999])
@pytest.mark.parametrize("evaluations", [1, 2, 3, 10, 16])
def test_evaluations_are_spread_evenly_and_end_with_the_last_epoch(epochs: int, evaluations: int) -> None:
    evaluated = RunConfig("digits", epochs=epochs, evaluations=evaluations).evaluated_epochs
    assert len(evaluated) == min(epochs, evaluations)
    assert evaluated[-1] == epochs
    gaps = [b - a for a, b in zip((0, *evaluated), evaluated, strict=False)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


# ---------------------------------------------------------------- comparing runs


def test_differences_name_the_settings_and_show_plans_as_codes() -> None:
    a, b = RunConfig("digits", dense()), RunConfig("digits", uniform(0.5), seed=3)
    assert differences(a, b) == {"plan": (dense().code, uniform(0.5).code), "seed": (0, 3)}
    assert differences(a, a) == {}


def test_a_badge_holds_what_must_be_equal() -> None:
    base = RunConfig("digits")
    assert base.badge == dataclasses.replace(base, seed=5, plan=uniform(0.5), epochs=3).badge
    for change in ({"task": "fashion"}, {"backbone": "lab_vit_12x128.random"}, {"protocol": "test"}):
        assert dataclasses.replace(base, **change).badge != base.badge
    assert base.badge.data == "bundled"
    assert RunConfig("cifar").badge.data == "unchecked images"
    assert RunConfig("cifar", data_label="VTAB-1k").badge.data == "VTAB-1k"


def test_the_badge_of_an_fgvc_task_does_not_say_vtab() -> None:
    badge = RunConfig("cub").badge
    assert "VTAB" not in badge.data
    assert "800" not in badge.protocol  # CUB trains on 5,394 images


def test_the_first_run_uses_bundled_data_and_weights() -> None:
    assert FIRST_RUN.badge.data == "bundled"
    assert FIRST_RUN.plan.targets == block_targets(12)
    assert isinstance(FIRST_RUN.plan, MaskPlan)


@pytest.mark.parametrize(
    ("config", "hash"),
    [
        (RunConfig("digits"), "74008e6f0f5f"),
        (FIRST_RUN, "005f7f662d7b"),
        (RunConfig("digits", method="linear", epochs=1), "0776f4f6ce3d"),
        (CONFIGS[2], "31d87cb1cbfb"),
        (CONFIGS[3], "9af0ae37e34b"),
        (CONFIGS[4], "33d3f48741cf"),
    ],
)
def test_later_settings_leave_earlier_hashes_unchanged(config: RunConfig, hash: str) -> None:
    """The hashes are those of version 0.5.1."""
    assert config.hash == hash
    later = {setting.name for setting in settings_of(RunConfig) if setting.hashed == "unless default"}
    assert later == {
        "mask_per", "input_dropout", "method_settings", "optimizer", "drop_path", "consistency", "learned_drop_rates",
        "drop_rate_entropy", "folds", "image_size", "augmentation", "mixup", "label_smoothing", "class_balance",
        "accumulation", "weight_average", "early_stopping", "keep_best",
    }  # fmt: skip
    earlier = {name: value for name, value in config.to_dict().items() if name not in later}
    assert RunConfig.from_dict(earlier) == config


def test_a_later_setting_is_hashed_where_it_differs() -> None:
    """The hash is that of version 0.5.1."""
    assert RunConfig("digits", mask_per="token", input_dropout=0.25).hash == "f271ffbbfeb3"


def test_a_cross_validation_is_another_protocol() -> None:
    config = RunConfig("digits", folds=5)
    assert config.command().endswith("--folds 5")
    assert config.badge.protocol == "4/5 of train1000 → 1/5, cross-validation"
    with pytest.raises(ConfigError, match="folds is 1 and the protocol val: it must be 0 or at least 2"):
        RunConfig("digits", folds=1)
    with pytest.raises(ConfigError, match="folds is 5 and the protocol test: cross-validation needs"):
        RunConfig("digits", folds=5, protocol="test")


def test_consistency_needs_something_that_is_sampled() -> None:
    for sampled in (
        {"plan": uniform(0.5)}, {"input_dropout": 0.1}, {"plan": uniform(0.5), "mask_per": "token"},
        {"learned_drop_rates": "layer"},
    ):  # fmt: skip
        assert RunConfig("digits", consistency=0.5, **sampled).tuning.consistency_weight == 0.5
    config = RunConfig("digits", uniform(0.5), consistency=0.5)
    assert config.command().endswith("--consistency 0.5")
    other = dataclasses.replace(config, method="lora", method_settings=("dropout=0.1", "consistency=0.2"))
    assert other.tuning.consistency_weight == 0.2, "a setting of masked experts does not touch other methods"
    assert "--consistency" not in other.command()


def test_learned_drop_rates_are_a_setting_of_masked_experts() -> None:
    plan = allocation((0, *range(1, 12)))  # a layer without experts has no drop rate
    fixed = RunConfig("digits", plan)
    config = dataclasses.replace(fixed, learned_drop_rates="expert", drop_rate_entropy=0.5)
    assert config.command().endswith("--learn-drop-rates expert --drop-rate-entropy 0.5")
    assert differences(fixed, config) == {"learned_drop_rates": ("off", "expert"), "drop_rate_entropy": (1.0, 0.5)}
    assert RunConfig.from_dict(config.to_dict()) == config
    lora = dataclasses.replace(config, method="lora")
    assert lora.hash == dataclasses.replace(fixed, method="lora").hash
    assert "drop-rates" not in lora.command()
    backbone = catalog.backbone(config.backbone)
    of_mask = budget(plan, backbone.shapes(plan.targets)).parameters
    for per, count in (("off", 0), ("layer", 11), ("expert", plan.experts)):
        counted = dataclasses.replace(config, learned_drop_rates=per).tuning.parameters(backbone)
        assert counted == of_mask + count


def test_a_linear_probe_has_no_dropout_in_its_hash() -> None:
    probe = RunConfig("digits", method="linear")
    assert dataclasses.replace(probe, mask_per="token", input_dropout=0.5).hash == probe.hash


def test_the_command_quotes_folder_names() -> None:
    words = shlex.split(RunConfig("own:my cats (a)").command())
    assert words[words.index("--task") + 1] == "own:my cats (a)"


def test_the_command_has_the_settings_of_sampling() -> None:
    config = RunConfig("digits", mask_per="token", input_dropout=0.25)
    assert config.command().endswith("--mask-per token --input-dropout 0.25")
    assert "--mask-per" not in RunConfig("digits").command()


def test_settings_of_a_method_are_checked_ordered_hashed_and_carried() -> None:
    config = RunConfig("digits", method="lora", method_settings=("rank=4", "dropout=0.10", "targets=qkv"))
    assert config.method_settings == ("rank=4", "dropout=0.1"), "in the order of the fields, without defaults"
    assert RunConfig("digits", method="lora", method_settings=("dropout=0.1", "rank=4")).hash == config.hash
    assert (
        RunConfig("digits", method="lora", method_settings=("rank=8",)).hash == RunConfig("digits", method="lora").hash
    )
    assert RunConfig("digits", method="lora").hash != config.hash
    assert RunConfig.from_dict(config.to_dict()) == config
    assert "--method lora" in config.command()
    assert "--set rank=4 dropout=0.1" in config.command()
    for texts, rule in (
        (("rang=4",), "'rang=4' is not a setting of lora in the form NAME=VALUE: it has rank, alpha"),
        (("rank",), "'rank' is not a setting of lora"),
        (("rank=0",), "rank is 0: it must be a whole number from 1 to 256"),
        (("rank=2", "rank=3"), "the setting rank of lora is given twice: give it once"),
    ):
        with pytest.raises(ConfigError, match=re.escape(rule)):
            RunConfig("digits", method="lora", method_settings=texts)
    with pytest.raises(ConfigError, match="method mlae takes no --set"):
        RunConfig("digits", method_settings=("rank=2",))


def test_the_command_leaves_out_settings_of_other_methods() -> None:
    config = RunConfig("digits", method="lora", input_dropout=0.1)
    assert "--input-dropout" not in config.command()
    assert "--input-dropout 0.1" in dataclasses.replace(config, method="mlae").command()
