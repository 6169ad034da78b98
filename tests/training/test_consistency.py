"""PACE's consistency of two sampled masks, SGD and drop paths in a real training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mlae_lab.analysis.whatif import WhatIf
from mlae_lab.core.catalog import DEFAULT_BACKBONE as LAB
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, ExpertStats, TrainStep
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import load_run
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.trainer import Training
from tests.data.trees import make_own
from tests.training.test_checkpoint import learned, until
from tests.training.test_trainer import of, timeless

CONFIG = RunConfig(
    "own:birds", uniform(0.5), epochs=2, batch_size=6, learning_rate=1e-3, seed=9, device="cpu", precision="float32"
)
Prepare = Callable[[RunConfig], Setup]
EVERYTHING = dataclasses.replace(CONFIG, optimizer="sgd", learning_rate=0.1, drop_path=0.2, consistency=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own(tmp_path_factory.mktemp("images") / "birds", {"wren": 12, "owl": 12})


@pytest.fixture
def small(folder: Path) -> Prepare:
    return lambda run_config: prepare(dataclasses.replace(run_config, data=str(folder)))


def gradients(setup: Setup, weight: float) -> dict[str, torch.Tensor]:
    """Of the first step, from the formula."""
    training, adapter, run_config = Training(setup), setup.adapter, setup.config
    with torch.no_grad():
        for index, value in enumerate(training.learned.values()):  # a head of zeros would hide every difference
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(index)))
    chosen = torch.randperm(len(setup.train.labels), generator=training.order)[: run_config.batch_size]
    adapter.train(True)
    adapter.before_step(0, 0.0)
    first = setup.behind(setup.train.take(chosen))
    loss = F.cross_entropy(first, setup.train.labels[chosen])
    if weight:
        adapter.resample()
        second = setup.behind(setup.train.take(chosen))
        assert not torch.allclose(first, second)
        loss = loss + weight * (first - second).pow(2).sum() / len(chosen)
    loss.backward()
    return {name: value.grad for name, value in training.learned.items() if value.grad is not None}


@pytest.mark.parametrize(
    "run_config",
    [
        dataclasses.replace(CONFIG, consistency=0.7),
        dataclasses.replace(CONFIG, consistency=0.7, mask_per="token", drop_path=0.3),
        dataclasses.replace(CONFIG, method="lora", method_settings=("dropout=0.3", "consistency=0.7")),
    ],
    ids=["masks per step", "masks per token", "dropout of LoRA"],
)
def test_a_step_follows_the_gradient_of_both_losses(run_config: RunConfig, small: Prepare) -> None:
    """SGD moves each parameter by lr (g + decay w) in the first step."""
    run_config = dataclasses.replace(run_config, optimizer="sgd", learning_rate=0.1, weight_decay=0.01, warmup=0.0)
    expected, alone = gradients(small(run_config), 0.7), gradients(small(run_config), 0.0)
    training = Training(small(run_config))
    with torch.no_grad():
        for index, value in enumerate(training.learned.values()):
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(index)))
    before = {name: value.detach().clone() for name, value in training.learned.items()}
    until(training, 3)
    for name, value in training.learned.items():
        moved = (before[name] - value.detach()) / 0.1 - 0.01 * before[name]
        assert torch.allclose(moved, expected[name], atol=1e-5), name
    assert not all(torch.allclose(alone[name], expected[name], atol=1e-5) for name in expected)


def test_the_masks_of_a_run_are_the_same_with_and_without_consistency(small: Prepare) -> None:
    plain, consistent = ([*Training(small(dataclasses.replace(CONFIG, consistency=w))).run()] for w in (0.0, 5.0))
    masks = [[event.mask for event in of(events, TrainStep)] for events in (plain, consistent)]
    assert masks[0] == masks[1]
    assert len(set(masks[0])) > 1
    shares = [[event.active_share for event in of(events, ExpertStats)] for events in (plain, consistent)]
    assert shares[0] == shares[1], "the second mask of a step is not counted"
    losses = [[event.loss for event in of(events, TrainStep)] for events in (plain, consistent)]
    assert losses[0][0] == losses[1][0], "a step reports the cross-entropy under its first mask"
    assert losses[0][1:] != losses[1][1:]


@pytest.mark.parametrize("cut", [1, 2])
def test_everything_resumes_bit_for_bit(cut: int, tmp_path: Path, small: Prepare) -> None:
    whole = Training(small(EVERYTHING))
    expected = timeless([*whole.run()])
    first = Training(small(EVERYTHING))
    until(first, 2 + cut)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = Training(small(EVERYTHING), read_checkpoint(tmp_path / "c"))
    assert timeless([*second.run()][3:]) == expected[2 + cut :]
    assert learned(second) == learned(whole)


@pytest.mark.parametrize("changed", [{"optimizer": "adamw"}, {"drop_path": 0.0}, {"consistency": 0.0}])
def test_each_of_them_changes_the_training(changed: dict, small: Prepare) -> None:
    first, second = ([*Training(small(c)).run()] for c in (EVERYTHING, dataclasses.replace(EVERYTHING, **changed)))
    assert [e.loss for e in of(first, TrainStep)][2:] != [e.loss for e in of(second, TrainStep)][2:]


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path, small: Prepare) -> None:
    first = Training(small(CONFIG))
    until(first, 3)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    with pytest.raises(CheckpointError, match="its optimizer is 'adamw', not 'sgd'"):
        Training(small(dataclasses.replace(CONFIG, optimizer="sgd")), read_checkpoint(tmp_path / "c"))


def test_features_before_a_drop_path_are_computed_once(small: Prepare) -> None:
    """The last blocks are trained: without drop paths all others are computed once, with them only the first."""
    late = dense(2, 2)
    late = dataclasses.replace(late, targets=("blocks.10.attn.qkv", "blocks.11.attn.qkv"))
    run_config = dataclasses.replace(CONFIG, plan=late)
    for rate, blocks in ((0.0, 10), (0.1, 1)):
        setup = small(dataclasses.replace(run_config, drop_path=rate))
        images = setup.train.normalised(setup.train.part.images[:2])
        tokens = setup.model.patch_embed(images)
        expected = setup.model.blocks[:blocks](setup.model.norm_pre(setup.model._pos_embed(tokens)))
        assert setup.train.features is not None
        assert torch.allclose(setup.train.features[:2], expected, atol=1e-5)
        with torch.no_grad():
            assert torch.allclose(setup.behind(setup.train.features[:2]), setup.model(images), atol=1e-5)


def test_a_loaded_run_drops_no_paths_and_answers_what_if(small: Prepare, folder: Path, tmp_path: Path) -> None:
    plan = dataclasses.replace(uniform(0.5, layers=2), targets=("blocks.10.attn.qkv", "blocks.11.attn.qkv"))
    run_config = dataclasses.replace(EVERYTHING, plan=plan, data=str(folder))
    training = Training(small(run_config))
    evaluation = of([*training.run()], Evaluation)[-1]
    setup = training.setup
    save_adapter(tmp_path / "a", setup.adapter, setup.head, LAB, run_config.task, setup.expected)
    loaded = load_run(run_config, tmp_path / "a", record=setup.record)
    result = evaluate(loaded.setup)
    assert (result.accuracy, result.loss) == (evaluation.accuracy, pytest.approx(evaluation.loss, rel=1e-5))
    experts, inputs = loaded.setup.experts, loaded.setup.evaluation
    assert experts is not None
    what_if = WhatIf(loaded.setup.model, experts, inputs.take(torch.arange(len(inputs))), inputs.labels)
    assert what_if.trained.loss_sum / len(inputs) == pytest.approx(evaluation.loss, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_experts_without_masks_are_lora_step_for_step(optimizer: str, small: Prepare) -> None:
    """p = 0 and λ = 1, not trained, against LoRA with alpha = r from the same A: the same losses, then the same ΔW."""
    plan = dataclasses.replace(dense(12, 8), train_coefficients=False)
    common = dataclasses.replace(
        CONFIG, plan=plan, epochs=4, optimizer=optimizer, learning_rate=0.5 if optimizer == "sgd" else 5e-3
    )
    experts, lora = (
        Training(small(c)) for c in (common, dataclasses.replace(common, method="lora", method_settings=("rank=8",)))
    )
    with torch.no_grad():
        for name, value in experts.learned.items():
            assert lora.learned[name].shape == value.shape
            lora.learned[name].copy_(value)
    losses = [[event.loss for event in of([*training.run()], TrainStep)] for training in (experts, lora)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    for name, value in experts.learned.items():
        assert torch.allclose(value, lora.learned[name], atol=2e-4), name
