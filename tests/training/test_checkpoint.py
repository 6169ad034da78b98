"""A training that stops anywhere and goes on ends with the numbers of one that never stopped, bit for bit."""

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

CHOSEN = config(epochs=4, evaluations=2, seed=9)


def until(training: Training, events: int) -> list[Event]:
    """The first events of a training that is then left alone, as by a kill."""
    found, running = [], training.run()
    for _ in range(events):
        found.append(next(running))
    running.close()
    return found


def learned(training: Training) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in training.learned.items()}


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[list[str], dict[str, bytes]]:
    training = Training(small(CHOSEN))
    return timeless([*training.run()]), learned(training)


def gone_on(path: Path, chosen: RunConfig, made: Callable[[RunConfig], Setup] = small) -> Training:
    return Training(made(chosen), read_checkpoint(path))


# after a first step, an epoch, within one, a report, an epoch without a report, its last step, its end
CUTS = [1, 3, 5, 10, 13, 16, 20]


@pytest.mark.parametrize("cut", CUTS)
def test_cut_anywhere_it_goes_on_bit_for_bit(
    cut: int, tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]
) -> None:
    everything, weights = uninterrupted
    first = Training(small(CHOSEN))
    before = until(first, 2 + cut)
    assert timeless(before) == everything[: 2 + cut]
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = gone_on(tmp_path / "c", CHOSEN)
    started, sample_images, resumed, *after = [*second.run()]
    assert [type(event) for event in (started, sample_images, resumed)] == [Started, SampleImages, Resumed]
    last = of(before, TrainStep)[-1]
    assert (resumed.step, resumed.epoch) == (last.step, last.epoch)
    assert timeless(after) == everything[2 + cut :]
    assert learned(second) == weights
    assert second.is_through


def test_asked_to_stop_in_the_middle_it_measures_and_still_goes_on_bit_for_bit(
    tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]
) -> None:
    """The evaluation that a stop brings is not one of the schedule: sums and generators stay as they were."""
    everything, weights = uninterrupted
    asked = iter([False] * 4 + [True])
    first = Training(small(CHOSEN))
    before = [*first.run(lambda: next(asked))]
    assert isinstance(before[-1], Evaluation)
    assert before[-1].step == 5
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = gone_on(tmp_path / "c", CHOSEN)
    assert timeless([*second.run()][3:]) == everything[2 + 5 :]
    assert learned(second) == weights


