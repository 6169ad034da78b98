"""SPT: the sensitivity pass, the choice within the budget, and what is tuned, each computed a second time."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.settings import ConfigError
from mlae_lab.methods.adapter import AttachError, attach
from mlae_lab.methods.spt import ALPHA, BETA, SPTAdapter, SPTLoRA, module_size
from mlae_lab.methods.spt.layers import SensitiveTuning
from mlae_lab.methods.spt.sensitivity import Piece, choose, pieces, sensitivity

WIDTH, RANK, BUDGET = 24, 4, 1500


def network() -> Any:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2, embed_dim=WIDTH, num_heads=3
    ).eval()
    for name, value in model.named_parameters():
        if not name.startswith("head"):
            nn.init.normal_(value, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    return model.requires_grad_(False)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(i)), torch.arange(3)) for i in range(3)]


def tuned(method: type[SPTLoRA | SPTAdapter], filled: bool = True) -> tuple[Any, SensitiveTuning]:
    model = network()
    adapter = attach(model, method(budget=BUDGET, rank=RANK), 0, batches)
    assert isinstance(adapter, SensitiveTuning)
    adapter.train(False)
    if filled:
        with torch.no_grad():
            adapter.selection.values.normal_(std=0.3, generator=torch.Generator().manual_seed(7))
    return model, adapter


def test_the_sensitivity_is_the_sum_of_squared_gradients() -> None:
    model = network()
    scores = sensitivity(model, batches, 2, torch.Generator().manual_seed(1))
    other = copy.deepcopy(model).requires_grad_(True)
    with torch.no_grad():
        other.head.weight.copy_(0.02 * torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1)))
        other.head.bias.zero_()
    expected = {name: torch.zeros_like(score) for name, score in scores.items()}
    for images, labels in batches()[:2]:
        other.zero_grad()
        F.cross_entropy(other(images), labels).backward()
        for name, value in other.named_parameters():
            if name in expected:
                expected[name] += value.grad**2
    assert all(torch.allclose(score, expected[name], rtol=1e-4, atol=1e-12) for name, score in scores.items())
    assert all(torch.equal(value, p) for value, p in zip(network().parameters(), model.parameters(), strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    untouched = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert untouched.isdisjoint(scores)


def test_q_k_and_v_are_pieces_of_their_own() -> None:
    rows = [(p.first, p.shape) for p in pieces(network()) if p.name == "blocks.1.attn.qkv.weight"]
    assert rows == [(0, (WIDTH, WIDTH)), (WIDTH, (WIDTH, WIDTH)), (2 * WIDTH, (WIDTH, WIDTH))]
    assert sum(p.size for p in pieces(network())) == sum(
        value.numel() for name, value in network().named_parameters() if name.startswith(("blocks", "norm"))
    )


@pytest.mark.parametrize("budget", [40, 90, 150])
def test_the_choice_by_hand(budget: int) -> None:
    """Over the grid of τ: whole where 1/10 of a module or 1/5 of a vector is sensitive, else weight by weight."""
    choices = [Piece("a", "weight", 0, (12, 10)), Piece("a", "weight", 12, (12, 10)), Piece("b", "bias", 0, (20,))]
    generator = torch.Generator().manual_seed(budget)
    scores = {"a.weight": torch.rand(24, 10, generator=generator), "b.bias": torch.rand(20, generator=generator)}
    scores["a.weight"][:12] += 0.3  # the first matrix is the more sensitive
    sizes = [module_size(10, 12, 1, False)] * 2 + [20]
    values = [*scores["a.weight"].flatten().tolist(), *scores["b.bias"].tolist()]
    owner = [0] * 120 + [1] * 120 + [2] * 20
    ranked = sorted(range(260), key=lambda i: -values[i])
    best: tuple[int, list[int], list[int]] = (-1, [], [])
    for step in range(1, 400):
        top = ranked[: min(math.ceil(budget * step / 100), 260)]
        counts = [sum(owner[i] == piece for i in top) for piece in range(3)]
        parts = (ALPHA, ALPHA, BETA)
        whole = [int(c >= size / part) for c, size, part in zip(counts, sizes, parts, strict=True)]
        total = sum(size if w else c for c, size, w in zip(counts, sizes, whole, strict=True))
        if best[0] < total <= budget:
            best = (total, whole, sorted(i for i in top if not whole[owner[i]]))
    whole, positions = choose(scores, choices, budget, lambda d_in, d_out: module_size(d_in, d_out, 1, False))
    assert (whole.tolist(), positions.tolist()) == best[1:]


@pytest.mark.parametrize("method", [SPTLoRA, SPTAdapter])
def test_the_budget_holds(method: type[SPTLoRA | SPTAdapter]) -> None:
    """Modules and whole vectors, single weights, and the class token are at most the budget."""
    adapter = tuned(method)[1]
    structured = sum(
        module_size(p.shape[1], p.shape[0], RANK, method is SPTAdapter) if len(p.shape) == 2 else p.size
        for p, whole in zip(adapter.selection.choices, adapter.selection.whole.tolist(), strict=True)
        if whole
    )
    single = int((adapter.selection.index >= 0).sum())
    assert structured > 0
    assert single > 0
    assert 0.9 * BUDGET < structured + single + WIDTH <= BUDGET
    assert adapter.statistics()["tuned"][1] == structured + single
    assert sum(p.numel() for p in adapter.parameters().values()) == BUDGET


@torch.no_grad()
def test_single_weights_and_modules_by_hand() -> None:
    """The merged weight is W, plus a value at each chosen position, plus B A in the rows of q, k or v."""
    model, adapter = tuned(SPTLoRA)
    expected = {name: value.clone() for name, value in network().named_parameters()}
    values = adapter.selection.values.tolist()
    start = 0
    for piece, whole in zip(adapter.selection.choices, adapter.selection.whole.tolist(), strict=True):
        rows = slice(piece.first, piece.first + piece.shape[0])
        if whole and len(piece.shape) == 2:
            d_out, d_in = piece.shape
            a = torch.tensor(values[start : start + RANK * d_in]).view(RANK, d_in)
            b = torch.tensor(values[start + RANK * d_in : start + RANK * (d_in + d_out)]).view(d_out, RANK)
            expected[piece.name][rows] += b @ a
            start += RANK * (d_in + d_out)
        elif whole:
            expected[piece.name][rows] += torch.tensor(values[start : start + piece.size])
            start += piece.size
    whole_network = torch.cat([torch.zeros(p.size) for p in adapter.selection.choices])
    positions = adapter.selection.index[adapter.selection.index >= 0]
    whole_network[positions] = torch.tensor(values[start : start + len(positions)])
    for piece, part in zip(
        adapter.selection.choices, whole_network.split([p.size for p in adapter.selection.choices]), strict=True
    ):
        expected[piece.name][piece.first : piece.first + piece.shape[0]] += part.view(piece.shape)
    images = batches()[0][0]
    output = model(images)
    adapter.merge()
    assert torch.allclose(model(images), output, atol=1e-4)
    merged = dict(model.named_parameters())
    assert all(torch.allclose(value, merged[name], atol=1e-6) for name, value in expected.items())


@torch.no_grad()
def test_a_bottleneck_follows_its_layer() -> None:
    """y + U GELU(V y + c) + d; for proj the input takes the place of y."""
    adapter = tuned(SPTAdapter)[1]
    adapter.selection.index.fill_(-1)
    adapter.selection.whole.zero_()
    chosen = [i for i, p in enumerate(adapter.selection.choices) if p.module.startswith("blocks.0.attn")]
    weights = [i for i in chosen if len(adapter.selection.choices[i].shape) == 2]  # q, k, v, proj
    adapter.selection.whole[[weights[1], weights[3]]] = 1  # read again, as after loading a state
    size = module_size(WIDTH, WIDTH, RANK, True)
    x = torch.randn(2, 5, WIDTH)
    for index, name in enumerate(("attn.qkv", "attn.proj")):
        values = adapter.selection.values[index * size : (index + 1) * size]
        down, shift, up, last = values.split([RANK * WIDTH, RANK, RANK * WIDTH, WIDTH])
        layer = adapter.layers[f"blocks.0.{name}"]
        y = layer.base(x).clone()
        rows = slice(WIDTH, 2 * WIDTH) if name == "attn.qkv" else slice(None)
        source = y[..., rows] if name == "attn.qkv" else x
        y[..., rows] += F.gelu(source @ down.view(RANK, WIDTH).T + shift) @ up.view(WIDTH, RANK).T + last
        assert torch.allclose(layer(x), y, atol=1e-5)


@torch.no_grad()
def test_a_loaded_state_needs_no_pass() -> None:
    model, adapter = tuned(SPTLoRA)
    other = network()
    fresh = attach(other, SPTLoRA(budget=BUDGET, rank=RANK), 3)
    with pytest.raises(AttachError, match="attach with batches of training images"):
        fresh.before_step(0, 0.0)
    for name, value in fresh.state().items():
        value.copy_(adapter.state()[name])
    fresh.train(False)
    images = batches()[0][0]
    assert torch.equal(other(images), model(images))
    fresh.before_step(0, 0.0)


def test_no_images_and_impossible_budgets_are_refused() -> None:
    with pytest.raises(AttachError, match="got no images"):
        attach(network(), SPTLoRA(budget=BUDGET), 0, list)
    lab = catalog.backbone("lab_vit_12x128")
    with pytest.raises(ConfigError, match=r"budget is 3000000: .* at most 2359296"):
        SPTLoRA(budget=3_000_000).check(lab)


def test_a_selection_that_the_network_does_not_have_is_refused_when_it_is_loaded() -> None:
    _, adapter = tuned(SPTLoRA)
    index, whole = (adapter.state()[f"selection.{name}"] for name in ("index", "whole"))
    before = index.clone(), whole.clone()
    adapter.require_valid()
    for tensor, value in ((index, 10**9), (index, 5), (whole, 2), (whole, -1), (whole, 1)):
        tensor.fill_(value)
        with pytest.raises(ValueError, match=r"names weights that the network does not have|and the budget is 1,476"):
            adapter.require_valid()
        index.copy_(before[0])
        whole.copy_(before[1])
    adapter.require_valid()
