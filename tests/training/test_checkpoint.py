"""An interrupted training that resumes ends with the numbers of an uninterrupted one, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Event, Resumed, SampleImages, Started, TrainStep
from mlae_lab.core.plan import MaskPlan
from mlae_lab.model.experts import stream
from mlae_lab.training.checkpoint import Checkpoint, CheckpointError, TrainPosition, read_checkpoint, save_checkpoint
from mlae_lab.training.evaluation import OutOfTime, evaluate
from mlae_lab.training.inputs import Inputs
from mlae_lab.training.setup import Setup
from mlae_lab.training.trainer import Training
from tests.training.test_trainer import HOLES, config, of, small, timeless

CONFIG = config(epochs=4, evaluations=2, seed=9)


def until(training: Training, count: int) -> list[Event]:
    """The first events of a training that is then abandoned, as after a kill."""
    events, running = [], training.run()
    for _ in range(count):
        events.append(next(running))
    running.close()
    return events


def learned(training: Training) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in training.learned.items()}


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[list[str], dict[str, bytes]]:
    training = Training(small(CONFIG))
    return timeless([*training.run()]), learned(training)


def resume(path: Path, run_config: RunConfig, make_setup: Callable[[RunConfig], Setup] = small) -> Training:
    return Training(make_setup(run_config), read_checkpoint(path))


# after the first step, an epoch, a step within one, a report, an epoch without a report, the last step, the end
CUTS = [1, 3, 5, 11, 14, 17, 22]


@pytest.mark.parametrize("cut", CUTS)
def test_a_training_cut_anywhere_resumes_bit_for_bit(
    cut: int, tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]
) -> None:
    expected, weights = uninterrupted
    first = Training(small(CONFIG))
    before = until(first, 2 + cut)
    assert timeless(before) == expected[: 2 + cut]
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = resume(tmp_path / "c", CONFIG)
    started, sample_images, resumed, *after = [*second.run()]
    assert [type(event) for event in (started, sample_images, resumed)] == [Started, SampleImages, Resumed]
    last_step = of(before, TrainStep)[-1]
    assert (resumed.step, resumed.epoch) == (last_step.step, last_step.epoch)
    assert timeless(after) == expected[2 + cut :]
    assert learned(second) == weights
    assert second.is_through


def test_a_training_stopped_within_an_epoch_evaluates_and_resumes_bit_for_bit(
    tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]
) -> None:
    """The evaluation at a stop is not a scheduled one: it changes neither sums nor generators."""
    expected, weights = uninterrupted
    stop_requests = iter([False] * 4 + [True])
    first = Training(small(CONFIG))
    before = [*first.run(lambda: next(stop_requests))]
    assert isinstance(before[-1], Evaluation)
    assert before[-1].step == 5
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = resume(tmp_path / "c", CONFIG)
    assert timeless([*second.run()][3:]) == expected[2 + 5 :]
    assert learned(second) == weights


def test_a_training_stopped_within_an_evaluation_evaluates_when_resumed(
    tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, weights = uninterrupted

    def out_of_time(*_: object) -> None:
        raise OutOfTime

    first = Training(small(CONFIG))
    with monkeypatch.context() as patch:
        patch.setattr("mlae_lab.training.trainer.evaluate", out_of_time)
        assert len([*first.run()]) == 2 + 6
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = resume(tmp_path / "c", CONFIG)
    assert timeless([*second.run()][3:]) == expected[2 + 6 :]
    assert learned(second) == weights


def test_a_training_interrupted_many_times(tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]) -> None:
    expected, weights = uninterrupted
    events, training = [], Training(small(CONFIG))
    while not training.is_through:
        for event in training.run():
            if not isinstance(event, (Started, SampleImages, Resumed)):
                events.append(event)
            if isinstance(event, TrainStep) and event.step % 2 == 0 and event.step % 6:
                break
        save_checkpoint(tmp_path / "c", training.checkpoint())
        training = resume(tmp_path / "c", CONFIG)
    assert timeless(events) == expected[2:]
    assert learned(training) == weights


def augmented(run_config: RunConfig) -> Setup:
    """A setup that trains on random crops."""
    setup = small(run_config)
    inputs = setup.train
    setup.train = Inputs(
        inputs.part,
        inputs.before,
        inputs.device,
        inputs.size,
        inputs.normalisation,
        "fgvc-rrc",
        stream(run_config.seed, "augment"),
    )
    return setup


def test_random_crops_resume_bit_for_bit(tmp_path: Path) -> None:
    expected = [*Training(augmented(CONFIG)).run()]
    plain = [*Training(small(CONFIG)).run()]
    assert timeless(expected)[1:5] != timeless(plain)[1:5]
    first = Training(augmented(CONFIG))
    until(first, 2 + 5)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = resume(tmp_path / "c", CONFIG, augmented)
    assert timeless([*second.run()][3:]) == timeless(expected)[2 + 5 :]


def test_masks_per_token_and_input_dropout_resume_bit_for_bit(tmp_path: Path) -> None:
    noisy = dataclasses.replace(CONFIG, mask_per="token", input_dropout=0.2)
    training = Training(small(noisy))
    expected = timeless([*training.run()])
    assert expected[1:5] != timeless([*Training(small(CONFIG)).run()])[1:5]
    first = Training(small(noisy))
    until(first, 2 + 5)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = resume(tmp_path / "c", noisy)
    assert timeless([*second.run()][3:]) == expected[2 + 5 :]
    assert learned(second) == learned(training)


def test_a_linear_probe_resumes_bit_for_bit(tmp_path: Path) -> None:
    probe = dataclasses.replace(CONFIG, method="linear")
    expected = timeless([*Training(small(probe)).run()])
    first = Training(small(probe))
    until(first, 2 + 4)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    assert timeless([*resume(tmp_path / "c", probe).run()][3:]) == expected[2 + 4 :]


def test_training_seconds_accumulate(tmp_path: Path) -> None:
    first = Training(small(CONFIG))
    before = until(first, 2 + 5)
    checkpoint = first.checkpoint()
    old = dataclasses.replace(checkpoint.position, seconds=100.0)
    second = Training(small(CONFIG), dataclasses.replace(checkpoint, position=old))
    after = [*second.run()]
    assert before[-1].seconds < 100 < of(after, TrainStep)[0].seconds
    assert after[2].seconds == 100.0


# ---------------------------------------------------------------- another mask

WIDER = MaskPlan(  # relative to HOLES: cell 2 of row 1 removed and cell 3 added, row 2 added, one more cell in row 3
    ((1, 0, 1), (1, 0, 0), (1, 1, 1)),
    ((0.5, 0, 0.5), (0, 0, 0), (0, 0.75, 0)),
    HOLES.targets,
)


def parent(tmp_path: Path) -> Checkpoint:
    first = Training(small(CONFIG))
    until(first, 2 + 6 + 4)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    return read_checkpoint(tmp_path / "c")


def test_with_another_mask_shared_cells_are_kept_and_new_ones_initialised(tmp_path: Path) -> None:
    old, run_config = parent(tmp_path), dataclasses.replace(CONFIG, plan=WIDER, epochs=6)
    fresh, training = Training(small(run_config)), Training(small(run_config), old)
    qkv, middle, fc1 = HOLES.targets
    a, b, λ = (training.learned[f"{qkv}.{kind}"] for kind in ("a", "b", "coefficient"))
    assert torch.equal(a[0], old.tensors[f"{qkv}.a"][0])
    assert torch.equal(b[:, 0], old.tensors[f"{qkv}.b"][:, 0])
    assert λ[0] == old.tensors[f"{qkv}.coefficient"][0] != 1
    assert torch.equal(a[1], fresh.learned[f"{qkv}.a"][1])
    assert not b[:, 1].any()
    assert λ[1] == 1
    assert torch.equal(training.learned[f"{middle}.a"], fresh.learned[f"{middle}.a"])
    assert torch.equal(training.learned[f"{fc1}.a"][1:], old.tensors[f"{fc1}.a"])
    assert torch.equal(training.learned["head.weight"], old.tensors["head.weight"])
    assert training.learned[f"{qkv}.a"] not in training.optimizer.state  # it contains a cell without moments
    assert training.learned["head.weight"] in training.optimizer.state
    assert training.position == old.position
    assert training.experts.sampler.steps == 0
    events = [*training.run()]
    assert [s.step for s in of(events, TrainStep)] == list(range(7, 19))
    assert of(events, Evaluation)[-1].epoch == 6


def test_a_mask_with_fewer_cells_keeps_their_moments(tmp_path: Path) -> None:
    old = parent(tmp_path)
    fewer = MaskPlan(((1, 0, 0), (0, 0, 0), (0, 0, 1)), ((0.5, 0, 0), (0, 0, 0), (0, 0, 0)), HOLES.targets)
    training = Training(small(dataclasses.replace(CONFIG, plan=fewer)), old)
    name = f"{HOLES.targets[2]}.b"
    state = training.optimizer.state[training.learned[name]]
    assert torch.equal(state["exp_avg"], old.tensors[f"adam.exp_avg.{name}"][:, 1:])
    assert state["step"] == old.tensors[f"adam.step.{name}"] == 6


def test_another_mask_keeps_the_mask_generators_and_the_image_order(tmp_path: Path) -> None:
    """Where both masks have the same drop rate they drop the same experts."""
    old = parent(tmp_path)
    more = MaskPlan(((1, 1, 1), (0, 0, 0), (0, 1, 1)), ((0.5, 0.25, 0.5), (0,) * 3, (0, 0.75, 0)), HOLES.targets)
    same, other = (Training(small(dataclasses.replace(CONFIG, plan=p)), old) for p in (HOLES, more))
    for _ in range(20):
        active, active_other = same.experts.sample() > 0, other.experts.sample() > 0
        assert torch.equal(active[0, :2], active_other[0, :2])
        assert torch.equal(active[2], active_other[2])
    assert torch.equal(same.order.get_state(), other.order.get_state())


def test_the_same_mask_with_more_epochs_keeps_all_moments(tmp_path: Path) -> None:
    training = Training(small(dataclasses.replace(CONFIG, epochs=8)), parent(tmp_path))
    assert set(training.optimizer.state) == set(training.learned.values())


# ---------------------------------------------------------------- files


def test_a_checkpoint_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    old = parent(tmp_path)
    for changes, message in (
        ({"seed": 1}, "its seed is 9, not 1"),
        ({"batch_size": 5}, "its batch size is 10, not 5"),
        ({"method": "linear"}, "its method is 'mlae', not 'linear'"),
    ):
        with pytest.raises(CheckpointError, match=f"the checkpoint does not fit: {message}"):
            Training(small(dataclasses.replace(CONFIG, **changes)), old)
    for damage in ("head.weight", "generator.order", f"{HOLES.targets[0]}.a", "generator.mask.1", "active_steps"):
        tensors = {name: value for name, value in old.tensors.items() if name != damage}
        with pytest.raises(CheckpointError, match="the checkpoint does not fit"):
            Training(small(CONFIG), dataclasses.replace(old, tensors=tensors))
        tensors[damage] = torch.zeros(3)
        with pytest.raises(CheckpointError, match="the checkpoint does not fit"):
            Training(small(CONFIG), dataclasses.replace(old, tensors=tensors))
    with pytest.raises(CheckpointError, match="it is in epoch 9"):
        Training(small(CONFIG), dataclasses.replace(old, position=dataclasses.replace(old.position, epoch=9)))


def test_a_checkpoint_of_other_settings_of_the_method_says_which() -> None:
    lora = dataclasses.replace(CONFIG, method="lora", method_settings=("rank=2",))
    old = Training(small(lora)).checkpoint()
    with pytest.raises(CheckpointError, match=r"the settings of its method lora are rank=2, not the defaults$"):
        Training(small(dataclasses.replace(lora, method_settings=())), old)


def test_half_a_file_another_file_and_no_file_are_errors(tmp_path: Path) -> None:
    parent(tmp_path)
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    save_file(load_file(tmp_path / "c"), tmp_path / "bare")
    (tmp_path / "text").write_text("no")
    for name in ("half", "text"):
        with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
            read_checkpoint(tmp_path / name)
    for name in ("other", "bare"):
        with pytest.raises(CheckpointError, match="is not a checkpoint of this lab"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing")


def test_a_damaged_header_is_an_error(tmp_path: Path) -> None:
    old = parent(tmp_path)
    for position in (TrainPosition(0, 0, 0, 0.0, 0), TrainPosition(1, -1, 0, 0.0, 0), TrainPosition(1, 0, 1.5, 0.0, 0)):  # type: ignore[arg-type]
        save_checkpoint(tmp_path / "odd", dataclasses.replace(old, position=position))
        with pytest.raises(CheckpointError, match="damaged header"):
            read_checkpoint(tmp_path / "odd")


def test_a_checkpoint_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = parent(tmp_path)
    before = (tmp_path / "c").read_bytes()

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlae_lab.files.os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path / "c", old)
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_an_evaluation_asks_between_chunks_whether_to_continue() -> None:
    setup = small(CONFIG)
    calls: list[bool] = []
    inputs = setup.evaluation
    inputs.chunks = lambda: ((inputs.take(torch.tensor([i])), inputs.labels[[i]]) for i in range(16))
    evaluate(setup, lambda: not calls.append(True))
    assert len(calls) == 15  # not after the last one
    with pytest.raises(OutOfTime):
        evaluate(setup, lambda: False)
