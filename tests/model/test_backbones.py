"""Backbones: the networks that the catalog describes, and weights that are missing, damaged or foreign."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.plan import block_targets
from mlae_lab.model import backbones
from mlae_lab.model.backbones import BackboneError, build, bundled_network
from mlae_lab.model.stem import ConvStem

RANDOM = "lab_vit_12x128.random"


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_the_network_is_the_one_in_the_catalog() -> None:
    entry, model = catalog.backbone(RANDOM), bundled_network(10)
    assert (
        sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.head.parameters()) == entry.parameters
    )
    assert len(model.blocks) == entry.layers
    assert model.patch_embed.img_size == (entry.picture, entry.picture)
    assert model.forward_features(torch.zeros(1, 3, entry.picture, entry.picture)).shape == (
        1,
        entry.tokens,
        entry.width,
    )
    for module in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        for name, (d_in, d_out) in entry.shapes(block_targets(entry.layers, module)).items():
            layer = model.get_submodule(name)
            assert (layer.in_features, layer.out_features) == (d_in, d_out)


def test_vit_b16_is_the_one_in_the_catalog() -> None:
    entry = catalog.backbone("vit_base_patch16_224.orig_in21k")
    with torch.device("meta"):
        model = timm.create_model(entry.name, pretrained=False, num_classes=0)
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert (len(model.blocks), model.embed_dim, model.blocks[0].attn.num_heads) == (
        entry.layers,
        entry.width,
        entry.heads,
    )
    for name, (d_in, d_out) in entry.shapes(block_targets(12)).items():
        layer = model.get_submodule(name)
        assert (layer.in_features, layer.out_features) == (d_in, d_out)


def test_a_built_backbone_is_frozen_in_eval_mode_and_starts_even() -> None:
    model = build(RANDOM, 16, seed=0)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    logits = model(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 16) and bool((logits == 0).all())


def test_random_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = build(RANDOM, 10, seed=4)
    assert torch.equal(torch.rand(1), expected)  # torch's own generator is left as it was
    torch.manual_seed(2)
    assert same(one, build(RANDOM, 10, seed=4))
    assert not same(one, build(RANDOM, 10, seed=5))


def test_an_unknown_backbone() -> None:
    with pytest.raises(CatalogError, match="'resnet' is not a backbone"):
        build("resnet", 10, seed=0)


def test_a_backbone_without_weights_here_says_so() -> None:
    with pytest.raises(
        BackboneError, match="the weights of vit_base_patch16_224.orig_in21k are not in this repository"
    ):
        build("vit_base_patch16_224.orig_in21k", 10, seed=0)


# ---------------------------------------------------------------- weights from a file


def saved(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, path)
    return path


def test_weights_are_read_from_a_file_in_any_precision(tmp_path: Path) -> None:
    source = bundled_network(3)
    state = {name: value.half() for name, value in source.state_dict().items() if not name.startswith("head.")}
    model = build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "w.safetensors", state))
    for name, value in state.items():
        assert torch.equal(model.state_dict()[name], value.float()), name
    assert bool((model.head.weight == 0).all()) and model.head.out_features == 10


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="gone.safetensors does not exist"):
        build("lab_vit_12x128", 10, seed=0, weights=tmp_path / "gone.safetensors")


def test_missing_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "BUNDLED_WEIGHTS", tmp_path / "lab_vit_12x128.safetensors")
    with pytest.raises(BackboneError, match="lab_vit_12x128.safetensors does not exist: the bundled weights belong in"):
        build("lab_vit_12x128", 10, seed=0)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 100])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(BackboneError, match="is not a readable safetensors file"):
        build("lab_vit_12x128", 10, seed=0, weights=tmp_path / "w")


def test_a_folder_in_place_of_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError):
        build("lab_vit_12x128", 10, seed=0, weights=tmp_path)


def test_weights_of_another_network_name_the_first_odd_tensor(tmp_path: Path) -> None:
    state = {name: value for name, value in bundled_network(3).state_dict().items() if not name.startswith("head.")}
    less = {name: value for name, value in state.items() if name != "blocks.3.attn.qkv.bias"}
    with pytest.raises(BackboneError, match="blocks.3.attn.qkv.bias is missing"):
        build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "less", less))
    with pytest.raises(BackboneError, match="extra is not part of it"):
        build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "more", {**state, "extra": torch.zeros(1)}))


def test_weights_of_another_width_are_refused_with_a_sentence(tmp_path: Path) -> None:
    state = {name: value for name, value in bundled_network(3).state_dict().items() if not name.startswith("head.")}
    state["blocks.3.attn.qkv.bias"] = torch.zeros(5)
    with pytest.raises(BackboneError, match="blocks.3.attn.qkv.bias"):
        build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "w", state))


@pytest.mark.skipif(not backbones.BUNDLED_WEIGHTS.exists(), reason="the bundled weights are not in this checkout yet")
def test_the_bundled_weights_fit_and_are_not_random() -> None:
    model = build("lab_vit_12x128", 10, seed=0)
    assert not same(model.blocks, build(RANDOM, 10, seed=0).blocks)
    assert same(model, build("lab_vit_12x128", 10, seed=1))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


# ---------------------------------------------------------------- the stem


def test_the_stem_makes_one_token_for_each_eight_pixels() -> None:
    stem = ConvStem(img_size=48, embed_dim=32)
    assert stem(torch.zeros(2, 3, 48, 48)).shape == (2, 36, 32)
    assert stem.num_patches == 36 and stem.grid_size == (6, 6)
    assert stem.feat_ratio() == 8 and stem.feat_ratio(as_scalar=False) == (8, 8)


@pytest.mark.parametrize("arguments", [{"patch_size": 16}, {"img_size": 50}, {"dynamic_img_pad": True}])
def test_a_stem_that_it_cannot_be(arguments: dict) -> None:
    with pytest.raises(ValueError, match="ConvStem has stride 8"):
        ConvStem(**arguments)
