"""The cost of a plan, compared with counts over all masks and with the built model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget, expected_active, expert_parameters, step_cost
from mlae_lab.core.edits import with_modules
from mlae_lab.core.patterns import allocation, dense, lessons, pattern, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model.backbones import bundled_network
from mlae_lab.model.inject import inject

LAB = catalog.backbone("lab_vit_12x128")


@pytest.mark.parametrize(
    ("rank", "trained", "numbers"), [(1, True, 3073), (1, False, 3072), (2, True, 6145), (4, True, 12_289)]
)
def test_one_expert_on_the_qkv_of_vit_b16(rank: int, trained: bool, numbers: int) -> None:
    assert expert_parameters(replace(dense(), expert_rank=rank, train_coefficients=trained), 768, 2304) == numbers


@pytest.mark.parametrize(
    ("experts", "rank", "parameters"),
    [
        (1, 1, 36_876),
        (2, 1, 73_752),
        (4, 1, 147_504),
        (8, 1, 295_008),
        (16, 1, 590_016),
        (4, 2, 294_960),
        (2, 4, 294_936),
    ],
)
def test_parameters_of_twelve_blocks(experts: int, rank: int, parameters: int) -> None:
    plan = replace(dense(experts=experts), expert_rank=rank)
    assert budget(plan, dict.fromkeys(plan.targets, (768, 2304))).parameters == parameters


def test_each_row_counts_with_its_own_shape() -> None:
    plan = MaskPlan(((1, 1), (1, 0), (0, 0)), ((0, 0),) * 3, ("a", "b", "c"))
    assert budget(plan, {"a": (10, 20), "b": (3, 4)}).parameters == 2 * 31 + 8  # the empty row needs no shape


def test_a_target_without_a_shape_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"blocks\.1\.attn\.qkv"):
        budget(dense(layers=2), {"blocks.0.attn.qkv": (1, 1)})


def test_counts_of_a_step_equal_those_over_all_masks() -> None:
    """All 2^5 masks of a small plan, weighted by their probability."""
    plan = MaskPlan(((1, 1, 0), (1, 1, 1), (0, 0, 0)), ((0.5, 0.2, 0), (0.9, 0.9, 0.25), (0, 0, 0)), block_targets(3))
    cells = [(r, c) for r in range(3) for c in range(3) if plan.keep[r][c]]
    active, any_empty, row_empty = 0.0, 0.0, [0.0, 0.0, 0.0]
    for mask in product((False, True), repeat=len(cells)):
        probability = 1.0
        for is_active, (r, c) in zip(mask, cells, strict=True):
            probability *= (1 - plan.drop_rate[r][c]) if is_active else plan.drop_rate[r][c]
        counts = [sum(is_active for is_active, (r, _) in zip(mask, cells, strict=True) if r == row) for row in range(3)]
        active += probability * sum(counts)
        any_empty += probability * (counts[0] == 0 or counts[1] == 0)
        for row in range(3):
            row_empty[row] += probability * (counts[row] == 0)
    computed = budget(plan, dict.fromkeys(plan.targets, (1, 1)))
    assert computed.experts == 5
    assert computed.expected_active == expected_active(plan) == pytest.approx(active)
    assert computed.empty_probability == pytest.approx(row_empty)
    assert computed.any_empty_probability == pytest.approx(any_empty)


def test_about_half_of_all_steps_have_an_empty_layer_at_a_drop_rate_of_0_7() -> None:
    computed = budget(uniform(0.7), dict.fromkeys(dense().targets, (768, 2304)))
    assert computed.empty_probability == pytest.approx([0.7**8] * 12)
    assert computed.any_empty_probability == pytest.approx(1 - (1 - 0.7**8) ** 12)
    assert 0.45 < computed.any_empty_probability < 0.55


@pytest.mark.parametrize("plan", [dense(), pattern("incremental"), allocation((0, 0, 0)), allocation((0, 3))])
def test_a_plan_that_drops_nothing_is_never_empty_where_it_has_experts(plan: MaskPlan) -> None:
    computed = budget(plan, dict.fromkeys(plan.targets, (8, 8)))
    assert computed.any_empty_probability == 0
    assert computed.empty_probability == tuple(float(kept == 0) for kept in plan.kept)
    assert computed.expected_active == plan.experts


# ---------------------------------------------------------------- compared with the built model

BUILT = [
    dense(),
    pattern("incremental", "mixed"),
    replace(allocation((0,) * 7 + (3,) * 5), expert_rank=2),
    lessons()[0].plan,
    with_modules(pattern("hourglass"), LAB, LAB.modules),
    with_modules(allocation((0,) * 11 + (2,)), LAB, ("mlp.fc2",)),
    with_modules(allocation((0, 2) * 6), LAB, ("attn.proj", "mlp.fc1")),
    allocation((0,) * 12, columns=8),
]


def built(plan: MaskPlan) -> nn.Module:
    """The network with its experts; in double precision, where they are a separate branch."""
    model = bundled_network(10).double()
    for block in model.blocks:
        block.attn.fused_attn = False  # the counter does not see fused products
    experts = inject(model, plan)
    experts.sample()
    return model


@pytest.mark.parametrize("plan", BUILT, ids=range(len(BUILT)))
def test_parameters_are_those_of_the_built_model(plan: MaskPlan) -> None:
    trained = sum(p.numel() for p in built(plan).parameters() if p.requires_grad)
    assert budget(plan, LAB.shapes(plan.targets)).parameters == trained


@pytest.mark.parametrize("plan", BUILT, ids=range(len(BUILT)))
def test_the_cost_of_a_step_is_that_of_the_built_model(plan: MaskPlan) -> None:
    """Counted in the blocks of the network, forward and backward; 2 operations are one multiply-add."""
    model = built(plan).train()
    tokens = model.patch_embed(torch.zeros(2, 3, 48, 48).double())
    tokens = torch.cat([tokens, tokens[:, :1]], 1).detach()
    assert tokens.shape[1] == LAB.tokens
    with FlopCounterMode(display=False) as counter:
        out = model.blocks(tokens)
        if out.requires_grad:
            out.sum().backward()
    cost = step_cost(plan, LAB)
    assert cost is not None
    assert cost.total == counter.get_total_flops() / 2 / (2 * LAB.tokens)


def test_a_plan_without_experts_costs_one_forward_pass() -> None:
    cost = step_cost(allocation((0,) * 12, columns=8), LAB)
    assert cost is not None
    assert (cost.total, cost.cached) == (cost.forward, cost.forward)


def test_blocks_before_the_first_expert_are_cached() -> None:
    for block in range(12):
        cost = step_cost(allocation([0] * block + [1] * (12 - block)), LAB)
        assert cost is not None
        assert cost.cached * 12 == cost.forward * block


def test_the_drop_rate_does_not_change_the_cost() -> None:
    assert step_cost(uniform(0.9), LAB) == step_cost(dense(), LAB)


@pytest.mark.parametrize("name", ["swin_base_patch4_window7_224.ms_in22k", "mixer_b16_224.goog_in21k", "convnext_base"])
def test_other_architectures_have_no_step_cost(name: str) -> None:
    backbone = catalog.backbone(name)
    assert step_cost(allocation((1,) * len(backbone.default_targets)), backbone) is None
