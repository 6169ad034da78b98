"""The open statistics that are recorded with every evaluation."""

from __future__ import annotations

import math

import pytest
import torch

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Statistics
from mlae_lab.core.patterns import allocation
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.statistics import STATISTICS, Statistic, collect, update_norm
from mlae_lab.training.trainer import Training
from tests.lab import few_images

PLAN = allocation((*[0] * 9, 3, 0, 2))
CONFIG = RunConfig(
    "own:few", PLAN, backbone="lab_vit_12x128.random", epochs=2, batch_size=16, device="cpu", precision="float32",
    data=str(few_images()),
)  # fmt: skip


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare(CONFIG)


def test_the_norm_of_an_update_is_that_of_the_full_matrix(setup: Setup) -> None:
    assert setup.experts is not None
    generator = torch.Generator().manual_seed(1)
    for layer in setup.experts.layers.values():
        layer.b.data.copy_(torch.randn(layer.b.shape, generator=generator))
    norms = update_norm(setup)
    assert norms is not None
    assert [norm is None for norm in norms] == [target not in setup.experts.layers for target in PLAN.targets]
    for target, layer in setup.experts.layers.items():
        assert norms[PLAN.targets.index(target)] == pytest.approx(
            float(layer.delta().detach().double().norm()), rel=1e-5
        )


def test_a_training_records_statistics_before_each_evaluation_and_changes_no_number() -> None:
    head_sum = Statistic("sum_of_head", lambda setup: float(setup.head.weight.sum()), "Sum of the head")
    recorded = list(Training(prepare(CONFIG), statistics=(*STATISTICS, head_sum)).run())
    plain = list(Training(prepare(CONFIG), statistics=()).run())
    assert not any(isinstance(event, Statistics) for event in plain)
    indices = [i for i, event in enumerate(recorded) if isinstance(event, Statistics)]
    assert [recorded[i].epoch for i in indices] == [1, 2]
    for i in indices:
        event, evaluation = recorded[i], recorded[i + 1]
        assert isinstance(event, Statistics)
        assert isinstance(evaluation, Evaluation)
        assert (event.epoch, event.step) == (evaluation.epoch, evaluation.step)
        assert set(event.values) == {"update_norm", "sum_of_head"}
        assert event.labels["sum_of_head"] == ("Sum of the head", "")
    losses = [[e.loss for e in events if isinstance(e, Evaluation)] for events in (recorded, plain)]
    assert losses[0] == losses[1]


def test_a_linear_probe_has_no_update_to_record() -> None:
    assert collect(STATISTICS, prepare(RunConfig("digits", method="linear", backbone=CONFIG.backbone)), 1, 1) is None


def test_a_value_is_recorded_as_finite_numbers(setup: Setup) -> None:
    def record(value: object) -> object:
        event = collect([Statistic("name", lambda _: value, "Label")], setup, 1, 1)
        return event and event.values["name"]

    assert record(1.23456789) == 1.23457
    assert record(torch.full((PLAN.rows,), 0.5)) == (0.5,) * PLAN.rows
    assert record([math.nan, *[None] * (PLAN.rows - 1)]) == (None,) * PLAN.rows
    assert record(torch.zeros(PLAN.rows, PLAN.columns)) == ((0.0,) * PLAN.columns,) * PLAN.rows
    assert record(math.inf) is None
    with pytest.raises(ValueError, match=f"statistic name must be a number, {PLAN.rows} numbers, or a canvas"):
        record([1.0, 2.0])
