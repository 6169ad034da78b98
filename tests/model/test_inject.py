"""inject, merge and remove on real networks: what changes, what does not, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlae_lab.core.budget import budget
from mlae_lab.core.patterns import allocation, dense, paper_patterns, pattern, random_counts, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.model.experts import MLAELinear
from mlae_lab.model.inject import Experts, InjectError, inject, merge, remove

Build = Callable[..., VisionTransformer]

SMALL_PLANS = {
    "dense": dense(3, 4),
    "uniform": uniform(0.5, 3, 4),
    "fixed": allocation((1, 0, 4)),
    "mixed": allocation((4, 1, 2), drop_rate=0.3),
    "rank 2": replace(uniform(0.5, 3, 2), expert_rank=2),
    "frozen": replace(uniform(0.5, 3, 2), train_coefficients=False, coefficient_init=0.25),
    "proj": MaskPlan(((1, 1),) * 3, ((0.5, 0.5),) * 3, block_targets(3, "attn.proj")),
    "fc1": MaskPlan(((1, 1),) * 3, ((0.5, 0.5),) * 3, block_targets(3, "mlp.fc1")),
    "mixture": MaskPlan(((1, 1),) * 3, ((0.5, 0),) * 3, ("blocks.0.mlp.fc2", "blocks.2.attn.qkv", "head")),
}


def images(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def state_bytes(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def randomise(experts: Experts, seed: int = 0) -> None:
    """Experts with random b and λ."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in experts.layers.values():
            for p in (layer.b, layer.coefficient):
                p.copy_(torch.randn(p.shape, generator=rng) * 0.5)


def train(model: nn.Module, experts: Experts, steps: int = 4) -> None:
    """Real steps of AdamW with weight decay on experts and head."""
    model.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    model.train()
    for step in range(steps):
        experts.sample()
        F.cross_entropy(model(images(8, step)), torch.arange(8) % 5).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


# ---------------------------------------------------------------- initial values


@pytest.mark.parametrize("plan", SMALL_PLANS.values(), ids=SMALL_PLANS)
def test_injected_network_equals_the_frozen_one_bit_for_bit(small_vit: Build, plan: MaskPlan) -> None:
    model = small_vit()
    before = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        before_16 = model(images())
    experts = inject(model, plan, seed=3)
    model.eval()
    assert torch.equal(model(images()), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images()), before_16)
    model.train()  # with any mask, as b is still 0
    experts.sample()
    assert torch.equal(model(images()), before)


@pytest.mark.parametrize("plan", SMALL_PLANS.values(), ids=SMALL_PLANS)
def test_injected_network_in_eval_mode_is_usable_at_once(small_vit: Build, plan: MaskPlan) -> None:
    """The output equals the frozen one at once, without another call of `eval()`."""
    model = small_vit()
    before = model(images())
    inject(model, plan)
    assert torch.equal(model(images()), before)


def test_inject_keeps_training_mode(small_vit: Build) -> None:
    model = small_vit().train()
    experts = inject(model, SMALL_PLANS["uniform"])
    assert all(module.training for module in model.modules())
    experts.sample()
    model(images())


def test_initial_values_follow_from_the_seed_and_not_from_the_global_seed(small_vit: Build) -> None:
    torch.manual_seed(1)
    first = inject(small_vit(), dense(3, 4), seed=5).layers
    torch.manual_seed(2)
    second = inject(small_vit(), allocation((2, 0, 3)), seed=5).layers
    third = inject(small_vit(), dense(3, 4), seed=6).layers
    name = "blocks.2.attn.qkv"
    assert torch.equal(first[name].a[:3], second[name].a)
    assert not torch.equal(first[name].a, third[name].a)


# ---------------------------------------------------------------- counts


def test_vit_b16_has_295008_parameters_under_every_pattern_of_the_paper() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=100)
    for result in paper_patterns():
        experts = inject(model, result.plan)
        assert sum(p.numel() for p in experts.parameters()) == 295_008
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 295_008
        remove(model)
    assert sum(p.numel() for p in model.head.parameters()) == 769 * 100
    assert sum(p.numel() for p in model.parameters()) - 76_900 == 85_798_656


@pytest.mark.parametrize("seed", range(4))
def test_masked_experts_do_not_exist(small_vit: Build, seed: int) -> None:
    """The parameters of the network are those of the kept experts, as the budget counts them without a network."""
    model = small_vit(12)
    frozen = sum(p.numel() for p in model.parameters())
    plan = replace(allocation(random_counts(seed)), expert_rank=1 + seed % 2)
    experts = inject(model, plan)
    cost = budget(plan, dict.fromkeys(plan.targets, (32, 96)))
    assert sum(p.numel() for p in experts.parameters()) == cost.parameters
    assert sum(p.numel() for p in model.parameters()) == frozen + cost.parameters
    for row, target in enumerate(plan.targets):
        assert experts.layers[target].columns == tuple(range(plan.kept[row]))