def test_stopped_within_an_evaluation_the_resumed_run_makes_it(
    tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything, weights = uninterrupted

    def out_of_time(*_: object) -> None:
        raise OutOfTime

    first = Training(small(CHOSEN))
    with monkeypatch.context() as patch:
        patch.setattr("mlae_lab.training.trainer.evaluate", out_of_time)
        assert len([*first.run()]) == 2 + 6
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = gone_on(tmp_path / "c", CHOSEN)
    assert timeless([*second.run()][3:]) == everything[2 + 6 :]
    assert learned(second) == weights


def test_interrupted_again_and_again(tmp_path: Path, uninterrupted: tuple[list[str], dict[str, bytes]]) -> None:
    everything, weights = uninterrupted
    told, training = [], Training(small(CHOSEN))
    while not training.is_through:
        for event in training.run():
            if not isinstance(event, (Started, SampleImages, Resumed)):
                told.append(event)
            if isinstance(event, TrainStep) and event.step % 2 == 0 and event.step % 6:
                break
        save_checkpoint(tmp_path / "c", training.checkpoint())
        training = gone_on(tmp_path / "c", CHOSEN)
    assert timeless(told) == everything[2:]
    assert learned(training) == weights


def augmented(chosen: RunConfig) -> Setup:
    """Trained on crops that a generator draws."""
    setup = small(chosen)
    old = setup.train
    setup.train = Inputs(
        old.part, old.before, old.device, old.size, old.normalisation, "fgvc-rrc", stream(chosen.seed, "augment")
    )
    return setup


def test_the_crops_go_on_where_they_were(tmp_path: Path) -> None:
    everything = [*Training(augmented(CHOSEN)).run()]
    plain = [*Training(small(CHOSEN)).run()]
    assert timeless(everything)[1:5] != timeless(plain)[1:5]
    first = Training(augmented(CHOSEN))
    until(first, 2 + 5)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = gone_on(tmp_path / "c", CHOSEN, augmented)
    assert timeless([*second.run()][3:]) == timeless(everything)[2 + 5 :]


def test_masks_per_token_and_dropped_inputs_go_on_too(tmp_path: Path) -> None:
    noisy = dataclasses.replace(CHOSEN, mask_per="token", input_dropout=0.2)
    training = Training(small(noisy))
    everything = timeless([*training.run()])
    assert everything[1:5] != timeless([*Training(small(CHOSEN)).run()])[1:5]
    first = Training(small(noisy))
    until(first, 2 + 5)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    second = gone_on(tmp_path / "c", noisy)
    assert timeless([*second.run()][3:]) == everything[2 + 5 :]
    assert learned(second) == learned(training)


def test_a_linear_probe_goes_on_too(tmp_path: Path) -> None:
    probe = dataclasses.replace(CHOSEN, method="linear")
    everything = timeless([*Training(small(probe)).run()])
    first = Training(small(probe))
    until(first, 2 + 4)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    assert timeless([*gone_on(tmp_path / "c", probe).run()][3:]) == everything[2 + 4 :]


def test_the_seconds_go_on_too(tmp_path: Path) -> None:
    first = Training(small(CHOSEN))
    before = until(first, 2 + 5)
    checkpoint = first.checkpoint()
    old = dataclasses.replace(checkpoint.position, seconds=100.0)
    second = Training(small(CHOSEN), dataclasses.replace(checkpoint, position=old))
    after = [*second.run()]
    assert before[-1].seconds < 100 < of(after, TrainStep)[0].seconds
    assert after[2].seconds == 100.0


# ---------------------------------------------------------------- another mask

WIDER = MaskPlan(  # two cells of HOLES' first row's three gone or new, the second row new, the third with one more
    ((1, 0, 1), (1, 0, 0), (1, 1, 1)),
    ((0.5, 0, 0.5), (0, 0, 0), (0, 0.75, 0)),
    HOLES.targets,
)


def parent(tmp_path: Path) -> Checkpoint:
    first = Training(small(CHOSEN))
    until(first, 2 + 6 + 4)
    save_checkpoint(tmp_path / "c", first.checkpoint())
    return read_checkpoint(tmp_path / "c")


def test_with_another_mask_shared_cells_go_on_and_new_ones_begin(tmp_path: Path) -> None:
    old, chosen = parent(tmp_path), dataclasses.replace(CHOSEN, plan=WIDER, epochs=6)
    fresh, training = Training(small(chosen)), Training(small(chosen), old)
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
    assert training.learned[f"{qkv}.a"] not in training.optimizer.state  # it holds a cell without a past
    assert training.learned["head.weight"] in training.optimizer.state
    assert training.position == old.position
    assert training.experts.sampler.steps == 0
    events = [*training.run()]
    assert [s.step for s in of(events, TrainStep)] == list(range(7, 19))
    assert of(events, Evaluation)[-1].epoch == 6


def test_a_mask_with_fewer_cells_keeps_their_moments(tmp_path: Path) -> None:
    old = parent(tmp_path)
    fewer = MaskPlan(((1, 0, 0), (0, 0, 0), (0, 0, 1)), ((0.5, 0, 0), (0, 0, 0), (0, 0, 0)), HOLES.targets)
    training = Training(small(dataclasses.replace(CHOSEN, plan=fewer)), old)
    name = f"{HOLES.targets[2]}.b"
    state = training.optimizer.state[training.learned[name]]
    assert torch.equal(state["exp_avg"], old.tensors[f"adam.exp_avg.{name}"][:, 1:])
    assert state["step"] == old.tensors[f"adam.step.{name}"] == 6


def test_the_mask_generators_and_the_order_go_on_with_another_mask(tmp_path: Path) -> None:
    """Where both masks drop at one rate they drop the same."""
    old = parent(tmp_path)
    more = MaskPlan(((1, 1, 1), (0, 0, 0), (0, 1, 1)), ((0.5, 0.25, 0.5), (0,) * 3, (0, 0.75, 0)), HOLES.targets)
    one, other = (Training(small(dataclasses.replace(CHOSEN, plan=p)), old) for p in (HOLES, more))
    for _ in range(20):
        drawn, drawn_too = one.experts.sample() > 0, other.experts.sample() > 0
        assert torch.equal(drawn[0, :2], drawn_too[0, :2])
        assert torch.equal(drawn[2], drawn_too[2])
    assert torch.equal(one.order.get_state(), other.order.get_state())


def test_the_same_mask_with_more_epochs_goes_on_with_all_its_moments(tmp_path: Path) -> None:
    training = Training(small(dataclasses.replace(CHOSEN, epochs=8)), parent(tmp_path))
    assert set(training.optimizer.state) == set(training.learned.values())


# ---------------------------------------------------------------- files


def test_a_checkpoint_that_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    old = parent(tmp_path)
    for changes, words in (
        ({"seed": 1}, "its seed is 9, not 1"),
        ({"batch_size": 5}, "its batch size is 10, not 5"),
        ({"method": "linear"}, "its method is 'mlae', not 'linear'"),
    ):
        with pytest.raises(CheckpointError, match=f"the checkpoint does not fit: {words}"):
            Training(small(dataclasses.replace(CHOSEN, **changes)), old)
    for damage in ("head.weight", "generator.order", f"{HOLES.targets[0]}.a", "generator.mask.1", "active_steps"):
        tensors = {name: value for name, value in old.tensors.items() if name != damage}
        with pytest.raises(CheckpointError, match="the checkpoint does not fit"):
            Training(small(CHOSEN), dataclasses.replace(old, tensors=tensors))
        tensors[damage] = torch.zeros(3)
        with pytest.raises(CheckpointError, match="the checkpoint does not fit"):
            Training(small(CHOSEN), dataclasses.replace(old, tensors=tensors))
    with pytest.raises(CheckpointError, match="it stands in epoch 9"):
        Training(small(CHOSEN), dataclasses.replace(old, position=dataclasses.replace(old.position, epoch=9)))


def test_half_a_file_another_file_and_no_file_are_sentences(tmp_path: Path) -> None:
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


def test_a_damaged_header_is_a_sentence(tmp_path: Path) -> None:
    old = parent(tmp_path)
    for position in (TrainPosition(0, 0, 0, 0.0, 0), TrainPosition(1, -1, 0, 0.0, 0), TrainPosition(1, 0, 1.5, 0.0, 0)):  # type: ignore[arg-type]
        save_checkpoint(tmp_path / "odd", dataclasses.replace(old, position=position))
        with pytest.raises(CheckpointError, match="damaged header"):
            read_checkpoint(tmp_path / "odd")


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = parent(tmp_path)
    before = (tmp_path / "c").read_bytes()

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlae_lab.files.os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path / "c", old)
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_an_evaluation_asks_between_its_pieces_whether_it_may_go_on() -> None:
    setup = small(CHOSEN)
    asked: list[bool] = []
    setup.evaluation.chunks = lambda: ((setup.evaluation.take(torch.tensor([i])), setup.evaluation.labels[[i]]) for i in range(16))  # fmt: skip
    evaluate(setup, lambda: not asked.append(True))
    assert len(asked) == 15  # not after the last one: then it is done
    with pytest.raises(OutOfTime):
        evaluate(setup, lambda: False)
