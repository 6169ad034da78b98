"""Drop paths of the backbone: timm's rates, own noise, in training only, whatever a method puts around them."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from mlae_lab.methods.adapter import Adapter, DropPath, Noise, attach
from mlae_lab.model.backbones import build_with_notes
from mlae_lab.model.frozen_prefix import depth, unvarying
from tests.methods.small import small
from tests.methods.test_contract import CLASSES, described, images, network

RATE = 0.5
LAB = "lab_vit_12x128"


@cache
def _built() -> nn.Module:
    model = build_with_notes(LAB, CLASSES, 3, drop_path=RATE)[0]
    model.load_state_dict(network().state_dict())
    return model


def with_paths(name: str) -> tuple[nn.Module, Adapter]:
    model = copy.deepcopy(_built())
    batches = [(images(4), torch.arange(4))]
    return model, attach(model, described(name), 0, lambda: batches)


def output(model: nn.Module, adapter: Adapter, step: int, seed: int = 0) -> torch.Tensor:
    adapter.before_step(step, 0.0)
    with torch.no_grad():
        return model(images(4, seed))


@torch.no_grad()
def test_the_output_is_that_of_the_formula() -> None:
    """x + d f(x) with d ∈ {0, 1/(1-p)} for each image, p from 0 in the first block to the rate in the last."""
    model = small(depth=3, drop_path_rate=RATE)
    plain = copy.deepcopy(model)
    adapter = attach(model, described("linear"), seed=5)
    adapter.train(True)
    adapter.before_step(7, 0.0)
    x = images_of_32 = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    noise = Noise(5, "drop path")
    noise.start(7)
    x = plain._pos_embed(plain.patch_embed(x))
    for number, block in enumerate(plain.blocks):
        for branch in (lambda x, b=block: b.attn(b.norm1(x)), lambda x, b=block: b.mlp(b.norm2(x))):
            rate = RATE * number / 2
            x = x + branch(x) * (noise.kept((6, 1, 1), rate, x.device) if rate else 1)
    expected = plain.forward_head(plain.norm(x))
    assert torch.allclose(model(images_of_32), expected, atol=1e-6)
    adapter.train(False)
    assert torch.equal(model(images_of_32), plain.eval()(images_of_32))


# Of each way to act in a block: on a linear layer, after a branch, parallel to it, on all weights, nowhere, on tokens.
@pytest.mark.parametrize("name", ["mlae", "lora", "adapter", "convpass", "full", "linear", "noah", "glora"])
def test_paths_are_dropped_in_training_by_seed_and_step(name: str) -> None:
    model, adapter = with_paths(name)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath) and module.noise is not None]
    assert rates.count(RATE) == 2, "attention and MLP of the last block"
    assert len([rate for rate in rates if rate]) == 22, "none in the first block"
    adapter.train(True)
    same = [module.rate for module in model.modules() if isinstance(module, DropPath) and module.training]
    assert len(same) >= 22
    first, second, again = (output(model, adapter, step) for step in (3, 4, 3))
    assert not torch.equal(first, second)
    assert torch.equal(first, again) or name == "mlae", "a step of masked experts takes the next masks"
    adapter.train(False)
    assert torch.equal(output(model, adapter, 3), output(model, adapter, 4))
    plain, own = network(), described(name)
    without = attach(plain, own, 0, lambda: [(images(4), torch.arange(4))])
    without.train(False)
    with torch.no_grad():
        assert torch.equal(model(images(4)), plain(images(4)))


def test_all_methods_drop_the_same_paths_in_a_step() -> None:
    """The first block that drops is the second: its noise must not depend on what the method samples."""
    drawn = []
    for name in ("lora", "glora"):
        model, adapter = with_paths(name)
        adapter.train(True)
        output(model, adapter, 2)
        drawn.append(adapter.path_noise.kept((5,), 0.5, torch.device("cpu")))
    assert torch.equal(*drawn)


def test_a_second_pass_of_a_step_drops_the_same_paths_under_other_masks() -> None:
    """As PACE's code does: only what the method samples differs between the passes."""
    model, adapter = with_paths("linear")
    adapter.train(True)
    first = output(model, adapter, 2)
    adapter.resample()
    assert torch.equal(model(images(4)), first)


def test_blocks_that_are_computed_once_end_before_the_first_drop_path() -> None:
    assert (unvarying(small(depth=3)), unvarying(small(depth=3, drop_path_rate=0.1))) == (3, 1)
    swin = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
    plain, dropping = (SwinTransformer(**swin, drop_path_rate=rate) for rate in (0.0, 0.1))  # its default is 0.1
    assert (unvarying(plain), unvarying(dropping), depth(dropping)) == (1, 0, 1)
    mixer = MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=8, drop_path_rate=0.1)
    assert unvarying(mixer) == 0, "timm gives all its blocks the same rate"