def test_row_without_experts_leaves_its_layer_unchanged(small_vit: Build) -> None:
    model = small_vit()
    experts = inject(model, allocation((1, 0, 2)))
    assert list(experts.layers) == ["blocks.0.attn.qkv", "blocks.2.attn.qkv"]
    assert type(model.blocks[1].attn.qkv) is nn.Linear
    assert experts.sample().shape == (3, 2)


def test_a_plan_without_any_expert_is_a_frozen_network(small_vit: Build) -> None:
    model = small_vit()
    before = state_bytes(model)
    experts = inject(model, allocation((0, 0, 0)))
    assert experts.layers == {}
    assert experts.parameters() == []
    assert state_bytes(model) == before
    experts.sample()


def test_frozen_coefficients_are_not_among_the_parameters(small_vit: Build) -> None:
    model = small_vit()
    experts = inject(model, SMALL_PLANS["frozen"])
    assert len(experts.parameters()) == 6
    assert all(not layer.coefficient.requires_grad for layer in experts.layers.values())
    train(model, experts)
    assert all(bool((layer.coefficient == 0.25).all()) for layer in experts.layers.values())


# ---------------------------------------------------------------- exact names


def test_block_1_is_not_block_10_or_11(small_vit: Build) -> None:
    model = small_vit(12)
    plan = MaskPlan(((1, 1),), ((0, 0),), ("blocks.1.attn.qkv",))
    inject(model, plan)
    changed = [name for name, module in model.named_modules() if isinstance(module, MLAELinear)]
    assert changed == ["blocks.1.attn.qkv"]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"blocks.1.attn.qkv.{part}" for part in ("a", "b", "coefficient")}


