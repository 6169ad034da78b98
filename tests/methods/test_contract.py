"""What holds for every method: counts, start, gradients, freezing, adapter file, resumption, merging, learning.

A method joins by its line in `BUILT_IN`, and by an entry in `CASES` where its settings or its counts need one.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Statistics
from mlae_lab.core.method import BUILT_IN, Method, Trait, method, with_texts
from mlae_lab.core.patterns import dense, fitted, uniform
from mlae_lab.core.settings import ConfigError, settings_of
from mlae_lab.data import dsprites
from mlae_lab.methods.adapter import Adapter, NotMergeable, attach
from mlae_lab.methods.mlae import MLAE
from mlae_lab.model.adapter_file import load_adapter, read_adapter, save_adapter
from mlae_lab.model.backbones import build

VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")
LAB = "lab_vit_12x128"
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """What is particular to a method.

    Attributes:
        settings: As `--set` gives them.
        counts: Settings to the published number of parameters on ViT-B/16, without the head (facts of the paper's
            tables and of the authors' code).
        moves: How far the output of the untrained network may be from the frozen one's, relative to its norm; for
            methods that do not start as the identity.
        still: Tensors that get no gradient within two steps, for a stated reason.
        fast: Settings in place of `settings` with which it learns within sixteen steps.
        rate: Learning rate of these steps.
        margin: The loss after them is below so many times that of the linear probe.
        blocks: Of the network that is trained: the fewest that have a first, a last and one between them.
    """

    settings: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = field(default_factory=dict)
    moves: float = 0.0
    still: tuple[str, ...] = ()
    fast: tuple[str, ...] | None = None
    rate: float = 1e-2
    margin: float = 0.9
    blocks: int = 3


CASES: dict[str, Case] = {
    "mlae": Case(counts={(): 295_008}),
    "linear": Case(counts={(): 0}),
    "ssf": Case(counts={(): 205_824}, moves=0.6),
    "vpt_shallow": Case(counts={("prompts=1",): 768, ("prompts=100",): 76_800}, moves=1.2),
    "vpt_deep": Case(counts={("prompts=1",): 9_216, ("prompts=10",): 92_160}, moves=1.5),
    "adapter": Case(
        counts={
            (): 156_768,
            ("bottleneck=64",): 1_189_632,
            ("place=houlsby",): 313_536,
            ("bottleneck=12", "initialisation=zero_up", "activation=gelu", "dropout=0"): 230_544,
        },
        moves=0.4,
    ),
    "adapter_plus": Case(counts={(): 165_984, ("bottleneck=16",): 313_536}, moves=0.02),
    "adaptformer": Case(counts={(): 156_768, ("bottleneck=64",): 1_189_632}),
    "repadapter": Case(counts={(): 239_808, ("place=attention",): 119_904}),
    "convpass": Case(counts={(): 327_552, ("place=attention",): 163_776}),  # the paper rounds the first to 0.33M
    "fact_tt": Case(counts={("rank=4",): 8_448, ("rank=8",): 21_504, (): 61_440}),
    "fact_tk": Case(counts={("rank=8",): 13_952, ("rank=16",): 30_976, (): 86_528}),
    # Each step trains one of 432 paths of each layer: some tensors are in none of three steps' (test_glora.py has the
    # check that all learn), and after sixteen steps it is little further than the head.
    "glora": Case(
        counts={(): 1_603_776, ("rank=2",): 884_832, ("rank=8",): 3_041_664}, still=("blocks.",), rate=3e-3, margin=1.0
    ),
    "mola": Case(settings=("balance=0.1", "dropout=0.1"), counts={(): 1_520_640}, rate=3e-3),
    # What is chosen depends on the images; the budget is the bound, and the number of stored values.
    "spt_lora": Case(settings=("budget=30000",), counts={(): 400_000, ("budget=1000000",): 1_000_000}),
    "spt_adapter": Case(settings=("budget=30000",), counts={(): 400_000}),
    "noah": Case(
        settings=("subnet=cifar100",),
        counts={("prompt=0", "lora=0", "adapter=8"): 156_768, ("prompt=0", "lora=8", "adapter=0"): 294_912},
        moves=0.6,
        fast=(),
        blocks=12,  # those of the published sub-networks
    ),
    "full": Case(counts={(): 85_798_656}, rate=1e-3),
    "bitfit": Case(counts={(): 102_912}),
    "lora": Case(
        settings=("dropout=0.1",),
        counts={
            (): 294_912,
            ("targets=q+v",): 294_912,
            ("targets=q+k+v",): 442_368,
            ("targets=all",): 1_179_648,
        },
    ),
    "dora": Case(settings=("dropout=0.1",), counts={(): 322_560}),
    # λ starts at 0 and its factors at 0.02: with α/r = 1 the update stays small for some hundred steps.
    "adalora": Case(counts={(): 442_512}, fast=("alpha=240",)),
    "increlora": Case(counts={(): 590_016}, moves=1e-4, fast=("alpha=80",)),
    "layerwise": Case(
        settings=("pattern=incremental",),
        counts={("pattern=incremental",): 294_912, ("expert_rank=8",): 1_520_640 - 60 * 768},  # without MoLA's router
    ),
}


def described(name: str, blocks: int = 12) -> Method:
    if name != "mlae":
        return with_texts(method(name), CASES[name].settings)
    return MLAE(fitted(uniform(0.5), [f"blocks.{block}.attn.qkv" for block in range(blocks)]))


@pytest.fixture(params=BUILT_IN)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def network(blocks: int = 12) -> nn.Module:
    """The first blocks of the bundled network, with a head that is not zero."""
    return copy.deepcopy(_built(blocks))


@cache
def _built(blocks: int) -> nn.Module:
    model = build(LAB, CLASSES, seed=3).eval()
    model.blocks = model.get_submodule("blocks")[:blocks]  # pyright: ignore[reportIndexIssue] - nn.Sequential
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    nn.init.normal_(head.weight, std=0.1, generator=torch.Generator().manual_seed(4))
    return model


def images(number: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images(4, i), torch.arange(4) % CLASSES) for i in range(2)]


def attached(name: str, seed: int = 0, blocks: int = 0) -> tuple[nn.Module, Adapter]:
    """A network and a method on it. blocks: of the network; 0: those of its case."""
    blocks = blocks or CASES[name].blocks
    model = network(blocks)
    adapter = attach(model, described(name, blocks), seed, batches)
    model.get_submodule("head").requires_grad_(True)
    return model, adapter


def train(model: nn.Module, adapter: Adapter, steps: range, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Training steps on random images and labels, as the trainer makes them."""
    head = dict(model.get_submodule("head").named_parameters(prefix="head"))
    learned = head | adapter.parameters()
    optimizer = optimizer or torch.optim.AdamW(learned.values(), lr=1e-2)
    adapter.train(True)
    for step in steps:
        adapter.before_step(step, step / 10)
        loss = F.cross_entropy(model(images(4, step)), torch.arange(4))
        penalty = adapter.penalty()
        (loss if penalty is None else loss + penalty).backward()
        adapter.after_backward(step, step / 10)
        optimizer.step()
        optimizer.zero_grad()
        adapter.after_step(step, step / 10)
    adapter.train(False)


# ---------------------------------------------------------------- description


def test_descriptions_need_no_torch() -> None:
    code = (
        "import sys; from mlae_lab.core.method import names, method\n"
        "for name in names(): method(name)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_description_is_complete(name: str) -> None:
    described = method(name)
    assert described.name == name
    assert all([described.title, described.reference, described.formula])
    assert described.summary.endswith(".")
    assert all(recipe.source and recipe.values for recipe in described.recipes.values())


def test_recipes_hold_legal_settings_of_a_run_or_of_the_method(name: str) -> None:
    known = {entry.name: entry for entry in (*settings_of(RunConfig), *settings_of(method(name)))}
    for recipe in method(name).recipes.values():
        assert all(known[key].check(value) == value for key, value in recipe.values.items())


def test_parameters_as_published(name: str) -> None:
    for settings, count in CASES[name].counts.items():
        assert with_texts(method(name), settings).parameters(VIT_B16) == count


def test_parameters_are_those_of_the_network(name: str) -> None:
    adapter = attached(name, blocks=12)[1]
    assert sum(p.numel() for p in adapter.parameters().values()) == described(name).parameters(catalog.backbone(LAB))


def test_a_backbone_that_does_not_fit_is_refused(name: str) -> None:
    mixer = catalog.backbone("mixer_b16_224")
    if name not in ("mlae", "linear", "full", "bitfit"):
        with pytest.raises(ConfigError, match=r"backbone is 'mixer_b16_224.*choose a ViT"):
            described(name).check(mixer)


# ---------------------------------------------------------------- the untrained network


@torch.no_grad()
def test_the_start(name: str) -> None:
    frozen, (model, adapter) = network(CASES[name].blocks), attached(name)
    adapter.train(False)
    expected, output = frozen(images()), model(images())
    if Trait.IDENTITY_AT_INIT in method(name).traits:
        assert torch.equal(output, expected)
    else:
        distance = float((output - expected).norm() / expected.norm())
        assert 0 < distance <= CASES[name].moves


def test_equal_seeds_start_equally(name: str) -> None:
    (_, a), (_, b), (_, other) = attached(name, 1), attached(name, 1), attached(name, 2)
    assert all(torch.equal(value, b.state()[key]) for key, value in a.state().items())
    drawn = [key for key, value in a.state().items() if value.float().std(correction=0) > 0]
    if drawn and described(name).parameters(catalog.backbone(LAB)):
        assert any(not torch.equal(a.state()[key], other.state()[key]) for key in drawn) or name in ("full", "bitfit")


# ---------------------------------------------------------------- training


def test_every_tensor_learns_and_the_rest_is_frozen(name: str) -> None:
    model, adapter = attached(name)
    learned = adapter.parameters()
    trained = {id(p) for p in learned.values()} | {id(p) for p in model.get_submodule("head").parameters()}
    frozen = {key: p.clone() for key, p in model.named_parameters() if id(p) not in trained}
    before = {key: p.detach().clone() for key, p in learned.items()}
    assert all(not p.requires_grad for p in model.parameters() if id(p) not in trained)
    train(model, adapter, range(3))
    same = [key for key, p in learned.items() if torch.equal(p, before[key])]
    assert [key for key in same if not any(part in key for part in CASES[name].still)] == []
    parameters = dict(model.named_parameters())
    assert [key for key, value in frozen.items() if not torch.equal(parameters[key], value)] == []


def test_what_is_sampled_is_sampled_in_training_only(name: str) -> None:
    model, adapter = attached(name)
    train(model, adapter, range(2))
    with torch.no_grad():
        assert torch.equal(model(images()), model(images()))
        adapter.train(True)
        adapter.before_step(5, 0.5)
        first = model(images())
        adapter.train(False)
        assert torch.isfinite(first).all()


def test_killed_and_resumed_is_uninterrupted(name: str) -> None:
    """State, optimizer and `running` after step 2 are enough: the rest gives the same numbers, bit for bit."""

    def learned(model: nn.Module, adapter: Adapter) -> dict[str, nn.Parameter]:
        return dict(model.get_submodule("head").named_parameters(prefix="head")) | adapter.parameters()

    whole, adapter = attached(name)
    optimizer = torch.optim.AdamW(learned(whole, adapter).values(), lr=1e-2)
    train(whole, adapter, range(2), optimizer)
    state = {k: v.detach().clone() for k, v in (learned(whole, adapter) | adapter.state()).items()}
    running = {k: v.clone() for k, v in adapter.running().items()}
    moments = {k: {n: v.clone() for n, v in optimizer.state[p].items()} for k, p in learned(whole, adapter).items()}
    train(whole, adapter, range(2, 4), optimizer)

    resumed, second = attached(name)
    with torch.no_grad():
        for key, value in (learned(resumed, second) | second.state()).items():
            value.copy_(state[key])
    second.restore(running)
    again = torch.optim.AdamW(learned(resumed, second).values(), lr=1e-2)
    for key, parameter in learned(resumed, second).items():
        again.state[parameter] = moments[key]
    train(resumed, second, range(2, 4), again)
    for key, value in (learned(whole, adapter) | adapter.state()).items():
        assert torch.equal(value, (learned(resumed, second) | second.state())[key]), key


SHORT_BLOCKS, SHORT_STEPS = 2, 16


@cache
def sprites() -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen images of dSprites and how far their shapes are rotated, which frozen features hardly say."""
    levels = dsprites.factors(np.random.default_rng(0).choice(dsprites.GRID_SIZE, size=16, replace=False))
    pixels = torch.from_numpy(dsprites.render(levels)).float()[:, None] * 2 - 1
    labels = torch.from_numpy(np.asarray(dsprites.orientation_label(levels))).long()
    return F.interpolate(pixels, (48, 48), mode="area").expand(-1, 3, -1, -1).contiguous(), labels


@cache
def short_network() -> nn.Module:
    """The first blocks of the bundled network."""
    model = build(LAB, 16, seed=3).eval()
    model.blocks = model.get_submodule("blocks")[:SHORT_BLOCKS]  # pyright: ignore[reportIndexIssue] - nn.Sequential
    return model


@cache
def loss_after(name: str, rate: float) -> float:
    """Cross-entropy on `sprites` after some steps on all of them, from one start of network and head.

    MLAE without dropped experts, which would need more steps.
    """
    model, (pixels, labels) = copy.deepcopy(short_network()), sprites()
    targets = [f"blocks.{block}.attn.qkv" for block in range(SHORT_BLOCKS)]
    settings = CASES[name].settings if (fast := CASES[name].fast) is None else fast
    tuning = MLAE(fitted(dense(), targets)) if name == "mlae" else with_texts(method(name), settings)
    adapter = attach(model, tuning, 0, lambda: [(pixels, labels)])
    head = model.get_submodule("head").requires_grad_(True)
    learned = dict(head.named_parameters(prefix="head")) | adapter.parameters()
    optimizer = torch.optim.AdamW(learned.values(), lr=rate, weight_decay=0.0)
    adapter.train(True)
    for step in range(SHORT_STEPS):
        progress = step / SHORT_STEPS
        adapter.before_step(step, progress)
        loss, penalty = F.cross_entropy(model(pixels), labels), adapter.penalty()
        (loss if penalty is None else loss + penalty).backward()
        adapter.after_backward(step, progress)
        optimizer.step()
        optimizer.zero_grad()
        adapter.after_step(step, progress)
    adapter.train(False)
    with torch.no_grad():
        return float(F.cross_entropy(model(pixels), labels))


def test_it_learns_more_than_the_linear_probe(name: str) -> None:
    if name != "linear":
        case = CASES[name]
        assert loss_after(name, case.rate) < case.margin * loss_after("linear", case.rate)


def test_the_grids_of_a_method_fit_what_it_records(name: str) -> None:
    settings = CASES[name].settings if (fast := CASES[name].fast) is None else fast
    if name == "mlae":
        return  # its grids are those of its plan, in other events
    model, (pixels, labels) = copy.deepcopy(short_network()), sprites()
    adapter = attach(model, with_texts(method(name), settings), 0, lambda: [(pixels, labels)])
    adapter.train(True)
    adapter.before_step(0, 0.0)
    model(pixels)  # the shares of a router are those of a step
    recorded, grids = adapter.statistics(), adapter.grids()
    assert bool(grids) == (Trait.PER_LAYER_GRID in method(name).traits)
    values = {key: value for key, (_, value) in recorded.items()}
    labels = {key: (title, "") for key, (title, _) in recorded.items()}
    Statistics(1, 1, values, labels, grids).require_valid(None, None)
    assert set(grids) <= set(values)


# ---------------------------------------------------------------- afterwards


def test_save_and_load_give_the_same_output(name: str, tmp_path: Path) -> None:
    model, adapter = attached(name)
    train(model, adapter, range(3))
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    settings = described(name).texts() if name != "mlae" else ()
    save_adapter(tmp_path / "a", adapter, head, LAB, "digits", method=name, settings=settings)
    read = read_adapter(tmp_path / "a")
    assert (read.method, read.settings) == (name, settings)
    other, fresh = attached(name, seed=5)
    other_head = other.get_submodule("head")
    assert isinstance(other_head, nn.Linear)
    load_adapter(read, fresh, other_head)
    fresh.train(False)
    with torch.no_grad():
        assert torch.equal(other(images()), model(images()))


@torch.no_grad()
def test_merged_equals_unmerged_or_is_refused(name: str) -> None:
    model, adapter = attached(name)
    with torch.enable_grad():
        train(model, adapter, range(3))
    expected, modules = model(images()), {key: type(m) for key, m in network(CASES[name].blocks).named_modules()}
    if Trait.MERGEABLE in method(name).traits:
        adapter.merge()
        assert {key: type(m) for key, m in model.named_modules()} == modules
        assert torch.allclose(model(images()), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    else:
        with pytest.raises(NotMergeable, match="keep it as an adapter"):
            adapter.merge()


@torch.no_grad()
def test_removed_is_the_frozen_network(name: str) -> None:
    model, adapter = attached(name)
    adapter.train(False)
    adapter.remove()
    assert {key: type(m) for key, m in model.named_modules()} == {
        key: type(m) for key, m in network(CASES[name].blocks).named_modules()
    }
    assert torch.equal(model(images()), network(CASES[name].blocks)(images()))


def test_half_precision(name: str) -> None:
    """Autocast in bfloat16, as on a GPU: the output is finite and has the dtype of the frozen network's."""
    model, adapter = attached(name)
    adapter.train(True)
    adapter.before_step(0, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images())
    F.cross_entropy(output.float(), torch.arange(4)).backward()
    assert all(torch.isfinite(p.grad).all() for p in adapter.parameters().values() if p.grad is not None)
