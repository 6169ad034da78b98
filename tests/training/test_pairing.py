"""What two runs with one seed and two masks share, in prepared setups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import TrainStep
from mlae_lab.core.patterns import allocation, pattern, uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.runs.comparability import is_paired
from mlae_lab.training.objective import Mix
from mlae_lab.training.setup import Setup
from mlae_lab.training.trainer import fit
from tests.training.test_trainer import config, small

BATCHES = 10


def recorded(run_config: RunConfig) -> tuple[Setup, list[list[int]], list[torch.Tensor]]:
    """Train ten steps: the setup, the indices of the images of each step, and its mask factors."""
    setup = small(run_config)
    batches: list[list[int]] = []
    masks: list[torch.Tensor] = []
    take, sample = setup.train.take, setup.experts.sample

    def recorded_take(images: torch.Tensor, mix: Mix | None) -> torch.Tensor:
        batches.append(images.tolist())
        return take(images, mix)

    def recorded_sample() -> torch.Tensor:
        masks.append(sample())
        return masks[-1]

    setup.train.take, setup.experts.sample = recorded_take, recorded_sample
    for event in fit(setup):
        if isinstance(event, TrainStep) and event.step == BATCHES:
            break
    return setup, batches, masks


def cells(a: MaskPlan, b: MaskPlan) -> Iterator[tuple[str, int, int]]:
    """(layer, its row, column) of the experts that both masks have."""
    for row, target in enumerate(a.targets):
        for column in range(min(a.columns, b.columns)):
            if a.keep[row][column] and b.keep[row][column]:
                yield target, row, column


def start_of(setup: Setup, target: str, column: int) -> torch.Tensor:
    layer = setup.experts.layers[target]
    first = layer.columns.index(column) * layer.rank
    return layer.a.detach()[first]  # of an expert of higher rank the first vector


HALF = uniform(0.5)
OTHERS = [
    pattern("hourglass"),
    pattern("hourglass", "mixed", 0.5),
    pattern("incremental", "stochastic"),
    uniform(0.3, experts=3),
]


@pytest.mark.parametrize("plan", OTHERS, ids=lambda plan: f"{plan.kind.value}-{plan.experts}")
def test_a_pair_has_the_same_initial_weights(plan: MaskPlan) -> None:
    first, second = config(HALF, seed=3), config(plan, seed=3)
    assert is_paired(first, second)
    a, b = small(first), small(second)
    assert torch.equal(a.head.weight, b.head.weight)
    assert torch.equal(a.head.bias, b.head.bias)
    shared = list(cells(HALF, plan))
    assert len(shared) > 20
    assert all(torch.equal(start_of(a, t, column), start_of(b, t, column)) for t, _, column in shared)
    other = small(config(plan, seed=4))
    assert not any(torch.equal(start_of(a, t, column), start_of(other, t, column)) for t, _, column in shared)


def test_a_pair_has_the_same_batches_and_random_numbers() -> None:
    """Ten steps each with p = 0.5, p = 0.3, and a mixed mask with p = 0.5."""
    mixed, low = pattern("hourglass", "mixed", 0.5), uniform(0.3)
    settings = {"seed": 3, "epochs": 4, "evaluations": 1}
    _, batches, masks = recorded(config(HALF, **settings))
    _, batches_mixed, masks_mixed = recorded(config(mixed, **settings))
    _, batches_low, masks_low = recorded(config(low, **settings))
    assert len(batches) == len(masks) == BATCHES
    assert [len(batch) for batch in batches[:3]] == [10, 10, 4]
    assert batches == batches_mixed == batches_low
    shared = list(cells(HALF, mixed))
    dropped = dropped_low = 0
    for step in range(BATCHES):
        assert all(masks[step][row, column] == masks_mixed[step][row, column] for _, row, column in shared)
        off, off_low = masks[step] == 0, masks_low[step] == 0
        assert not (off_low & ~off).any()  # p = 0.5 drops every expert that p = 0.3 drops
        dropped, dropped_low = dropped + int(off.sum()), dropped_low + int(off_low.sum())
    assert 0.4 < dropped / (96 * BATCHES) < 0.6
    assert 0.2 < dropped_low / (96 * BATCHES) < 0.4
    _, other_batches, _ = recorded(config(HALF, **{**settings, "seed": 4}))
    assert other_batches != batches


def test_the_rank_changes_neither_batches_nor_masks() -> None:
    thick = MaskPlan(HALF.keep, HALF.drop_rate, HALF.targets, expert_rank=2, coefficient_init=0.5)
    settings = {"seed": 3, "epochs": 4, "evaluations": 1}
    _, batches, masks = recorded(config(HALF, **settings))
    _, batches_thick, masks_thick = recorded(config(thick, **settings))
    assert batches == batches_thick
    assert all(torch.equal(x, y) for x, y in zip(masks, masks_thick, strict=True))
    fresh, fresh_thick = small(config(HALF, **settings)), small(config(thick, **settings))
    for target, _, column in cells(HALF, thick):
        assert torch.equal(start_of(fresh, target, column), start_of(fresh_thick, target, column))


def test_a_layer_without_experts_changes_nothing_for_the_others() -> None:
    """A row without experts has its own generator too, so the other rows get the same random numbers."""
    gaps = allocation((8, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 8), drop_rate=0.5)
    settings = {"seed": 3, "epochs": 4, "evaluations": 1}
    _, batches, masks = recorded(config(HALF, **settings))
    _, batches_gaps, masks_gaps = recorded(config(gaps, **settings))
    assert batches == batches_gaps
    for mask, other in zip(masks, masks_gaps, strict=True):
        assert torch.equal(mask[3:], other[3:])
        assert torch.equal(mask[0], other[0])
        assert not other[1:3].any()
