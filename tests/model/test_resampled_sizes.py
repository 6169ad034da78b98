"""Networks at image sizes other than their own: nothing changes at their own, positions and windows are resampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

from mlae_lab.core import catalog
from mlae_lab.core.backbones import table
from mlae_lab.model.backbones import build, build_with_notes, fingerprint, set_image_size
from mlae_lab.model.weight_files import backbone_state, load_weights


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def features(model: Any, size: int) -> torch.Tensor:
    return model.forward_features(images(size))


def test_at_its_own_size_a_network_stays_bit_for_bit() -> None:
    model, twin = build("lab_vit_12x128", 10, 0), build("lab_vit_12x128", 10, 0)
    assert set_image_size(model, 48) == ()
    assert torch.equal(features(model, 48), features(twin, 48))


@pytest.mark.parametrize(("size", "grid"), [(32, 4), (64, 8), (96, 12)])
def test_the_bundled_network_at_other_sizes(size: int, grid: int) -> None:
    model: Any
    model, entry = build("lab_vit_12x128", 10, 0), catalog.backbone("lab_vit_12x128").at(size)
    before = model.pos_embed.clone()
    notes = set_image_size(model, size)
    assert notes == (f"position embedding resampled from 6 x 6 to {grid} x {grid} patches",)
    assert torch.equal(model.pos_embed, resample_abs_pos_embed(before, new_size=[grid, grid], num_prefix_tokens=1))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert features(model, size).shape == (2, entry.tokens, 128)
    total = sum(p.numel() for p in backbone_state(model).values())
    assert total == entry.parameters


WINDOWS = "relative positions resampled from windows of 7 x 7 to 2 x 2 patches"


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's interpolation, as the lab leaves them out
@pytest.mark.parametrize(
    ("name", "size", "note"),
    [
        ("test_vit.r160_in1k", 64, "position embedding resampled from 10 x 10 to 4 x 4 patches"),
        ("deit_tiny_patch16_224.fb_in1k", 96, "position embedding resampled from 14 x 14 to 6 x 6 patches"),
        ("swin_tiny_patch4_window7_224.ms_in1k", 64, WINDOWS),
        ("test_convnext.r160_in1k", 64, ""),
    ],
)  # fmt: skip
def test_networks_of_timm_are_as_timm_makes_them_at_another_size(
    tmp_path: Path, name: str, size: int, note: str
) -> None:
    """Against timm's own: `set_input_size` of its network with the same file; ViTs also built at that size by timm."""
    source: Any = timm.create_model(name, pretrained=False, num_classes=0)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(parameter.numel()))
    file = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, file)
    model, notes = build_with_notes(name, 3, 0, file)
    own = fingerprint(model)
    assert notes == ()
    tables = {key: value.clone() for key, value in model.state_dict().items() if key.endswith("bias_table")}
    assert set_image_size(model, size) == ((note,) if note else ())
    for key, old in tables.items():  # the offset (0, 0) in the middle stays
        new = model.get_parameter(key)
        torch.testing.assert_close(new[len(new) // 2], old[len(old) // 2])
    if hasattr(source, "set_input_size"):
        source.set_input_size(img_size=(size, size))
        assert fingerprint(model) != own
    assert torch.equal(features(model, size), features(source.eval(), size))
    entry = catalog.backbone(name).at(size)
    if entry.tokens:
        assert features(model, size).shape[1] == entry.tokens
        built = timm.create_model(name, pretrained=False, num_classes=3, img_size=size)
        load_weights(built, file)
        assert torch.equal(features(built.eval(), size), features(model, size))


def test_a_file_of_another_grid_still_loads(tmp_path: Path) -> None:
    large = timm.create_model("test_vit", num_classes=0, img_size=96)
    save_file({key: value.contiguous() for key, value in large.state_dict().items()}, tmp_path / "96.safetensors")
    model, notes = build_with_notes("test_vit.r160_in1k", 3, 0, tmp_path / "96.safetensors")
    assert [*notes, *set_image_size(model, 64)] == [
        "position embedding resampled from 6 x 6 to 10 x 10 patches",
        "position embedding resampled from 10 x 10 to 4 x 4 patches",
    ]


def test_the_table_says_what_the_networks_take() -> None:
    """The whole table was made by running each network at two sizes; here one of each kind, and those that take one."""
    fixed = [name for name, row in table()["architectures"].items() if not row[7]]
    assert all(name.startswith(("mixer_", "gmlp_", "gmixer_", "resmlp_")) for name in fixed)
    assert len(fixed) >= 10
    with pytest.raises(AssertionError):
        features(timm.create_model("mixer_s32_224", pretrained=False).eval(), 256)
    assert isinstance(build("test_vit.random", 3, 0), VisionTransformer)
