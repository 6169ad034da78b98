"""Backbones: the networks that the catalog describes, and weights that are missing, damaged or foreign."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model import backbones
from mlae_lab.model.backbones import BackboneError, build, build_with_notes, bundled_network, fingerprint
from mlae_lab.model.inject import inject
from mlae_lab.model.stem import ConvStem

RANDOM = "lab_vit_12x128.random"


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """Build a network of timm without memory. Old timm reads its drop rates from a `linspace`, which needs some."""
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))

    def build_on_meta(name: str, num_classes: int) -> nn.Module:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=num_classes).eval()

    return build_on_meta


def test_bundled_network_matches_the_catalog() -> None:
    entry, model = catalog.backbone(RANDOM), bundled_network(10)
    assert (
        sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.head.parameters()) == entry.parameters
    )
    assert len(model.blocks) == entry.layers
    assert model.patch_embed.img_size == (entry.image_size, entry.image_size)
    assert model.forward_features(torch.zeros(1, 3, entry.image_size, entry.image_size)).shape == (
        1,
        entry.tokens,
        entry.width,
    )
    for module in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        for name, (d_in, d_out) in entry.shapes(block_targets(entry.layers, module)).items():
            layer = model.get_submodule(name)
            assert (layer.in_features, layer.out_features) == (d_in, d_out)


def test_vit_b16_matches_the_catalog(on_meta: Callable[..., nn.Module]) -> None:
    entry = catalog.backbone("vit_base_patch16_224.orig_in21k")
    model = on_meta(entry.name, 0)
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert (len(model.blocks), model.embed_dim, model.blocks[0].attn.num_heads) == (
        entry.layers,
        entry.width,
        entry.heads,
    )
    for name, (d_in, d_out) in entry.shapes(block_targets(12)).items():
        layer = model.get_submodule(name)
        assert (layer.in_features, layer.out_features) == (d_in, d_out)


def test_backbone_is_frozen_in_eval_mode_with_uniform_predictions() -> None:
    model = build(RANDOM, 16, seed=0)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    logits = model(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 16)
    assert bool((logits == 0).all())


def test_random_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = build(RANDOM, 10, seed=4)
    assert torch.equal(torch.rand(1), expected)  # the global generator is not changed
    torch.manual_seed(2)
    assert same(first, build(RANDOM, 10, seed=4))
    assert not same(first, build(RANDOM, 10, seed=5))


def test_an_unknown_backbone() -> None:
    with pytest.raises(CatalogError, match="'resnet' is not a backbone"):
        build("resnet", 10, seed=0)


def test_backbone_without_weights_raises() -> None:
    name = "vit_base_patch16_224.orig_in21k"
    with pytest.raises(BackboneError, match=f"the weights of {name} are not in this repository") as error:
        build(name, 10, seed=0)
    for word in (f"python -m mlae_lab fetch {name}", "ViT-B_16.npz", ".safetensors"):
        assert word in str(error.value)


# ---------------------------------------------------------------- timm's networks

SMALL = ("test_vit", "swin_tiny_patch4_window7_224", "mixer_s32_224", "convnext_tiny")


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224.augreg_in21k",
        "vit_base_patch14_dinov2.lvd142m",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "vit_small_patch16_224.augreg_in21k",
        "swin_base_patch4_window7_224.ms_in22k",
        "mixer_b16_224.goog_in21k",
        "convnext_base.fb_in22k",
        "deit3_small_patch16_224.fb_in22k_ft_in1k",
        "vit_base_patch16_clip_224.openai",
        "convnext_base.fb_in22k_ft_in1k_384",
    ],
)
def test_table_matches_timm(name: str, on_meta: Callable[..., nn.Module]) -> None:
    entry, model = catalog.backbone(name), on_meta(name, 7)
    head = model.get_classifier()
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in head.parameters()) == entry.parameters
    listed = [layer for rows in entry.linears for layer in rows.names]
    linear = {layer for layer, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}
    assert linear == set(listed)
    for layer, shape in entry.shapes(tuple(listed)).items():
        module = model.get_submodule(layer)
        assert (module.in_features, module.out_features) == shape, layer
    config = model.pretrained_cfg
    assert (tuple(config["mean"]), tuple(config["std"])) == (entry.mean, entry.std)
    assert config["input_size"] == (3, entry.image_size, entry.image_size)
    assert model.num_features == entry.width
    if entry.tokens:
        features = model.forward_features(torch.zeros(1, 3, entry.image_size, entry.image_size, device="meta"))
        assert features.shape == (1, entry.tokens, entry.width)


@pytest.mark.parametrize("architecture", SMALL)
@torch.no_grad()
def test_experts_in_any_architecture_change_nothing_at_the_start(architecture: str) -> None:
    entry = catalog.backbone(f"{architecture}.random")
    model = build(entry.name, 3, seed=0)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    head = model.get_classifier()
    assert isinstance(head, nn.Linear)
    assert bool((head.weight == 0).all())
    assert bool((head.bias == 0).all())
    nn.init.normal_(head.weight)
    x = torch.randn(1, 3, entry.image_size, entry.image_size, generator=torch.Generator().manual_seed(0))
    before, targets = model(x), entry.default_targets
    experts = inject(model, MaskPlan(((1, 1),) * len(targets), ((0, 0),) * len(targets), targets))
    assert before.abs().max() > 0
    assert torch.equal(model(x), before)
    for layer in experts.layers.values():
        layer.b.normal_()
    assert not torch.allclose(model(x), before)


def test_random_timm_weights_follow_the_seed_and_take_no_file(tmp_path: Path) -> None:
    first, second = build("test_vit.random", 2, seed=1), build("test_vit.random", 2, seed=1)
    assert same(first, second)
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(build("test_vit.random", 2, seed=2))
    with pytest.raises(BackboneError, match="takes no file: use test_vit for"):
        build("test_vit.random", 2, seed=0, weights=tmp_path / "w.safetensors")


def test_fetched_weights_are_found_in_their_folder(tmp_path: Path) -> None:
    source = build("test_vit.random", 2, seed=1)
    name = catalog.backbone("test_vit").name
    with pytest.raises(BackboneError, match=r"put timm's model.safetensors at .*model.safetensors") as error:
        build(name, 5, seed=0, weights_folder=tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert "npz" not in str(error.value)
    (tmp_path / name).mkdir()
    save_file(source.state_dict(), tmp_path / name / "model.safetensors")
    model, notes = build_with_notes("test_vit", 5, seed=9, weights_folder=tmp_path)
    assert notes == ()
    assert fingerprint(model) == fingerprint(source)
    assert model.get_classifier().out_features == 5
    assert bool((model.get_classifier().weight == 0).all())


def test_fingerprint_covers_the_backbone_and_not_the_head() -> None:
    first, second = build("test_vit.random", 2, seed=1), build("test_vit.random", 2, seed=1)
    second.head.weight.fill_(3)
    result = fingerprint(first)
    assert result == fingerprint(second)
    assert len(result) == 12
    assert set(result) <= set("0123456789abcdef")
    second.blocks[5].mlp.fc2.bias[0] += 1e-6
    assert fingerprint(second) != result


def test_a_network_that_this_timm_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, **_: object) -> None:
        raise RuntimeError(f"Unknown model ({name})")

    monkeypatch.setattr(timm, "create_model", unknown)
    with pytest.raises(BackboneError, match=rf"cannot be built by timm {timm.__version__} \(Unknown .*install timm"):
        build("test_vit.random", 2, seed=0)


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
    assert bool((model.head.weight == 0).all())
    assert model.head.out_features == 10


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"gone.safetensors does not exist"):
        build("lab_vit_12x128", 10, seed=0, weights=tmp_path / "gone.safetensors")


def test_missing_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "BUNDLED_WEIGHTS", tmp_path / "lab_vit_12x128.safetensors")
    with pytest.raises(
        BackboneError, match=r"lab_vit_12x128.safetensors does not exist: the bundled weights belong in"
    ):
        build("lab_vit_12x128", 10, seed=0)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 100])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    for name, kind in (("w.safetensors", "safetensors file"), ("w", "file of tensors")):
        (tmp_path / name).write_bytes(content)
        described = kind if content else r"file of weights \(it is empty\)"
        with pytest.raises(BackboneError, match=f"is not a readable {described}"):
            build("lab_vit_12x128", 10, seed=0, weights=tmp_path / name)


def test_a_folder_in_place_of_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError):
        build("lab_vit_12x128", 10, seed=0, weights=tmp_path)


def test_weights_of_another_network_name_the_first_difference(tmp_path: Path) -> None:
    state = {name: value for name, value in bundled_network(3).state_dict().items() if not name.startswith("head.")}
    less = {name: value for name, value in state.items() if name != "blocks.3.attn.qkv.bias"}
    with pytest.raises(BackboneError, match=r"blocks.3.attn.qkv.bias is missing"):
        build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "less", less))
    with pytest.raises(BackboneError, match="extra is not part of it"):
        build("lab_vit_12x128", 10, seed=0, weights=saved(tmp_path / "more", {**state, "extra": torch.zeros(1)}))


def test_weights_of_another_width_are_refused_with_a_sentence(tmp_path: Path) -> None:
    state = {name: value for name, value in bundled_network(3).state_dict().items() if not name.startswith("head.")}
    state["blocks.3.attn.qkv.bias"] = torch.zeros(5)
    with pytest.raises(BackboneError, match=r"blocks.3.attn.qkv.bias"):
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
    assert stem.num_patches == 36
    assert stem.grid_size == (6, 6)
    assert stem.feat_ratio() == 8
    assert stem.feat_ratio(as_scalar=False) == (8, 8)


@pytest.mark.parametrize("arguments", [{"patch_size": 16}, {"img_size": 50}, {"dynamic_img_pad": True}])
def test_invalid_stem_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match="ConvStem has stride 8"):
        ConvStem(**arguments)
