"""fit: what it yields, what it changes, how it ends; on few images, with the bundled network untrained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from mlae_lab.core import catalog
from mlae_lab.core.budget import budget
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import (
    Evaluation,
    Event,
    ExpertStats,
    Predictions,
    SampleImages,
    SimilarityStats,
    Started,
    Statistics,
    TrainStep,
)  # fmt: skip
from mlae_lab.core.patterns import allocation, uniform
from mlae_lab.core.plan import MaskPlan, block_targets
from mlae_lab.data.bundled import DataError, load_bundled
from mlae_lab.data.pixels import normalised
from mlae_lab.data.splits import LabelledImages
from mlae_lab.model.backbones import build
from mlae_lab.model.experts import MaskSampler, stream
from mlae_lab.model.inject import remove
from mlae_lab.training.evaluation import Diverged, evaluate
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.sample_images import chosen
from mlae_lab.training.setup import DeviceError, Setup, choose_device, choose_precision, prepare
from mlae_lab.training.trainer import fit
from tests.reference import unpacked

RANDOM = "lab_vit_12x128.random"
HOLES = MaskPlan(  # an empty row, holes, a rate for each cell, three modules, three depths
    ((1, 1, 0), (0, 0, 0), (0, 1, 1)),
    ((0.5, 0.25, 0), (0, 0, 0), (0, 0.75, 0)),
    ("blocks.0.attn.qkv", "blocks.4.attn.qkv", "blocks.11.mlp.fc1"),
)


def config(plan: MaskPlan = HOLES, **settings: object) -> RunConfig:
    defaults = {
        "task": "digits", "backbone": RANDOM, "device": "cpu", "precision": "float32",
        "epochs": 2, "batch_size": 10, "learning_rate": 5e-3,
    }  # fmt: skip
    return RunConfig(plan=plan, **{**defaults, **settings})  # type: ignore[arg-type]


def small(run_config: RunConfig) -> Setup:
    """A setup with 24 training images (three steps of 10, 10 and 4) and 16 evaluation images."""
    setup = prepare(run_config)
    setup.train, setup.evaluation = shortened(setup.train, 24), shortened(setup.evaluation, 16)
    return setup


def shortened(inputs: Inputs, images: int) -> Inputs:
    """The first few images of inputs."""
    part = LabelledImages(inputs.part.images[:images], inputs.part.labels[:images])
    return Inputs(part, inputs.before, inputs.device, inputs.size, inputs.normalisation, inputs.name, inputs.generator)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """The events of a run of four epochs with two evaluations."""
    return [*fit(small(config(epochs=4, evaluations=2, seed=9)))]


def timeless(events: list[Event]) -> list[str]:
    """Events without their seconds, as text because NaN is not equal to itself."""
    return [repr(dataclasses.replace(e, seconds=0.0) if hasattr(e, "seconds") else e) for e in events]


def of(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def state_bytes(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


# ---------------------------------------------------------------- the stream of events


def test_equal_seeds_give_equal_events(events: list[Event], capfd: pytest.CaptureFixture[str]) -> None:
    again = [*fit(small(config(epochs=4, evaluations=2, seed=9)))]
    assert timeless(again) == timeless(events)
    other = [*islice(fit(small(config(epochs=4, evaluations=2, seed=10))), 4)]
    assert timeless(other) != timeless(events[:4])
    assert capfd.readouterr() == ("", "")  # it prints nothing


def test_the_order_of_events(events: list[Event]) -> None:
    assert isinstance(events[0], Started)
    assert isinstance(events[1], SampleImages)
    report = [ExpertStats, SimilarityStats, Predictions, Statistics, Evaluation]
    assert [type(e) for e in events[2:]] == ([TrainStep] * 6 + report) * 2
    steps = of(events, TrainStep)
    assert [s.step for s in steps] == list(range(1, 13))
    assert [s.epoch for s in steps] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert [(e.epoch, e.step) for e in of(events, Evaluation)] == [(2, 6), (4, 12)]
    assert [e.epoch for e in of(events, ExpertStats)] == [e.epoch for e in of(events, SimilarityStats)] == [2, 4]
    seconds = [e.seconds for e in events[1:] if hasattr(e, "seconds")]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_a_step_records_its_active_experts(events: list[Event]) -> None:
    setup = small(config(epochs=4, evaluations=2, seed=9))
    plan = setup.config.plan
    exists = [cell for row in plan.keep for cell in row]
    for step in of(events, TrainStep):
        factors = setup.experts.sampler.sample()
        active = unpacked(step.mask, plan.rows * plan.columns)
        assert active == (factors > 0).flatten().tolist()
        assert sum(active) == step.active
        assert not any(d and not e for d, e in zip(active, exists, strict=True))


def test_predictions_of_the_sample_images_are_those_of_the_network(events: list[Event]) -> None:
    sample_images, predictions = of(events, SampleImages)[0], of(events, Predictions)
    assert len(sample_images.images) == len(sample_images.labels) == 12
    assert len(set(sample_images.labels)) == 9
    assert [(g.epoch, g.step) for g in predictions] == [(2, 6), (4, 12)]
    setup = small(config(epochs=4, evaluations=2, seed=9))
    [*fit(setup)]
    indices = chosen(setup.evaluation.part.labels.tolist())
    with torch.no_grad():
        best = setup.behind(setup.evaluation.take(torch.tensor(indices))).float().softmax(1).max(1)
    assert predictions[-1].predicted == tuple(setup.classes[i] for i in best.indices)
    assert predictions[-1].confidence == pytest.approx(best.values.tolist(), abs=1e-3)


def test_the_started_event() -> None:
    setup = small(config(epochs=5))
    started = next(fit(setup))
    entry = catalog.backbone(RANDOM)
    assert isinstance(started, Started)
    assert started.parameters == budget(HOLES, entry.shapes(HOLES.targets)).parameters
    assert started.head_parameters == 129 * 10
    whole = sum(p.numel() for p in setup.model.parameters())
    assert started.backbone_parameters == whole - started.parameters - started.head_parameters
    assert (started.train_images, started.evaluation_images, started.steps) == (24, 16, 15)
    assert (started.device, started.precision) == ("cpu", "float32")
    assert started.seconds == setup.seconds > 0


def test_the_learning_rate_follows_the_cosine_with_its_warmup() -> None:
    steps = of([*fit(small(config(learning_rate=0.01)))], TrainStep)
    assert [s.learning_rate for s in steps] == pytest.approx(
        [0.01, 0.00933013, 0.0075, 0.005, 0.0025, 0.00066987], rel=1e-5
    )
    steps = of([*fit(small(config(learning_rate=0.01, warmup=0.5)))], TrainStep)
    assert [s.learning_rate for s in steps] == pytest.approx([0, 0.01 / 3, 0.02 / 3, 0.01, 0.0075, 0.0025])


def test_training_learns() -> None:
    steps = of([*fit(small(config(uniform(0.1, 2), epochs=8, evaluations=1, learning_rate=0.02)))], TrainStep)
    assert steps[0].loss == pytest.approx(torch.log(torch.tensor(10.0)).item())  # the head starts at zero
    assert sum(s.loss for s in steps[-3:]) < 0.8 * sum(s.loss for s in steps[:3])
    assert all(0 <= s.accuracy <= 100 for s in steps)


def test_every_epoch_has_every_image_once_in_an_order_that_depends_on_the_seed_only() -> None:
    def batches_of(run_config: RunConfig) -> list[list[bytes]]:
        setup = small(run_config)
        batches: list[list[bytes]] = []
        behind = setup.behind

        def recorded_behind(tokens: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                batches.append([row.numpy().tobytes() for row in tokens])
            return behind(tokens)

        setup.behind = recorded_behind
        for event in fit(setup):
            if isinstance(event, TrainStep) and event.step == 6:
                break
        return batches

    batches, batches_other_mask = (
        batches_of(config(seed=5, evaluations=1)),
        batches_of(config(uniform(0.9, 1), seed=5, evaluations=1, learning_rate=1e-4)),
    )
    assert batches == batches_other_mask  # paired runs have the same batches whatever their masks
    first, second = batches[:3], batches[3:]
    assert [len(batch) for batch in first] == [10, 10, 4]
    assert len({row for batch in first for row in batch}) == 24
    assert first != second
    assert {row for b in first for row in b} == {row for b in second for row in b}
    assert batches_of(config(seed=6, evaluations=1)) != batches


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize(("protocol", "train", "evaluation"), [("val", 800, 200), ("test", 1000, 797)])
def test_the_protocol_selects_the_training_and_evaluation_splits(protocol: str, train: int, evaluation: int) -> None:
    setup = prepare(config(protocol=protocol, epochs=1))
    parts = load_bundled("digits").protocol(protocol)
    assert (len(setup.train), len(setup.evaluation)) == (train, evaluation)
    assert setup.train.labels.tolist() == parts[0].labels.tolist()
    assert setup.evaluation.labels.tolist() == parts[1].labels.tolist()
    setup.train, setup.evaluation = shortened(setup.train, 10), shortened(setup.evaluation, 10)
    assert {e.split for e in of([*fit(setup)], Evaluation)} == {protocol}


def test_the_recorded_accuracy_is_that_of_the_whole_network_with_all_experts_on() -> None:
    """Computed again from pixels with a plain forward pass."""
    setup = small(config(HOLES.with_rates((0.9, 0, 0.9)), epochs=4, evaluations=1))
    last = of([*fit(setup)], Evaluation)[-1]
    part = load_bundled("digits").val
    with torch.no_grad():
        logits = setup.model.eval()(normalised(part.images[:16], 48))
    labels = torch.from_numpy(part.labels[:16])
    assert last.accuracy == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
    assert last.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)


def test_an_evaluation_changes_nothing() -> None:
    setup = small(config())
    before = state_bytes(setup.model)
    first, second = evaluate(setup), evaluate(setup)
    assert (first.accuracy, first.loss) == (second.accuracy, second.loss)
    assert state_bytes(setup.model) == before
    assert not any(module._forward_pre_hooks for module in setup.model.modules())


def test_an_evaluation_in_small_pieces_gives_the_same_result() -> None:
    setup = small(config())
    [*fit(setup)]
    whole = evaluate(setup)
    setup.evaluation.at_once = 7
    pieces = evaluate(setup)
    assert pieces.accuracy == whole.accuracy
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
    assert pieces.contribution.keys() == whole.contribution.keys()
    for target, values in whole.contribution.items():
        torch.testing.assert_close(pieces.contribution[target], values)


# ---------------------------------------------------------------- what is trained


def test_the_backbone_does_not_change_by_a_byte() -> None:
    setup = small(config())
    before = state_bytes(build(RANDOM, 10, setup.config.seed))
    [*fit(setup)]
    after = state_bytes(remove(setup.model))
    assert list(after) == list(before)
    assert {name for name in after if after[name] != before[name]} == {"head.weight", "head.bias"}


def test_a_linear_probe_trains_the_head_alone() -> None:
    setup = small(config(method="linear"))
    before = state_bytes(setup.model)
    events = [*fit(setup)]
    after = state_bytes(setup.model)
    assert {name for name in after if after[name] != before[name]} == {"head.weight", "head.bias"}
    assert setup.experts is None
    assert not of(events, ExpertStats)
    assert not of(events, SimilarityStats)
    assert events[0].parameters == 0
    assert events[0].head_parameters == 1290
    assert {s.active for s in of(events, TrainStep)} == {0}
    assert len(of(events, Evaluation)) == 2


def test_a_plan_without_experts_trains_the_head_alone_and_records_an_empty_canvas() -> None:
    events = [*fit(small(config(allocation((0, 0)), epochs=1)))]
    stats, similarity = of(events, ExpertStats)[0], of(events, SimilarityStats)[0]
    assert stats.active_share == stats.gradient == ((None,), (None,))
    assert similarity.signed == similarity.absolute == (None, None)
    assert similarity.matrices == ((), ())
    assert events[0].parameters == 0


def test_frozen_coefficients_keep_their_initial_value() -> None:
    plan = dataclasses.replace(HOLES, train_coefficients=False, coefficient_init=0.25)
    stats = of([*fit(small(config(plan)))], ExpertStats)
    assert stats[-1].coefficient == ((0.25, 0.25, None), (None, None, None), (None, 0.25, 0.25))


# ---------------------------------------------------------------- statistics of the experts


def test_statistics_have_the_canvas_of_the_plan(events: list[Event]) -> None:
    stats = of(events, ExpertStats)[-1]
    for canvas in (stats.active_share, stats.contribution, stats.coefficient, stats.gradient):
        assert [[cell is not None for cell in row] for row in canvas] == [list(row) for row in HOLES.keep]
        assert all(cell >= 0 for row in canvas for cell in row if cell is not None)
    assert stats.contribution[0][0] > 0
    assert stats.gradient[0][0] > 0


def test_the_active_share_is_that_of_the_recorded_steps(events: list[Event]) -> None:
    active = 0
    for event in events:
        if isinstance(event, TrainStep):
            active, step = active + event.active, event.step
        elif isinstance(event, ExpertStats):
            last_stats = event
            assert sum(cell * step for row in event.active_share for cell in row if cell) == pytest.approx(
                active, abs=1e-3
            )
    sampler = MaskSampler(HOLES, seed=9)
    masks = torch.stack([sampler.sample() > 0 for _ in range(12)]).float()
    assert [int(a.sum()) for a in masks] == [s.active for s in of(events, TrainStep)]
    for row in range(3):
        for column in range(3):
            if HOLES.keep[row][column]:
                assert last_stats.active_share[row][column] == pytest.approx(
                    float(masks[:, row, column].mean()), abs=1e-6
                )


def test_an_expert_that_is_never_dropped_is_active_in_every_step(events: list[Event]) -> None:
    assert {stats.active_share[2][2] for stats in of(events, ExpertStats)} == {1.0}


def test_an_expert_that_was_never_active_has_no_gradient_and_no_contribution() -> None:
    plan = dataclasses.replace(HOLES, drop_rate=((0.9999, 0.25, 0), (0, 0, 0), (0, 0.75, 0)))
    stats = of([*fit(small(config(plan)))], ExpertStats)[-1]
    assert stats.active_share[0][0] == stats.gradient[0][0] == stats.contribution[0][0] == 0
    assert stats.coefficient[0][0] == pytest.approx(1, abs=1e-4)  # only weight decay changes it


def test_the_gradient_is_that_of_autograd() -> None:
    def initial() -> Setup:
        setup = small(config(learning_rate=1e-3, seed=2))
        torch.manual_seed(0)
        torch.nn.init.normal_(setup.head.weight)  # with a head at zero the experts get no gradient in the first step
        with torch.no_grad():
            for layer in setup.experts.layers.values():
                layer.b.normal_()
        return setup

    setup = initial()
    gradient = of([*fit(setup, should_stop=lambda: True)], ExpertStats)[0].gradient
    setup = initial()
    batch = torch.randperm(24, generator=stream(2, "order"))[:10]
    for layer in setup.experts.layers.values():
        layer.train()
    mask = setup.experts.sample()
    F.cross_entropy(setup.behind(setup.train.take(batch)), setup.train.labels[batch]).backward()
    for row, target in enumerate(HOLES.targets):
        for i, column in enumerate(c for c in range(3) if HOLES.keep[row][c]):
            layer = setup.experts.layers[target]
            expected = float(torch.cat([layer.a.grad[i], layer.b.grad[:, i]]).norm())
            assert gradient[row][column] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert (gradient[row][column] == 0) == (float(mask[row, column]) == 0)


def test_the_mean_gradient_is_over_active_steps_since_the_last_report() -> None:
    setup = small(config(HOLES.with_rates((0.6, 0, 0.6)), seed=1))
    # with a head at zero the experts get no gradient in the first step
    setup.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    layer = setup.experts.layers["blocks.0.attn.qkv"]
    norms: list[list[float]] = []

    def record(_: torch.nn.Parameter) -> None:  # called after a and after b; the second time both have gradients
        if layer.a.grad is not None and layer.b.grad is not None:
            norms.append((layer.a.grad.square().sum(1) + layer.b.grad.square().sum(0)).sqrt().tolist())

    for parameter in (layer.a, layer.b):
        parameter.register_post_accumulate_grad_hook(record)
    reports = of([*fit(setup)], ExpertStats)
    assert len(norms) == 6
    assert any(0 in step for step in norms)
    for report, interval in zip(reports, (norms[:3], norms[3:]), strict=True):
        for column in range(2):
            active = [step[column] for step in interval if step[column] > 0]
            assert report.gradient[0][column] == pytest.approx(sum(active) / max(1, len(active)), rel=1e-4, abs=1e-6)


def test_similarity_has_a_value_and_a_matrix_per_row(events: list[Event]) -> None:
    stats = of(events, SimilarityStats)[-1]
    assert (
        [value is None for value in stats.signed] == [value is None for value in stats.absolute] == [False, True, False]
    )
    assert [len(matrix) for matrix in stats.matrices] == [2, 0, 2]
    for signed, absolute, matrix in zip(stats.signed, stats.absolute, stats.matrices, strict=True):
        if signed is not None:
            assert matrix[0][0] == matrix[1][1] == 1
            assert matrix[0][1] == matrix[1][0]
            assert signed == pytest.approx(matrix[0][1], abs=1e-5)
            assert absolute == pytest.approx(abs(signed))


# ---------------------------------------------------------------- how it ends


def test_a_stop_ends_with_an_evaluation() -> None:
    stop_requests = iter([False, False, False, False, True])
    events = [*fit(small(config(epochs=100, evaluations=1)), should_stop=lambda: next(stop_requests))]
    assert [s.step for s in of(events, TrainStep)] == [1, 2, 3, 4, 5]
    assert [type(e) for e in events[-5:]] == [ExpertStats, SimilarityStats, Predictions, Statistics, Evaluation]
    assert (events[-1].epoch, events[-1].step) == (2, 5)
    assert len(of(events, Evaluation)) == 1


def test_a_time_limit_ends_with_an_evaluation() -> None:
    events = [*fit(small(config(epochs=10_000, evaluations=1, max_seconds=1e-6)))]
    assert [type(e) for e in events] == [
        Started, SampleImages, TrainStep, ExpertStats, SimilarityStats, Predictions, Statistics, Evaluation,
    ]  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_the_loss_the_step_and_a_remedy(value: float) -> None:
    setup = small(config(learning_rate=0.004))
    running = fit(setup)
    steps = [*islice(running, 2 + 3 + 5 + 1)]  # Started and SampleImages, an epoch, its report, another step
    assert isinstance(steps[-1], TrainStep)
    assert steps[-1].step == 4
    with torch.no_grad():
        setup.head.bias[0] = value
    with pytest.raises(Diverged, match=r"the loss became nan at step 5 \(epoch 2\): try a learning rate below 0\.004"):
        next(running)


@pytest.mark.parametrize("bias", [[float("nan")] * 10, [3e38] + [-3e38] * 9], ids=["nan", "inf"])
def test_an_evaluation_that_is_not_finite_is_a_divergence(bias: list[float]) -> None:
    """Logits of ±3e38 are finite numbers with an infinite loss."""
    setup = small(config())
    with torch.no_grad():
        setup.head.bias.copy_(torch.tensor(bias))
    with pytest.raises(Diverged, match=r"evaluation loss .* (nan|inf).*try a learning rate below 0\.005"):
        evaluate(setup)


def test_a_divergence_in_the_evaluation_names_its_step() -> None:
    setup = small(config())
    running = fit(setup)
    steps = [*islice(running, 2 + 3)]
    assert isinstance(steps[-1], TrainStep)
    assert steps[-1].step == 3
    with torch.no_grad():
        setup.head.bias[0] = float("nan")
    with pytest.raises(Diverged, match="step 3"):
        next(running)


# ---------------------------------------------------------------- set-up


def test_the_frozen_prefix_is_computed_once() -> None:
    """Tokens enter at the first block with experts; both parts together give the result of the whole network."""
    setup = prepare(config(allocation((0, 0, 0, 2))))
    assert setup.train.features.shape == (800, 37, 128)
    part = load_bundled("digits").val
    with torch.no_grad():
        setup.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            setup.behind(setup.evaluation.take(torch.arange(16))),
            setup.model.eval()(normalised(part.images[:16], 48)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_a_task_without_data_is_an_error() -> None:
    with pytest.raises(DataError, match="cifar"):
        prepare(config(task="cifar"))


def test_precision_and_device_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_precision("auto", torch.device("cuda")) is torch.bfloat16
    assert choose_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)  # depends on the CPU
    for name in ("float32", "bfloat16"):
        assert choose_precision(name, torch.device("cpu")) is getattr(torch, name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_an_absent_gpu_is_an_error() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="device is 'cuda' and this machine shows no CUDA GPU"):
        choose_device("cuda")


def test_bfloat16_trains_on_a_cpu() -> None:
    events = [*fit(small(config(precision="bfloat16", epochs=1)))]
    assert events[0].precision == "bfloat16"
    assert all(s.loss == s.loss for s in of(events, TrainStep))
    assert of(events, ExpertStats)[0].contribution[2][2] > 0


@pytest.mark.parametrize("make", [lambda: block_targets(12), lambda: block_targets(12, "mlp.fc2")])
def test_all_twelve_blocks_of_the_bundled_network_can_be_adapted(make: Callable[[], tuple[str, ...]]) -> None:
    plan = dataclasses.replace(uniform(0.5, experts=1), targets=make())
    events = [*fit(small(config(plan)), should_stop=lambda: True)]
    assert len(of(events, ExpertStats)[0].active_share) == 12
