"""The table of backbones: sizes and layers without torch, and the errors for unknown names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.core import backbones, catalog
from mlae_lab.core.backbones import FEATURED, CatalogError, backbone, names, table
from mlae_lab.core.budget import budget
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan

VIT_B16 = "vit_base_patch16_224.orig_in21k"
SWIN = "swin_base_patch4_window7_224.ms_in22k"
MIXER = "mixer_b16_224.goog_in21k"
CONVNEXT = "convnext_base.fb_in22k"


def canvas(targets: tuple[str, ...]) -> MaskPlan:
    return MaskPlan(((True,) * 2,) * len(targets), ((0.5,) * 2,) * len(targets), targets)


def test_the_papers_budget_follows_from_the_table() -> None:
    entry = backbone(VIT_B16)
    assert entry.default_targets == dense().targets
    assert budget(dense(), entry.shapes(entry.default_targets)).parameters == 295_008
    assert entry.parameters == 85_798_656


def test_featured_backbones_come_first_in_the_menu() -> None:
    assert [entry.name for entry in FEATURED] == [
        "lab_vit_12x128", "lab_vit_12x128.random", VIT_B16, "vit_base_patch16_224.augreg_in21k",
        "vit_base_patch14_dinov2.lvd142m", "vit_small_patch16_224.augreg_in21k", SWIN, MIXER, CONVNEXT,
    ]  # fmt: skip
    assert catalog.BACKBONES is FEATURED
    assert catalog.backbone is backbone
    assert [entry.needs_file for entry in FEATURED] == [False, False, *[True] * 7]


def test_every_backbone_gives_a_valid_run() -> None:
    for name in names():
        entry = backbone(name)
        targets = entry.default_targets
        assert entry.name == name
        assert 1 <= len(targets) <= 64
        assert len(targets) == min(64, entry.layers)
        assert entry.module == entry.modules[0]
        assert all(d_in > 0 and d_out > 0 for d_in, d_out in entry.shapes(targets).values())
        for module in entry.modules:
            assert len(entry.shapes(entry.targets(module))) == len(entry.targets(module)) > 0
        config = RunConfig(task="digits", plan=canvas(targets), backbone=name)
        assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert 0 < entry.image_size <= 518
        assert 0 < entry.parameters <= 400_000_000


def test_targets_of_other_architectures() -> None:
    assert backbone(SWIN).shapes(("layers.0.blocks.0.attn.qkv", "layers.3.blocks.1.attn.qkv")) == {
        "layers.0.blocks.0.attn.qkv": (128, 384), "layers.3.blocks.1.attn.qkv": (1024, 3072),
    }  # fmt: skip
    assert len(backbone(SWIN).default_targets) == 24
    assert backbone(SWIN).tokens is None
    assert backbone(MIXER).shapes(("blocks.11.mlp_channels.fc1",)) == {"blocks.11.mlp_channels.fc1": (768, 3072)}
    assert backbone(CONVNEXT).default_targets[-1] == "stages.3.blocks.2.mlp.fc1"
    assert len(backbone(CONVNEXT).default_targets) == 36
    assert backbone(SWIN).shapes(("layers.1.downsample.reduction",)) == {"layers.1.downsample.reduction": (512, 256)}


def test_kinds_of_layers() -> None:
    assert backbone(VIT_B16).modules == ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert backbone(MIXER).modules[0] == "mlp_channels.fc1"
    assert "mlp_tokens.fc2" in backbone(MIXER).modules
    assert backbone(VIT_B16).targets("mlp.fc2")[11] == "blocks.11.mlp.fc2"
    with pytest.raises(CatalogError, match=f"{VIT_B16} has no layers 'attn.q': choose from attn.qkv, attn.proj"):
        backbone(VIT_B16).targets("attn.q")


def test_the_error_for_a_layer_of_another_architecture_lists_existing_layers() -> None:
    with pytest.raises(CatalogError) as error:
        RunConfig(task="digits", backbone=SWIN)
    assert "24 blocks, layers.0.blocks.0.attn.qkv to layers.3.blocks.1.attn.qkv (and attn.proj" in str(error.value)


def test_normalisation_follows_the_weights() -> None:
    assert backbone(VIT_B16).mean == (0.5, 0.5, 0.5) == backbone("lab_vit_12x128").std
    dino = backbone("vit_base_patch14_dinov2.lvd142m")
    assert (dino.mean, dino.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (dino.image_size, dino.tokens) == (518, 1370)
    plan = canvas(dino.default_targets)
    assert RunConfig("digits", plan, backbone=dino.name).badge.preprocessing == "518 px bicubic, ImageNet mean and std"
    assert RunConfig("digits").badge.preprocessing == "48 px bicubic, mean = std = 0.5"


def test_an_architecture_alone_means_its_default_tag() -> None:
    assert backbone("vit_base_patch16_224").name == "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    without_tag = RunConfig(task="digits", backbone="vit_base_patch16_224")
    with_tag = RunConfig(task="digits", backbone="vit_base_patch16_224.augreg2_in21k_ft_in1k")
    assert without_tag == with_tag
    assert without_tag.hash == with_tag.hash


def test_any_architecture_has_a_random_control() -> None:
    entry = backbone("vit_tiny_patch16_224.random")
    assert entry.name == "vit_tiny_patch16_224.random"
    assert not entry.trained
    assert not entry.needs_file
    assert entry.shapes(entry.default_targets) == backbone("vit_tiny_patch16_224").shapes(entry.default_targets)


def test_the_legacy_alias_of_timm_is_refused() -> None:
    with pytest.raises(CatalogError, match="legacy alias of augreg, not the paper's weights") as error:
        backbone("vit_base_patch16_224_in21k")
    assert VIT_B16 in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_base_patch16_224.orig_in22k", ["has no weights 'orig_in22k'", "orig_in21k", "random"]),
        ("vit_bas_patch16_224", ["try", "vit_base_patch16_224"]),
        ("swin_base_patch4_window7_224.", ["has no weights ''"]),
        ("lab_vit_12x128.trained", ["try lab_vit_12x128"]),
        ("", ["'' is not a backbone", "lab_vit_12x128", CONVNEXT]),
        ("DINOv2", ["lab_vit_12x128", "such as vit_base_patch14_dinov2.lvd142m"]),
        ("../../../etc/passwd", ["is not a backbone: choose from"]),
        (".random", ["is not a backbone"]),
        ("x" * 100_000, ["is not a backbone"]),
    ],
)
def test_the_error_for_an_unknown_name_lists_known_names(name: str, words: list[str]) -> None:
    with pytest.raises(CatalogError) as error:
        backbone(name)
    assert len(str(error.value)) < 1000
    for word in words:
        assert word in str(error.value)


def test_layers_that_a_network_does_not_call_are_no_targets() -> None:
    """EVA's fused qkv with a bias uses `qkv.weight` directly: an expert there would have no effect."""
    architectures = table()["architectures"]
    assert "vit_base_patch16_dinov3" in architectures
    assert "vit_base_patch16_dinov3_qkvb" not in architectures
    assert not any(name.startswith(("eva02", "beit_", "convnextv2")) for name in architectures)
    assert len(architectures) > 150


def test_the_table_is_small_and_shipped_with_the_package(root: Path) -> None:
    path = Path(backbones.__file__).with_name("backbones.json")
    assert path.stat().st_size < 150_000
    assert '"mlae_lab.core" = ["*.json"]' in (root / "pyproject.toml").read_text(encoding="utf-8")
