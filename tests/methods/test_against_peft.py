"""LoRA, DoRA and AdaLoRA give the numbers of Hugging Face's peft, where that is installed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core.method import Method
from mlae_lab.core.patterns import dense
from mlae_lab.methods.adalora import AdaLoRA
from mlae_lab.methods.adalora.layers import AllocatedRanks
from mlae_lab.methods.adapter import attach
from mlae_lab.methods.dora import DoRA
from mlae_lab.methods.layerwise import LayerWise
from mlae_lab.methods.lora import LoRA
from mlae_lab.methods.lora.layers import LowRankAdapter
from mlae_lab.methods.mlae import MLAE
from tests.methods.test_contract import images, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its many dependencies
    peft: Any = pytest.importorskip("peft", reason="peft is an optional extra: pip install '.[peft]'")

pytestmark = pytest.mark.filterwarnings("ignore")
PARTS = {"lora_A": "a", "lora_B": "b", "lora_E": "e", "lora_magnitude_vector": "magnitude"}


def peft_network(config: Any) -> tuple[Any, dict[str, nn.Parameter]]:
    """peft's network, and its trained parameters by the lab's names."""
    model = peft.get_peft_model(network(), config)
    named = {}
    for name, p in model.named_parameters():
        part = next((own for key, own in PARTS.items() if f".{key}." in name), None)
        if part and p.requires_grad:
            named[f"{name.split('.lora_')[0].removeprefix('base_model.model.')}.{part}"] = p
    return model, named


def lab_network(method: Method, same: dict[str, nn.Parameter]) -> tuple[nn.Module, LowRankAdapter]:
    """The lab's network with peft's initial values."""
    model = network()
    adapter = attach(model, method)
    assert isinstance(adapter, LowRankAdapter)
    assert set(adapter.parameters()) == set(same)
    with torch.no_grad():
        for name, p in adapter.parameters().items():
            p.copy_(same[name].reshape(p.shape))
    adapter.train(True)
    return model, adapter


def loss_of(model: Any, step: int) -> torch.Tensor:
    return F.cross_entropy(model(images(4, step)), torch.arange(4))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (LoRA(rank=4, alpha=8.0, targets="all"), {"r": 4, "lora_alpha": 8}),
        (DoRA(rank=4, alpha=8.0, targets="all"), {"r": 4, "lora_alpha": 8, "use_dora": True}),
        (
            LayerWise(pattern="incremental"),
            {"r": 8, "lora_alpha": 8, "target_modules": ["attn.qkv"]},
        ),
    ],
)
def test_steps_and_merged_weights(method: Method, options: dict[str, Any]) -> None:
    if isinstance(method, LayerWise):
        ranks = {f"blocks.{i}.attn.qkv": rank for i, rank in enumerate(method.ranks(12))}
        options = options | {"rank_pattern": ranks, "alpha_pattern": ranks}
    targets = {"target_modules": ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]}
    reference, same = peft_network(peft.LoraConfig(**targets | options))
    model, adapter = lab_network(method, same)
    optimizers = [torch.optim.AdamW(p.values(), lr=1e-3) for p in (same, adapter.parameters())]
    for step in range(3):
        for net, optimizer in zip((reference, model), optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()
    for name, p in adapter.parameters().items():
        assert torch.allclose(p, same[name].reshape(p.shape), rtol=1e-3, atol=2e-5), name
    with torch.no_grad():
        assert torch.allclose(model(images()), reference(images()), rtol=1e-3, atol=1e-3)
        for name, p in adapter.parameters().items():
            p.copy_(same[name].reshape(p.shape))
        adapter.merge()
        merged = dict(reference.merge_and_unload().named_parameters())
        for name, p in model.named_parameters():
            assert torch.allclose(p, merged[name], rtol=1e-5, atol=1e-6), name


def test_mlae_without_masks_is_pefts_lora() -> None:
    """p = 0 and λ = 1, not trained: the loss and the gradients of A and B are peft's."""
    reference, same = peft_network(peft.LoraConfig(r=8, lora_alpha=8, target_modules=["attn.qkv"]))
    model = network()
    adapter = attach(model, MLAE(replace(dense(12, 8), train_coefficients=False)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in adapter.parameters().items():
            same[name].normal_(0, 0.05, generator=generator)
            p.copy_(same[name])
    adapter.train(True)
    adapter.before_step(0, 0.0)
    losses = [loss_of(reference, 0), loss_of(model, 0)]
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    for loss in losses:
        loss.backward()
    for name, p in adapter.parameters().items():
        expected = same[name].grad
        assert p.grad is not None
        assert expected is not None
        assert torch.allclose(p.grad, expected, rtol=1e-3, atol=1e-5), name


def test_adaloras_update_penalty_and_allocation() -> None:
    """The same weights and gradients give the same importance, budget and zeros."""
    total, first, last = 20, 2, 5
    config = peft.AdaLoraConfig(
        init_r=6, target_r=3, tinit=first, tfinal=last, deltaT=1, total_step=total, lora_alpha=6, lora_dropout=0.0,
        orth_reg_weight=0.1, target_modules=["attn.qkv"],
    )  # fmt: skip
    reference, same = peft_network(config)
    method = AdaLoRA(rank=3, start_rank=6, warmup=first / total, final=last / total, interval=1 / total)
    model, adapter = lab_network(method, same)
    assert isinstance(adapter, AllocatedRanks)
    with torch.no_grad():
        for name, p in adapter.parameters().items():
            if name.endswith(".e"):
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
                same[name].copy_(p.reshape(same[name].shape))
        assert torch.allclose(model(images()), reference(images()), rtol=1e-3, atol=1e-3)
    allocator = reference.base_model.rankallocator

    regular = [
        torch.linalg.matrix_norm((p @ p.T if "lora_A" in name else p.T @ p) - torch.eye(6))
        for name, p in reference.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]
    penalty = adapter.penalty()
    assert penalty is not None
    assert torch.allclose(penalty, 0.1 * torch.stack(regular).mean(), rtol=1e-5)

    for step in range(total):
        generator = torch.Generator().manual_seed(step)
        for name, p in adapter.parameters().items():
            p.grad = torch.randn(p.shape, generator=generator)
            same[name].grad = p.grad.reshape(same[name].shape).clone()
        budget, _ = allocator.budget_schedule(step)
        if step < total - last:
            assert abs(budget - method.budget(step / total, 12)) <= 1
        adapter.after_backward(step, step / total)
        adapter.after_step(step, step / total)
        reference.base_model.update_and_allocate(step)
        if step == total - last:
            break
        if budget != method.budget(step / total, 12):  # rounding of the curve
            continue
        for name, p in adapter.parameters().items():
            assert torch.equal(p == 0, same[name].reshape(p.shape) == 0), (step, name)
    assert sum(int(own.kept.sum()) for own in adapter.updates.values()) == 36
    for name, p in adapter.parameters().items():
        assert torch.equal(p, same[name].reshape(p.shape)), name
