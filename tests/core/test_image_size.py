"""Image sizes: which ones a network takes, how they change a config and its hash, and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlae_lab.core import catalog, image_labels
from mlae_lab.core.budget import forward_cost
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.memory import evaluation_bytes
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.study import configured
from mlae_lab.ui.settings_code import read_settings, settings_code

LAB = RunConfig("digits")
DINO_S = "vit_small_patch14_dinov2.lvd142m"
SWIN = "swin_tiny_patch4_window7_224.ms_in1k"
MIXER = "mixer_b16_224.goog_in21k"


def test_the_own_size_has_one_spelling_and_old_hashes_stay() -> None:
    assert LAB.hash == "74008e6f0f5f"
    assert replace(LAB, image_size=48) == LAB
    assert "image_size" not in LAB.canonical()
    larger = replace(LAB, image_size=64)
    assert larger.hash != LAB.hash
    assert RunConfig.from_dict(json.loads(json.dumps(larger.to_dict()))) == larger
    assert differences(LAB, larger) == {"image_size": (0, 64)}
    assert "--image-size 64" in larger.command()
    assert read_settings(settings_code(larger))["image_size"] == 64
    earlier = {name: value for name, value in LAB.to_dict().items() if name != "image_size"}
    assert RunConfig.from_dict(earlier).hash == LAB.hash


def test_runs_of_two_sizes_have_two_badges() -> None:
    assert replace(LAB, image_size=64).badge.preprocessing == "64 px bicubic, mean = std = 0.5"
    assert replace(LAB, image_size=64).badge != LAB.badge


@pytest.mark.parametrize(
    ("backbone", "size", "sentence"),
    [
        (LAB.backbone, 70, "70 and lab_vit_12x128 takes multiples of 8 pixels from 32 to 1024: choose 64 or 72"),
        ("lab_vit_12x128", 16, "multiples of 8 pixels from 32 to 1024: choose 32"),
        (DINO_S, 64, f"image size is 64 and {DINO_S} takes multiples of 14 pixels from 42 to 1022: choose 56 or 70"),
        (DINO_S, 5000, "from 42 to 1022: choose 1022"),
        (SWIN, 100, f"{SWIN} takes multiples of 32 pixels from 32 to 1024: choose 96 or 128"),
        (MIXER, 64, "takes images of 224 pixels only, because its layers mix a fixed number of tokens: choose 224"),
    ],
)  # fmt: skip
def test_an_impossible_size_names_the_nearest_that_work(backbone: str, size: int, sentence: str) -> None:
    entry = catalog.backbone(backbone)
    with pytest.raises(ConfigError) as error:
        RunConfig("digits", method="linear", backbone=backbone, image_size=size)
    assert sentence in str(error.value)
    for near in entry.nearest_sizes(size):
        assert entry.at(near).image_size == near


def test_tokens_and_parameters_follow_the_size() -> None:
    dino = catalog.backbone(DINO_S)
    small = dino.at(70)
    assert (small.image_size, small.tokens) == (70, 26)
    assert dino.parameters - small.parameters == 384 * (37**2 - 5**2)
    assert dino.at(0) is dino is dino.at(518)
    registers = catalog.backbone("vit_base_patch14_reg4_dinov2.lvd142m")
    assert registers.at(70).tokens == 30
    assert catalog.backbone(SWIN).at(64).tokens is None
    config = RunConfig("digits", method="full", backbone=DINO_S, image_size=70)
    assert config.tuning.parameters(config.network) == small.parameters


def test_cost_and_memory_grow_with_the_size() -> None:
    for name in ("lab_vit_12x128", SWIN, "convnext_tiny.fb_in1k"):
        own = catalog.backbone(name)
        double = own.at(2 * own.image_size)
        assert 3.9 < forward_cost(double) / forward_cost(own) < 5
        assert evaluation_bytes(double, True) > 3 * evaluation_bytes(own, True)
    vit = catalog.backbone("vit_base_patch16_224.orig_in21k")
    assert forward_cost(vit) == 197 * 12 * (768 * 12 * 768) + 12 * 2 * 197**2 * 768


def test_a_study_may_vary_backbone_and_size_together() -> None:
    base = replace(LAB, image_size=72)
    config, used = configured(base, {"image_size": "98", "backbone": DINO_S})
    assert (config.backbone, config.image_size) == (DINO_S, 98)
    assert set(used) == {"image_size", "backbone"}
    assert configured(base, {"image_size": "48"})[0] == LAB


def test_the_numbers_in_the_label_of_own_images() -> None:
    assert image_labels.counts_of("own images, 800/200/2,000") == (800, 200, 2000)
    assert image_labels.counts_of("own images, 8/2/0 (10 of 11 readable)") == (8, 2, 0)
    assert image_labels.counts_of("mixed images: own images, 8/2/1, then own images, 9/3/1") == (9, 3, 1)
    assert image_labels.counts_of("") is None
    assert image_labels.counts_of("VTAB-1k") is None
