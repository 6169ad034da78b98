"""What-if: every outcome equals a full pass through a network with these experts."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer

from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.expert_state import Factors, all_on, existing, kept_plan, scaled, with_cells
from mlae_lab.core.patterns import allocation, uniform
from mlae_lab.core.plan import MaskPlan, first_block
from mlae_lab.model.experts import factored
from mlae_lab.model.frozen_prefix import depth, split
from mlae_lab.model.inject import Experts, inject
from tests.analysis.conftest import full_pass

PLAN = allocation((0, 3, 2, 0, 4), drop_rate=0.3)


def what_if(model, experts: Experts, x: torch.Tensor, labels: torch.Tensor, **more) -> WhatIf:
    before, _ = split(model, first_block(experts.plan, depth(model)))
    chunk = more.setdefault("chunk", 4)
    with torch.no_grad():
        return WhatIf(model, experts, torch.cat([before(part) for part in x.split(chunk)]), labels, **more)


@torch.no_grad()
def by_hand(model, experts: Experts, x: torch.Tensor, factors: Factors, chunk: int = 4) -> torch.Tensor:
    """Logits with λ f written into the layers, in the same chunks; λ is restored."""
    kept = {target: layer.coefficient.clone() for target, layer in experts.layers.items()}
    for target, row in zip(experts.plan.targets, factors, strict=True):
        if target in experts.layers:
            experts.layers[target].coefficient.mul_(torch.tensor([v for v in row if v is not None]))
    logits = torch.cat([model(part) for part in x.split(chunk)])
    for target, layer in experts.layers.items():
        layer.coefficient.copy_(kept[target])
    return logits


def states(plan: MaskPlan) -> list[Factors]:
    """A sequence of many states: single cells, whole layers, scales, back and forth."""
    on, rng = all_on(plan), torch.Generator().manual_seed(0)
    walk = [with_cells(on, [cell], 0.0) for cell in existing(plan)]
    walk += [with_cells(on, [(row, c) for c in range(plan.columns)], 0.0) for row in range(plan.rows)]
    walk += [on, scaled(on, 0.5), scaled(on, 0.0), scaled(on, -1.25)]
    for _ in range(12):
        walk.append(with_cells(walk[-1], [existing(plan)[int(torch.randint(plan.experts, (), generator=rng))]], 0.0))
        walk.append(with_cells(on, [c for c in existing(plan) if torch.rand((), generator=rng) < 0.5], 0.25))
    return walk


@pytest.mark.parametrize("kept", [2**30, 60_000, 0])
def test_every_state_equals_the_full_pass_bit_for_bit(adapted: Callable, images: Callable, kept: int) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(10)
    whatif = what_if(model, experts, x, labels, kept=kept)
    for factors in states(PLAN):
        expected = by_hand(model, experts, x, factors)
        assert torch.equal(whatif.try_out(factors).logits, expected)
        assert torch.equal(whatif.outcome(factors).logits, expected)
        assert torch.equal(full_pass(whatif, factors).logits, expected)
    places = sum(e is not None for e in whatif._trained.entering[1:])
    assert places == {2**30: 4, 60_000: 1, 0: 0}[kept]  # the inputs of blocks 3 to 5 and of the head: 22 kB each


def test_bfloat16_is_as_exact(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(6)
    whatif = what_if(model, experts, x, labels, compute=lambda: torch.autocast("cpu", torch.bfloat16))
    for factors in states(PLAN)[::5]:
        assert torch.equal(whatif.outcome(factors).logits, full_pass(whatif, factors).logits)


def test_expert_off_equals_no_expert(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(7)
    factors = with_cells(all_on(PLAN), [(1, 0), (4, 0), (4, 1), (4, 2), (4, 3)], 0.0)
    small, fewer = adapted(kept_plan(PLAN, factors))
    for target, layer in fewer.layers.items():
        full = experts.layers[target]
        own = [full.columns.index(c) for c in layer.columns]
        with torch.no_grad():
            layer.a.copy_(full.a[own])
            layer.b.copy_(full.b[:, own])
            layer.coefficient.copy_(full.coefficient[own])
    assert set(fewer.layers) == {"blocks.1.attn.qkv", "blocks.2.attn.qkv"}
    with torch.no_grad():
        assert torch.allclose(what_if(model, experts, x, labels).outcome(factors).logits, small(x), atol=1e-5)


def test_reset_gives_the_first_outcome_and_the_model_is_unchanged(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whatif = what_if(model, experts, x, labels)
    first = whatif.trained
    with torch.no_grad():
        assert torch.equal(first.logits, torch.cat([model(part) for part in x.split(4)]))
    for factors in states(PLAN):
        whatif.outcome(factors)
    assert torch.equal(whatif.outcome(all_on(PLAN)).logits, first.logits)
    assert (whatif.trained.accuracy, whatif.trained.loss) == (first.accuracy, first.loss)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(layer.mask is None and not layer.training for layer in experts.layers.values())


def test_only_blocks_after_the_change_are_computed(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    whatif = what_if(model, experts, *images(8))
    computed: list[int] = []
    for number, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda module, inputs, number=number: computed.append(number))

    def blocks(act: Callable) -> list[int]:
        computed.clear()
        act()
        return sorted(set(computed))

    on = all_on(PLAN)
    assert blocks(lambda: whatif.outcome(on)) == [1, 2, 3, 4]  # block 0 has no expert
    assert blocks(lambda: whatif.outcome(with_cells(on, [(4, 0)], 0.0))) == [4]
    assert blocks(lambda: whatif.outcome(on)) == []
    assert blocks(lambda: whatif.outcome(with_cells(on, [(4, 0), (2, 0)], 0.0))) == [2, 3, 4]
    assert blocks(lambda: whatif.outcome(with_cells(on, [(4, 1), (2, 0)], 0.0))) == [
        4
    ]  # from the last state, not from the trained one
    assert blocks(lambda: whatif.outcome(with_cells(on, [(4, 2)], 0.0))) == [4]
    assert blocks(lambda: whatif.outcome(with_cells(on, [(1, 0)], 0.0))) == [1, 2, 3, 4]


def test_threads_do_not_affect_each_other(adapted: Callable, images: Callable) -> None:
    """Two threads evaluate states while another one uses the same network directly."""
    model, experts = adapted(PLAN)
    x, labels = images(8)
    whatif = what_if(model, experts, x, labels)
    walk = states(PLAN)[:20]
    expected = [by_hand(model, experts, x, factors) for factors in walk]
    with torch.no_grad():
        plain = model(x)
    mismatches: list[str] = []

    def evaluate(order: list[int]) -> None:
        mismatches.extend("state" for i in order if not torch.equal(whatif.outcome(walk[i]).logits, expected[i]))

    def use() -> None:
        with torch.no_grad():
            mismatches.extend("plain" for _ in range(40) if not torch.equal(model(x), plain))

    threads = [
        threading.Thread(target=act)
        for act in (lambda: evaluate(list(range(20))), lambda: evaluate(list(range(19, -1, -1))), use)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mismatches == []


def test_outcomes_are_correct_after_a_failed_pass(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(8)
    whatif = what_if(model, experts, x, labels)
    off = with_cells(all_on(PLAN), [(2, 0)], 0.0)
    whatif.outcome(with_cells(off, [(1, 0)], 0.0))

    def fail(module, inputs):
        raise RuntimeError("out of memory")

    hook = model.blocks[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        whatif.outcome(off)
    hook.remove()
    assert torch.equal(whatif.outcome(off).logits, by_hand(model, experts, x, off))
    assert torch.equal(whatif.trained.logits, by_hand(model, experts, x, all_on(PLAN)))


def test_numbers_equal_their_definitions(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    x, labels = images(30)
    labels = labels.clamp(max=3)  # class 5 has no images
    result = what_if(model, experts, x, labels).trained
    right = [int(row.argmax()) == int(y) for row, y in zip(result.logits, labels, strict=True)]
    assert result.accuracy == 100 * sum(right) / 30
    assert result.loss == pytest.approx(float(F.cross_entropy(result.logits, labels)), rel=1e-5)
    for c in range(4):
        hits = [r for r, y in zip(right, labels, strict=True) if y == c]
        assert result.class_accuracy()[c] == 100 * sum(hits) / len(hits)
    assert result.class_accuracy()[4] is None
    assert result.confidence[3] == pytest.approx(float(result.logits[3].softmax(0).max()))


def test_evaluation_stops_at_the_maximum_loss(adapted: Callable, images: Callable) -> None:
    model, experts = adapted(PLAN)
    whatif = what_if(model, experts, *images(12))
    off = with_cells(all_on(PLAN), [(4, 0)], 0.0)
    exact = whatif.try_out(off).loss_sum
    assert whatif.try_out(off, most=exact).loss_sum == exact
    assert whatif.try_out(off, most=exact * 0.999) is None


@pytest.mark.parametrize("cut", [False, True])
def test_other_architectures_are_as_exact(cut: bool) -> None:
    """Swin cannot be split and needs a full pass each time; a Mixer is split like a transformer."""
    torch.manual_seed(0)
    if cut:
        model = MlpMixer(num_classes=3, img_size=64, patch_size=32, num_blocks=3, embed_dim=32)
    else:
        shape = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}
        model = SwinTransformer(64, num_classes=3, **shape)
    model.eval()
    names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.endswith("fc1")]
    plan = MaskPlan(((True, True),) * len(names), ((0.0, 0.0),) * len(names), tuple(names))
    experts = inject(model, plan)
    for layer in experts.layers.values():
        torch.nn.init.normal_(layer.b)
    model.eval()
    x, labels = torch.randn(5, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1])
    whatif = what_if(model, experts, x, labels)
    assert len(whatif.pieces) == (4 if cut else 1)
    for factors in states(plan)[:: len(names)]:
        assert torch.equal(whatif.outcome(factors).logits, by_hand(model, experts, x, factors))


def test_gradients_reach_the_factors(adapted: Callable, images: Callable) -> None:
    """`factored` takes tensors that require a gradient; compared with central differences."""
    model, experts = adapted(uniform(0.5, 2, 2))
    whatif = what_if(model, experts, *images(4))
    tensors = {layer: f.requires_grad_() for layer, f in whatif.tensors(all_on(whatif.plan)).items()}
    with factored(tensors):
        x = whatif.inputs[0]
        for piece in whatif.pieces:
            x = piece(x)
        F.cross_entropy(x, whatif.labels).backward()
    for row, target in enumerate(whatif.plan.targets):
        for column in range(2):
            up, down = (
                full_pass(whatif, with_cells(all_on(whatif.plan), [(row, column)], f)).loss
                for f in (1 + 1e-2, 1 - 1e-2)
            )
            slope = float(tensors[experts.layers[target]].grad[column])
            assert slope == pytest.approx((up - down) / 2e-2, rel=0.02, abs=2e-3)
