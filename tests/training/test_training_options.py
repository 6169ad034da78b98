"""Options of the training loop: accumulation, averages, early stopping, mixup; each also from a checkpoint."""

from __future__ import annotations

import dataclasses
from itertools import islice

import pytest
import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, TrainStep
from mlae_lab.core.patterns import uniform
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import ConfigError
from mlae_lab.data.splits import LabelledImages
from mlae_lab.training.averaging import WeightAverage
from mlae_lab.training.best_epoch import BestEpoch
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.trainer import Training

PLAN = MaskPlan(((1, 1), (1, 0)), ((0.5, 0.25), (0.5, 0)), ("blocks.3.attn.qkv", "blocks.11.attn.qkv"))
BASE = RunConfig(
    "digits", PLAN, backbone="lab_vit_12x128.random", device="cpu", precision="float32", epochs=2, batch_size=10,
    learning_rate=5e-3,
)  # fmt: skip


def few(inputs: Inputs, images: int, kept: bool) -> Inputs:
    part = LabelledImages(inputs.part.images[:images], inputs.part.labels[:images])
    return Inputs(
        part, inputs.before, inputs.device, inputs.size, inputs.normalisation, inputs.name, inputs.generator,
        inputs.augmentation, features_kept=2**30 if kept else 0,
    )  # fmt: skip


def setup_of(config: RunConfig) -> Setup:
    """A setup with 24 training images (three steps of 10, 10 and 4) and 16 evaluation images."""
    setup = prepare(config)
    setup.train, setup.evaluation = few(setup.train, 24, not config.mixup), few(setup.evaluation, 16, True)
    return setup


def trained(config: RunConfig) -> Training:
    training = Training(setup_of(config))
    for _ in training.run():
        pass
    return training


def values(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in training.learned.items()}


def test_accumulation_gives_the_same_result() -> None:
    config = dataclasses.replace(BASE, optimizer="sgd", learning_rate=0.5)  # Adam divides by gradients near 0
    start, whole = values(Training(setup_of(config))), values(trained(config))
    parts = values(trained(dataclasses.replace(config, accumulation=4)))
    for name, value in whole.items():
        change = (value - start[name]).abs().max()
        assert (parts[name] - value).abs().max() <= 1e-4 * change


@pytest.mark.parametrize(
    "settings",
    [
        {"mixup": 0.4, "augmentation": "colour"},
        {"weight_average": 0.9, "class_balance": "sampling", "augmentation": "randaugment"},
        {"early_stopping": 5, "keep_best": True, "label_smoothing": 0.1, "accumulation": 3},
    ],
)
def test_a_resumed_training_is_the_undisturbed_one(settings: dict) -> None:
    config = dataclasses.replace(BASE, **settings)
    undisturbed = trained(config)
    training, steps = Training(setup_of(config)), 0
    for event in training.run():
        steps += isinstance(event, TrainStep)
        if steps == 4:  # within the second epoch
            break
    resumed = Training(setup_of(config), training.checkpoint())
    for _ in resumed.run():
        pass
    wanted, states = undisturbed.checkpoint().tensors, resumed.checkpoint().tensors
    assert set(states) == set(wanted)
    assert all(torch.equal(states[name], wanted[name]) for name in wanted)


def test_another_augmentation_is_another_training() -> None:
    results = [values(trained(dataclasses.replace(BASE, augmentation=name)))["head.bias"] for name in ("off", "flip")]
    assert not torch.equal(*results)


def test_the_average_is_evaluated_and_the_parameters_are_trained() -> None:
    config = dataclasses.replace(BASE, weight_average=0.9)
    averaged, plain = trained(config), trained(BASE)
    for name, value in values(plain).items():
        assert torch.equal(values(averaged)[name], value), "averaging changes no step"
    assert averaged.result.loss != plain.result.loss
    with averaged.average.applied():
        inside = values(averaged)["head.weight"]
    assert not torch.equal(inside, values(averaged)["head.weight"])
    torch.testing.assert_close(inside, averaged.average.average["head.weight"], rtol=0, atol=0)


def test_the_average_follows_its_formula() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average, expected = WeightAverage({"x": parameter}, 0.5), 0.0
    for step in range(20):
        with torch.no_grad():
            parameter.fill_(step + 1.0)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        average.update(step)
    assert average.average["x"].item() == pytest.approx(expected, rel=1e-6)


def test_training_stops_when_nothing_improves() -> None:
    config = dataclasses.replace(BASE, epochs=30, learning_rate=1e-9, early_stopping=3)
    training = Training(setup_of(config))
    evaluations = [event for event in training.run() if isinstance(event, Evaluation)]
    best = max(evaluations, key=lambda event: (event.accuracy, -event.loss))
    assert (training.best.epoch, training.best.accuracy) == (best.epoch, best.accuracy)
    assert training.stopped_early
    assert evaluations[-1].epoch == best.epoch + 3 < 30
    assert not [*islice(Training(setup_of(config), training.checkpoint()).run(), 3, None)], "and does not continue"


def test_of_equal_accuracies_the_lower_loss_is_the_best() -> None:
    best = BestEpoch()
    for epoch, (accuracy, loss) in enumerate([(50, 2.0), (60, 1.5), (60, 1.4), (60, 1.4), (59, 1.0)], 1):
        best.add(epoch, accuracy, loss)
    assert (best.epoch, best.accuracy, best.loss, best.since) == (3, 60, 1.4, 2)
    restored = BestEpoch()
    restored.restore(best.state())
    assert vars(restored) == vars(best)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"early_stopping": 2, "protocol": "test"}, "early stopping chooses an epoch by its accuracy"),
        ({"keep_best": True, "protocol": "test"}, "keep-best chooses an epoch by its accuracy"),
        ({"accumulation": 11}, "gradient accumulation is 11 and a batch has 10 images"),
        ({"accumulation": 2, "consistency": 0.5, "plan": uniform(0.5)}, "accumulation must be 1"),
        (
            {"method": "glora", "method_settings": ("search_generations=2",), "weight_average": 0.9},
            "early stopping and weight average must be 0",
        ),
    ],
)
def test_settings_that_exclude_each_other(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        dataclasses.replace(BASE, **settings)