@pytest.mark.parametrize("target", ["1.0", "2", "1.2.proj"])
def test_plain_networks_of_any_nesting(target: str) -> None:
    inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.ModuleDict({"proj": nn.Linear(8, 8)}))
    inner[2].forward = inner[2]["proj"].forward
    model = nn.Sequential(nn.Linear(4, 8), inner, nn.Linear(8, 3)).eval()
    if target == "1.2.proj":  # a ModuleDict has no forward, so it is reached only by name
        experts = inject(model, MaskPlan(((1,),), ((0,),), (target,)))
        assert isinstance(model.get_submodule(target), MLAELinear)
        assert list(experts.layers) == [target]
        return
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before = model(x)
    experts = inject(model, MaskPlan(((1, 1),), ((0.5, 0),), (target,)))
    randomise(experts)
    model.eval()
    assert isinstance(model.get_submodule(target), MLAELinear)
    after = model(x)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(merge(model)(x), after, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- frozen weights


@pytest.mark.parametrize("plan", SMALL_PLANS.values(), ids=SMALL_PLANS)
def test_frozen_weights_do_not_change_by_a_byte_in_training(small_vit: Build, plan: MaskPlan) -> None:
    model = small_vit()
    before = state_bytes(model)
    experts = inject(model, plan)
    moved = [layer.b.detach().clone() for layer in experts.layers.values()]
    train(model, experts)
    assert all(not torch.equal(layer.b, b) for layer, b in zip(experts.layers.values(), moved, strict=True))
    after = state_bytes(remove(model))
    assert list(after) == list(before)
    assert {name for name in after if after[name] != before[name]} <= {"head.weight", "head.bias"}
    if "head" not in plan.targets:
        assert after["head.weight"] != before["head.weight"]


def test_only_active_experts_have_gradients_in_a_step(small_vit: Build) -> None:
    model = small_vit()
    experts = inject(model, uniform(0.6, 3, 8), seed=2)
    randomise(experts)
    model.train()
    seen = set()
    for step in range(5):
        sampled = experts.sample()
        F.cross_entropy(model(images(8, step)), torch.arange(8) % 5).backward()
        for row, layer in enumerate(experts.layers.values()):
            for column in range(8):
                parts = (layer.a.grad[column], layer.b.grad[:, column], layer.coefficient.grad[column])
                if sampled[row, column] == 0:
                    assert all(bool((part == 0).all()) for part in parts)
                else:
                    assert all(bool((part != 0).any()) for part in parts)
                seen.add(bool(sampled[row, column]))
            layer.zero_grad()
    assert seen == {True, False}


# ---------------------------------------------------------------- merge and remove


@pytest.mark.parametrize("plan", SMALL_PLANS.values(), ids=SMALL_PLANS)
def test_merged_equals_unmerged(small_vit: Build, plan: MaskPlan) -> None:
    model = small_vit()
    names = list(model.state_dict())
    before = model(images())
    experts = inject(model, plan)
    randomise(experts)
    model.eval()
    unmerged = model(images())
    merged = merge(model)
    assert merged is model
    assert not any(isinstance(module, MLAELinear) for module in model.modules())
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(images()), unmerged, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(unmerged, before, rtol=1e-3, atol=1e-3)


def test_merge_adds_the_unscaled_sum_independent_of_the_last_mask(small_vit: Build) -> None:
    first, second = small_vit(), small_vit()
    for model, steps in ((first, 0), (second, 3)):
        experts = inject(model, uniform(0.9, 3, 4))
        randomise(experts)
        model.train()
        for _ in range(steps):
            experts.sample()
        merge(model)
    assert state_bytes(first) == state_bytes(second)


@pytest.mark.parametrize("plan", SMALL_PLANS.values(), ids=SMALL_PLANS)
def test_remove_restores_the_network_exactly(small_vit: Build, plan: MaskPlan) -> None:
    model = small_vit()
    before, output = state_bytes(model), model(images())
    experts = inject(model, plan)
    randomise(experts)
    model.eval()
    model(images())
    assert remove(model) is model
    assert state_bytes(model) == before
    assert torch.equal(model(images()), output)
    assert not any(isinstance(module, MLAELinear) for module in model.modules())


def test_train_and_eval_change_the_mode_and_nothing_else(small_vit: Build) -> None:
    model = small_vit()
    experts = inject(model, SMALL_PLANS["uniform"])
    randomise(experts)
    before = state_bytes(model)
    assert model.train() is model
    assert model.eval() is model
    assert state_bytes(model) == before
    assert all(isinstance(model.get_submodule(name), MLAELinear) for name in experts.layers)


def test_merge_and_remove_of_a_network_without_experts_do_nothing(small_vit: Build) -> None:
    model = small_vit()
    before = state_bytes(model)
    assert state_bytes(merge(model)) == before == state_bytes(remove(model))


def test_experts_can_be_injected_again_after_merge_and_remove(small_vit: Build) -> None:
    model = small_vit()
    for take_out in (merge, remove):
        inject(model, dense(3, 2))
        take_out(model)
    assert list(inject(model, dense(3, 2)).layers) == list(block_targets(3))


def test_a_copy_of_an_adapted_network_is_independent(small_vit: Build) -> None:
    model = small_vit()
    inject(model, dense(3, 2))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.blocks[0].attn.qkv.b.fill_(1.0)
    assert bool((model.blocks[0].attn.qkv.b == 0).all())


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("blocks.3.attn.qkv", ["'blocks.3.attn.qkv' is not a linear layer", "it has 3 such as blocks.0.attn.qkv"]),
        ("blocks.0", ["'blocks.0' is not a linear layer"]),
        ("qkv", ["'qkv' is not a linear layer", "blocks.2.attn.qkv"]),
        ("norm", ["'norm' is not a linear layer"]),
        ("patch_embed.proj", ["'patch_embed.proj' is not a linear layer", "blocks.0.attn.proj"]),
        ("blocks.1.attn.qk", ["it has 13 such as blocks.0.attn.qkv … head"]),
    ],
)
def test_a_wrong_target_is_refused_and_the_network_unchanged(small_vit: Build, target: str, words: list[str]) -> None:
    model = small_vit()
    model.head.requires_grad_(True)
    before, output = state_bytes(model), model(images())
    modules, learning = list(model.modules()), [p.requires_grad for p in model.parameters()]
    plan = MaskPlan(((1,), (1,)), ((0,), (0,)), ("blocks.0.attn.qkv", target))  # the first row alone would fit
    with pytest.raises(InjectError) as error:
        inject(model, plan)
    for word in words:
        assert word in str(error.value)
    assert state_bytes(model) == before
    assert list(model.modules()) == modules
    assert [p.requires_grad for p in model.parameters()] == learning
    assert torch.equal(model(images()), output)


def test_a_second_injection_is_refused(small_vit: Build) -> None:
    model = small_vit()
    inject(model, dense(3, 2))
    before = state_bytes(model)
    with pytest.raises(InjectError, match="already has experts: remove or merge them first"):
        inject(model, pattern("uniform"))
    assert state_bytes(model) == before


def test_a_network_without_linear_layers_says_so() -> None:
    with pytest.raises(InjectError, match="it has none"):
        inject(nn.Sequential(nn.ReLU()), MaskPlan(((1,),), ((0,),), ("0",)))
