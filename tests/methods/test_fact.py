"""FacT: the update of each layer, computed part by part."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from mlae_lab.core import catalog
from mlae_lab.core.method import with_texts
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adapter import attach
from mlae_lab.methods.fact import FactTK, FactTT
from mlae_lab.methods.fact.layers import FactorTuning, TuckerSigma

WIDTH, RANK, SCALE = 24, 3, 0.7


def tuned(method: type[FactTT | FactTK]) -> FactorTuning:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2, embed_dim=WIDTH, num_heads=3
    ).eval()
    adapter = attach(model, method(rank=RANK, scale=SCALE))
    assert isinstance(adapter, FactorTuning)
    adapter.train(False)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return adapter


@pytest.mark.parametrize("method", [FactTT, FactTK])
@torch.no_grad()
def test_each_part_of_a_wide_output_has_its_own_matrix(method: type[FactTT | FactTK]) -> None:
    """q, k, v and the parts of fc1: y_j = W_j x + s V Σ_j U x; fc2: y = W x + s V Σ_j Σ_j U x_j."""
    adapter = tuned(method)
    u, v = adapter.state()["fact.u"], adapter.state()["fact.v"]
    for kind in ("attn.qkv", "attn.proj", "mlp.fc1"):
        layer = adapter.layers[f"blocks.1.{kind}"]
        x = torch.randn(2, 5, WIDTH)
        for j, part in enumerate(layer.sigma().split(RANK)):
            expected = x @ (SCALE * v @ part @ u).T
            update = layer(x) - layer.base(x)
            assert torch.allclose(update[..., j * WIDTH : (j + 1) * WIDTH], expected, atol=1e-4)
    layer = adapter.layers["blocks.1.mlp.fc2"]
    x = torch.randn(2, 5, 4 * WIDTH)
    parts = zip(x.split(WIDTH, -1), layer.sigma().split(RANK, 1), strict=True)
    expected = sum(x_part @ (SCALE * v @ part @ u).T for x_part, part in parts)
    assert torch.allclose(layer(x) - layer.base(x), torch.as_tensor(expected), atol=1e-4)


@torch.no_grad()
def test_the_columns_of_tucker_follow_the_network() -> None:
    """Columns of P: q, k, v, proj, 4 of fc1, 4 of fc2, block after block; Σ_j = (C ×₃ p_j), for outputs transposed."""
    adapter = tuned(FactTK)
    sigmas: dict[str, Any] = {name: layer.sigma for name, layer in adapter.layers.items()}
    assert all(isinstance(sigma, TuckerSigma) for sigma in sigmas.values())
    assert [sigma.first for sigma in sigmas.values()] == [0, 3, 4, 8, 12, 15, 16, 20]
    core, columns = adapter.state()["fact.c"], adapter.state()["fact.p"]
    of_v = sum(core[:, :, c] * columns[c, 12 + 2] for c in range(RANK))
    assert torch.allclose(sigmas["blocks.1.attn.qkv"]()[2 * RANK :], torch.as_tensor(of_v).T, atol=1e-5)
    of_last = sum(core[:, :, c] * columns[c, 23] for c in range(RANK))
    assert torch.allclose(sigmas["blocks.1.mlp.fc2"]()[:, 3 * RANK :], torch.as_tensor(of_last), atol=1e-5)


@pytest.mark.parametrize("method", [FactTT, FactTK])
@torch.no_grad()
def test_the_merged_weight_is_the_update(method: type[FactTT | FactTK]) -> None:
    layer = tuned(method).layers["blocks.0.mlp.fc2"]
    identity = torch.eye(4 * WIDTH)
    bias = layer.base.bias
    assert torch.allclose((layer(identity) - bias).T, layer.base.weight + layer.update(), atol=1e-4)


def test_the_mean_over_the_tasks_of_the_authors() -> None:
    """13 of the 19 configs have rank 32 and 6 have rank 16, which gives the table's 0.069 million."""
    vit = catalog.backbone("vit_base_patch16_224.orig_in21k")
    mean = (13 * FactTK(rank=32).parameters(vit) + 6 * FactTK(rank=16).parameters(vit)) / 19
    assert mean == pytest.approx(68_985.26, abs=0.01)


def test_settings_have_limits() -> None:
    with pytest.raises(ConfigError, match="rank is 0"):
        with_texts(FactTK, ["rank=0"])
    with pytest.raises(ConfigError, match="scale is 0"):
        with_texts(FactTT, ["scale=0"])
