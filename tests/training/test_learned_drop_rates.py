"""Learned drop rates in a real training: recorded, kept in checkpoints, resumed bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mlae_lab.core import catalog
from mlae_lab.core.events import Evaluation, Started, Statistics, TrainStep
from mlae_lab.core.patterns import dense
from mlae_lab.core.plan import MaskPlan
from mlae_lab.methods.mlae.layers import DROP_RATE, RATE_SPEED
from mlae_lab.model.adapter_file import load_adapter, read_adapter, save_adapter
from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.trainer import Training
from tests.training.test_checkpoint import learned, until
from tests.training.test_trainer import HOLES, config, of, small, timeless

CONFIG = config(epochs=4, evaluations=2, seed=9, learned_drop_rates="expert")
QKV = f"{HOLES.targets[0]}.drop_logit"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"learned_drop_rates": "layer", "consistency": 0.5, "optimizer": "sgd"},
        {"mask_per": "token", "input_dropout": 0.1},
    ],
    ids=["per expert", "per layer", "per token"],
)
def test_a_training_cut_within_an_epoch_resumes_bit_for_bit(changed: dict, tmp_path: Path) -> None:
    run_config = dataclasses.replace(CONFIG, epochs=2, evaluations=1, **changed)
    whole = Training(small(run_config))
    initial = whole.learned[QKV].detach().clone()
    expected = timeless([*whole.run()])
    first = Training(small(run_config))
    until(first, 2 + 2)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    saved = read_checkpoint(tmp_path / "c")
    assert torch.equal(saved.tensors[QKV], first.learned[QKV])
    assert not torch.equal(saved.tensors[QKV], initial)
    assert any(name.endswith(QKV) and name != QKV for name in saved.tensors), "with its moments"
    second = Training(small(run_config), saved)
    assert timeless([*second.run()][3:]) == expected[2 + 2 :]
    assert learned(second) == learned(whole)


def test_every_evaluation_records_the_rates_of_the_experts_that_exist() -> None:
    training = Training(small(CONFIG))
    events = [*training.run()]
    recorded = of(events, Statistics)
    assert len(recorded) == 2
    canvases = [event.values[DROP_RATE] for event in recorded]
    for event, canvas in zip(recorded, canvases, strict=True):
        event.require_valid(HOLES.rows, HOLES.columns)
        assert event.grids[DROP_RATE].rows == HOLES.row_labels
        assert isinstance(canvas, tuple)
        for line, keep in zip(canvas, HOLES.keep, strict=True):
            assert isinstance(line, tuple)
            assert tuple(value is not None for value in line) == keep
    assert canvases[0] != canvases[1]
    started = of(events, Started)[0]
    assert started.parameters == CONFIG.tuning.parameters(catalog.backbone(CONFIG.backbone))
    plain = of([*Training(small(dataclasses.replace(CONFIG, learned_drop_rates="off"))).run()], Statistics)
    assert all(DROP_RATE not in event.values for event in plain)


def test_a_rate_follows_the_gradient_of_loss_and_entropy_without_weight_decay() -> None:
    """SGD moves a logit by RATE_SPEED · lr · (∂ cross-entropy/∂ρ - w/N · p (1-p) · -ρ) in the first step."""
    run_config = dataclasses.replace(
        CONFIG, optimizer="sgd", learning_rate=0.05, weight_decay=0.5, warmup=0.0, drop_rate_entropy=3.0
    )
    training, other = Training(small(run_config)), Training(small(run_config))
    for each in (training, other):
        with torch.no_grad():  # b and a head of 0 would hide every mask
            for index, value in enumerate(each.learned.values()):
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(index)))
    chosen = torch.randperm(len(other.trained), generator=other.order)[: run_config.batch_size]
    other.adapter.train(True)
    other.adapter.before_step(0, 0.0)
    inputs, labels = other.setup.train.take(chosen), other.setup.train.labels[chosen]
    F.cross_entropy(other.setup.behind(inputs), labels).backward()
    logit = other.learned[QKV]
    assert logit.grad is not None
    assert logit.grad.any()
    p = logit.detach().sigmoid()
    gradient = logit.grad + 3.0 / len(other.trained) * p * (1 - p) * logit.detach()
    before = training.learned[QKV].detach().clone()
    until(training, 3)
    moved = (before - training.learned[QKV].detach()) / (RATE_SPEED * 0.05)
    assert torch.allclose(moved, gradient, atol=1e-5)


def test_the_masks_of_the_first_step_are_those_of_fixed_rates() -> None:
    plan = MaskPlan(((1, 1, 1),) * 3, ((0.5,) * 3,) * 3, HOLES.targets)
    steps = [
        of(until(Training(small(dataclasses.replace(CONFIG, plan=plan, learned_drop_rates=per))), 3), TrainStep)[0]
        for per in ("off", "layer", "expert")
    ]
    assert steps[0].mask == steps[1].mask == steps[2].mask


def test_a_dense_mask_starts_at_the_lower_bound() -> None:
    run_config = dataclasses.replace(CONFIG, plan=dataclasses.replace(dense(2, 3), targets=HOLES.targets[:2]))
    training = Training(small(run_config))
    assert training.experts is not None
    assert training.experts.drop_rates().tolist() == [pytest.approx([0.01] * 3)] * 2
    assert of([*training.run()], Evaluation)


def test_the_adapter_file_keeps_the_final_rates_and_loads_without_them(tmp_path: Path) -> None:
    training = Training(small(CONFIG))
    last = of([*training.run()], Evaluation)[-1]
    setup = training.setup
    save_adapter(tmp_path / "a", setup.adapter, setup.head, CONFIG.backbone, CONFIG.task)
    read = read_adapter(tmp_path / "a")
    assert read.plan is not None
    assert setup.adapter.experts is not None
    rates = setup.adapter.experts.drop_rates()
    assert torch.allclose(torch.tensor(read.plan.drop_rate, dtype=torch.float64), rates, atol=5e-5)
    assert not any("drop" in name for name in read.tensors), "the trained network is the same, whatever p"
    for per in ("expert", "off"):
        fresh = small(dataclasses.replace(CONFIG, learned_drop_rates=per))
        load_adapter(read, fresh.adapter, fresh.head)
        assert evaluate(fresh).loss == last.loss


def test_a_branch_with_another_mask_keeps_the_rates_of_shared_experts(tmp_path: Path) -> None:
    wider = MaskPlan(((1, 0, 1), (1, 0, 0), (1, 1, 1)), ((0.5, 0, 0.5), (0, 0, 0), (0.25, 0.75, 0)), HOLES.targets)
    for per in ("expert", "layer"):
        run_config = dataclasses.replace(CONFIG, learned_drop_rates=per)
        first = Training(small(run_config))
        until(first, 2 + 6)
        save_checkpoint(tmp_path / "c", first.checkpoint())
        branch = Training(small(dataclasses.replace(run_config, plan=wider)), read_checkpoint(tmp_path / "c"))
        for row, target in enumerate(HOLES.targets):
            name = f"{target}.drop_logit"
            if name not in first.learned or name not in branch.learned:
                continue
            old, new = first.learned[name], branch.learned[name]
            if per == "layer":
                assert torch.equal(old, new)
                continue
            columns, others = ([c for c in range(3) if plan.keep[row][c]] for plan in (HOLES, wider))
            for column in set(columns) & set(others):
                assert old[columns.index(column)] == new[others.index(column)]


def test_a_checkpoint_of_fixed_rates_does_not_fit(tmp_path: Path) -> None:
    first = Training(small(dataclasses.replace(CONFIG, learned_drop_rates="off")))
    until(first, 3)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    with pytest.raises(CheckpointError, match="its learned drop rates is 'off', not 'expert'"):
        Training(small(CONFIG), read_checkpoint(tmp_path / "c"))
