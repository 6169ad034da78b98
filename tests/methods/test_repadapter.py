"""RepAdapter: the grouped bottleneck, the merged weights by hand, refusals."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
import torch.nn.functional as F

from mlae_lab.core import catalog
from mlae_lab.core.method import method, with_texts
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adapter import AttachError
from tests.methods.small import WIDTH, images, put, small


@torch.no_grad()
def test_the_input_of_qkv_and_fc1_passes_a_grouped_convolution() -> None:
    model = small()
    adapter = put(model, "repadapter", "bottleneck=6", "groups=2", "scale=0.5")
    x = torch.randn(3, 7, WIDTH)
    for name in ("attn.qkv", "mlp.fc1"):
        layer, own = model.blocks[1].get_submodule(name), {
            key.removeprefix(f"blocks.1.{name}."): value for key, value in adapter.state().items()
        }  # fmt: skip
        hidden = F.conv1d(x.mT, own["down.weight"][..., None], own["down.bias"])
        rise = F.conv1d(hidden, own["up"].reshape(WIDTH, 3, 1), own["bias"], groups=2).mT
        assert torch.allclose(layer(x), layer.base(x + 0.5 * rise), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_merged_weights(bias: bool) -> None:
    model = small(qkv_bias=bias)
    frozen = deepcopy(model)
    adapter = put(model, "repadapter", "scale=2", "place=attention")
    state = {key: value.clone() for key, value in adapter.state().items()}
    output = model(images())
    adapter.merge()
    for i, block in enumerate(model.blocks):
        own = {key.removeprefix(f"blocks.{i}.attn.qkv."): value for key, value in state.items()}
        b = torch.zeros(WIDTH, 8)
        b[:8, :4], b[8:, 4:] = own["up"]
        weight = frozen.blocks[i].attn.qkv.weight
        assert torch.allclose(
            block.attn.qkv.weight, weight @ (torch.eye(WIDTH) + 2 * b @ own["down.weight"]), atol=1e-5
        )
        expected = weight @ (2 * (b @ own["down.bias"] + own["bias"]))
        if bias:
            expected += frozen.blocks[i].attn.qkv.bias
        assert torch.allclose(block.attn.qkv.bias, expected, atol=1e-5)
        assert torch.equal(block.mlp.fc1.weight, frozen.blocks[i].mlp.fc1.weight)
    assert torch.allclose(model(images()), output, rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_groups_divide_bottleneck_and_width() -> None:
    with pytest.raises(ConfigError, match="bottleneck is 8: it must be a multiple of the 3 groups"):
        with_texts(method("repadapter"), ["groups=3"])
    described = with_texts(method("repadapter"), ["groups=5", "bottleneck=5"])
    with pytest.raises(ConfigError, match="groups is 5: it must divide the width 128"):
        described.check(catalog.backbone("lab_vit_12x128"))


def test_a_network_that_reads_the_weights_of_qkv_is_refused() -> None:
    model = timm.create_model("beit_base_patch16_224", num_classes=3, embed_dim=32, num_heads=2, depth=2)
    with pytest.raises(AttachError, match="without calling it: choose a ViT"):
        put(model, "repadapter")
