"""Full fine-tuning and BitFit: which parameters are trained, and how the frozen network comes back."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.method import method
from mlae_lab.methods.adapter import attach
from tests.methods.test_contract import attached, images, network, train


@pytest.mark.parametrize("name", ["full", "bitfit"])
def test_removed_after_training_is_the_frozen_network(name: str) -> None:
    model, adapter = attached(name, blocks=12)
    train(model, adapter, range(2))
    head = {key: p.clone() for key, p in model.get_submodule("head").named_parameters()}
    adapter.remove()
    frozen = network()
    for key, p in model.named_parameters():
        if key.startswith("head."):
            assert torch.equal(p, head[key.removeprefix("head.")])
        else:
            assert torch.equal(p, frozen.get_parameter(key))
            assert not p.requires_grad


def test_full_trains_everything_but_the_head() -> None:
    model, adapter = attached("full", blocks=12)
    assert set(adapter.parameters()) == {key for key, _ in model.named_parameters() if not key.startswith("head.")}


def test_bitfit_trains_biases_of_norms_and_patch_embedding_but_not_of_the_head() -> None:
    names = set(attached("bitfit", blocks=12)[1].parameters())
    assert all(name.endswith(".bias") for name in names)
    assert {"patch_embed.conv1.bias", "norm.bias", "blocks.0.norm1.bias", "blocks.11.attn.qkv.bias"} <= names
    assert "head.bias" not in names


def test_bitfit_changes_the_output_by_the_biases_alone() -> None:
    """Moving the trained biases into a copy of the frozen network gives the trained network."""
    model, adapter = attached("bitfit", blocks=12)
    train(model, adapter, range(2))
    copy = network()
    with torch.no_grad():
        for key, p in [*adapter.parameters().items(), *model.get_submodule("head").named_parameters(prefix="head")]:
            copy.get_parameter(key).copy_(p)
        assert torch.equal(copy(images()), model(images()))


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",  # LayerScale and registers
        "vit_base_patch32_clip_224",  # a norm before the blocks, no bias of the patch embedding
        "vit_medium_patch16_gap_240",  # average pooling, no bias of qkv
        "vit_base_patch16_rpn_224",
        "swin_tiny_patch4_window7_224",
        "mixer_s16_224",
        "convnext_tiny",
    ],
)
def test_counts_of_timm_networks(name: str) -> None:
    """The table counts what is trained, for networks of every kind."""
    backbone = catalog.backbone(name)
    for described in (method("full")(), method("bitfit")()):
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, num_classes=5)
        of_head = {f"{key}" for key, p in model.named_parameters() for q in _head(model) if p is q}
        chosen = {key: p for key, p in model.named_parameters() if key not in of_head}
        if described.name == "bitfit":
            chosen = {key: p for key, p in chosen.items() if key.endswith(".bias")}
        assert described.parameters(backbone) == sum(p.numel() for p in chosen.values())


def _head(model: nn.Module) -> list[nn.Parameter]:
    head = model.get_classifier()  # pyright: ignore[reportCallIssue] - timm's networks have it
    assert isinstance(head, nn.Module)
    return list(head.parameters())


def test_full_of_a_network_of_stages() -> None:
    """A network that is no plain vision transformer can be trained whole."""
    model = timm.create_model("convnext_tiny", num_classes=5)
    adapter = attach(model, method("full")())
    assert sum(p.numel() for p in adapter.parameters().values()) == catalog.backbone("convnext_tiny").parameters
