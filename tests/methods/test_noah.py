"""NOAH: the published sub-networks, and a block with prompts, LoRA and adapter written out."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.method import Method, blocks_of
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adapter import AttachError, attach
from mlae_lab.methods.noah import NOAH, count
from mlae_lab.methods.noah.layers import PromptModules, Prompts, SuperNetwork
from mlae_lab.methods.noah.subnets import SUBNETS, Sizes
from mlae_lab.methods.vpt import VPTDeep

VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")


def network(**changes: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=32, depth=3, embed_dim=24, num_heads=3, **changes
    ).eval()


def test_the_published_subnetworks() -> None:
    """Mean of the 19 on ViT-B/16: 360,134 parameters, the table's 0.36 million."""
    assert len(SUBNETS) == 19
    counts = [NOAH(subnet=task).parameters(VIT_B16) for task in SUBNETS]
    assert sum(counts) / 19 == pytest.approx(360_134.26, abs=0.01)
    assert {size for sizes in SUBNETS.values() for row in sizes for size in row} == {1, 5, 10}
    assert {len(row) for sizes in SUBNETS.values() for row in sizes} == {12}


def test_sizes_reach_as_deep_as_the_settings_say() -> None:
    sizes = NOAH(prompt=4, prompt_depth=1, lora=2, lora_depth=2, adapter=3, adapter_depth=9).sizes(3)
    assert sizes == ((4, 0, 0), (2, 2, 0), (3, 3, 3))
    with pytest.raises(ConfigError, match="published sub-networks have 12"):
        NOAH(subnet="dtd").sizes(3)
    with pytest.raises(ConfigError, match="make one of them larger"):
        NOAH(prompt=0, lora=0, adapter=0).sizes(3)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_the_forward_pass_by_hand(pooling: str) -> None:
    """Tokens end with the prompts of the last block that has any, and pooling does not see them."""
    model = network(global_pool=pooling, init_values=0.5)
    adapter = attach(model, NOAH(prompt=4, prompt_depth=2, lora=2, adapter=3, adapter_depth=2))
    adapter.train(False)
    for index, value in enumerate(adapter.parameters().values()):
        value.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    own, frozen = adapter.state(), network(global_pool=pooling, init_values=0.5)
    images = torch.randn(2, 3, 32, 32)
    x = frozen._pos_embed(frozen.patch_embed(images))
    number = x.shape[1]
    for i, block in enumerate(frozen.blocks):
        name = f"blocks.{i}"
        if i < 2:
            x = torch.cat([x[:, :number], own[f"{name}.prompt.tokens"].expand(2, -1, -1)], 1)
        qkv = nn.Linear(24, 72)
        qkv.weight.copy_(block.attn.qkv.weight + own[f"{name}.attn.qkv.b"] @ own[f"{name}.attn.qkv.a"])
        qkv.bias.copy_(block.attn.qkv.bias)
        block.attn.qkv = qkv
        x = x + block.ls1(block.attn(block.norm1(x)))
        h = block.ls2(block.mlp(block.norm2(x)))
        if i < 2:
            z = F.linear(h, own[f"{name}.adapter.down"], own[f"{name}.adapter.down_bias"])
            h = h + F.linear(z * torch.sigmoid(1.702 * z), own[f"{name}.adapter.up"], own[f"{name}.adapter.up_bias"])
        x = x + h
    expected = frozen.forward_head(frozen.norm(x[:, :number]))
    assert torch.allclose(model(images), expected, atol=1e-4)
    adapter.remove()
    assert torch.equal(model(images), network(global_pool=pooling, init_values=0.5)(images))


def test_prompts_start_small() -> None:
    adapter = attach(network(), NOAH(prompt=10))
    prompts = adapter._modules["blocks.0.prompt"]
    assert isinstance(prompts, Prompts)
    assert prompts.tokens.abs().max() <= (6 / (24 * 11)) ** 0.5
    assert prompts.tokens.abs().max() > 0.9 * (6 / (24 * 11)) ** 0.5


@pytest.mark.parametrize("name", ["test_vit_relpos", "vit_srelpos_small_patch16_224"])
@pytest.mark.parametrize("method", [NOAH(prompt=2), VPTDeep(2)], ids=lambda method: method.name)
def test_attention_with_a_bias_for_each_pair_of_positions_takes_no_prompts(name: str, method: Method) -> None:
    with pytest.raises(AttachError, match="has a fixed number of tokens and cannot take prompts: choose"):
        attach(timm.create_model(name, num_classes=3), method)


def test_rotary_attention_takes_no_prompts_of_noah() -> None:
    model = timm.create_model("vit_pe_core_tiny_patch16_384", num_classes=3, depth=1)
    with pytest.raises(AttachError, match="has a fixed number of tokens and cannot take prompts: choose"):
        attach(model, NOAH(prompt=2))


def test_without_prompts_such_attention_is_no_obstacle() -> None:
    model = timm.create_model("test_vit_relpos", num_classes=3).eval()
    attach(model, NOAH(prompt=0)).train(False)
    assert model(torch.zeros(1, 3, *model.patch_embed.img_size)).shape == (1, 3)


# ---------------------------------------------------------------- the super-network


def test_the_super_network_of_vit_b16() -> None:
    """Sizes of 10 in 12 blocks: 12 · (10 · 768 + 10 · 3072 + 2 · 768 · 10 + 10 + 768)."""
    search = NOAH(subnet="search")
    assert search.parameters(VIT_B16) == 12 * (7_680 + 30_720 + 15_360 + 10 + 768)
    assert search.depths(12) == {"prompt": (12, 9, 6, 3), "lora": (12, 9, 6, 3), "adapter": (12, 9, 6, 3)}
    assert NOAH(subnet="search", prompt=0, lora_depth=2).depths(12) == {"lora": (2, 1), "adapter": (12, 9, 6, 3)}
    assert NOAH().search is None
    least = count(search.smallest(12), blocks_of(VIT_B16, ""))
    NOAH(subnet="search", search_parameters=least).check(VIT_B16)
    with pytest.raises(ConfigError, match=f"has {least:,}: allow more"):
        NOAH(subnet="search", search_parameters=least - 1).check(VIT_B16)
    with pytest.raises(ConfigError, match="make one of them larger"):
        NOAH(subnet="search", prompt=0, lora=0, adapter=0).check(VIT_B16)


def super_network(**settings: Any) -> tuple[Any, SuperNetwork]:
    model = network()
    adapter = attach(model, NOAH(subnet="search", **settings))
    assert isinstance(adapter, SuperNetwork)
    with torch.no_grad():
        for index, value in enumerate(adapter.parameters().values()):
            value.normal_(std=0.3, generator=torch.Generator().manual_seed(index))
    adapter.train(False)
    return model, adapter


@torch.no_grad()
def test_a_sub_network_is_the_network_of_its_sizes() -> None:
    """A network that is attached with a sub-network's sizes and its part of the weights gives the same output."""
    model, adapter = super_network()
    sizes = Sizes((5, 1, 0), (1, 10, 5), (10, 5, 0))
    adapter.choose(sizes)
    own, weights = network(), adapter.state()
    small = PromptModules(own, _Fixed(sizes), 0)
    small.train(False)
    for name, value in small.parameters().items():
        value.copy_(weights[name][tuple(slice(size) for size in value.shape)])
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(images), own(images), atol=1e-5)
    assert sum(value.numel() for value in small.parameters().values()) == count(sizes, adapter.space._blocks)


class _Fixed(NOAH):
    """Given sizes."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        object.__setattr__(self, "_sizes", sizes)

    def sizes(self, blocks: int) -> Sizes:
        return object.__getattribute__(self, "_sizes")


def test_training_samples_sub_networks_until_one_is_chosen() -> None:
    model, adapter = super_network()
    space, images = adapter.space, torch.randn(2, 3, 32, 32)
    fullest = model(images)
    adapter.train(True)
    adapter.before_step(3, 0.0)
    first = model(images)
    adapter.before_step(4, 0.0)
    assert not torch.equal(model(images), first)
    adapter.before_step(3, 0.0)
    assert torch.equal(model(images), first)
    adapter.train(False)
    assert torch.equal(model(images), fullest)
    chosen = space.canonical((1, 2, 1, 0) * 3)
    space.settle(chosen)
    assert adapter.chosen == Sizes((1, 5, 0), (1, 5, 0), (1, 5, 0))
    own = model(images)
    assert not torch.allclose(own, fullest)
    adapter.train(True)
    for step in (3, 4):
        adapter.before_step(step, 0.0)
        assert adapter._parts["lora"][1].size == 5
    lines = adapter.statistics()["sizes"][1]
    assert isinstance(lines, tuple)
    assert [line[1] for line in lines if isinstance(line, tuple)] == [1.0, 5.0, None]
    assert space.grid(chosen)["Prompts"] == [("1", 0.1), ("5", 0.5), ("0", 0.0)]
    space.settle(None)
    assert adapter.chosen == adapter.sizes


def test_candidates_that_differ_only_below_their_depth_are_one() -> None:
    space = super_network()[1].space
    shallow, other = (space.canonical((2, 1, *rest) * 3) for rest in ((0, 1), (2, 2)))
    assert shallow == other
    assert space.sizes(shallow) == Sizes((5, 0, 0), (5, 0, 0), (5, 0, 0))
    assert space.count(shallow) == sum(
        value[tuple(slice(5) if size == 10 else slice(None) for size in value.shape)].numel()
        for name, value in super_network()[1].parameters().items()
        if name.startswith("blocks.0")
    )


def test_a_damaged_choice_is_refused() -> None:
    adapter = super_network()[1]
    adapter.require_valid()
    adapter.state()["subnet.sizes"][1, 2] = 11
    with pytest.raises(ValueError, match="does not have"):
        adapter.require_valid()
