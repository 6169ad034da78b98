"""A search as a stage of a training: images, interruption, resumption, adapter file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from mlae_lab.core.catalog import backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, SearchGeneration, Started, TrainStep
from mlae_lab.core.settings import ConfigError
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.checkpoint import Checkpoint, CheckpointError, read_checkpoint, save_checkpoint
from mlae_lab.training.evaluation import evaluate, search_accuracy
from mlae_lab.training.loaded_run import load_run
from mlae_lab.training.setup import prepare, stratified
from mlae_lab.training.trainer import Training
from tests.data.trees import make_own

GLORA = ("search_generations=2", "search_population=4")
NOAH = ("subnet=search", "prompt=0", "search_generations=2", "search_population=4", "search_parameters=60000",
        "search_share=0.5")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own(tmp_path_factory.mktemp("images") / "birds", {"wren": 12, "owl": 12})


def config_of(folder: Path, method: str, settings: tuple[str, ...], **changes: Any) -> RunConfig:
    return RunConfig(
        "own:birds", method=method, method_settings=settings, epochs=2, batch_size=16, learning_rate=1e-3, device="cpu",
        precision="float32", data=str(folder), **changes,
    )  # fmt: skip


def same(whole: Checkpoint, other: Checkpoint) -> None:
    assert set(whole.tensors) == set(other.tensors)
    for name, value in whole.tensors.items():
        assert torch.equal(value, other.tensors[name]), name
    assert replace(whole.position, seconds=0) == replace(other.position, seconds=0)


@pytest.mark.parametrize(("method", "settings", "protocol"), [("glora", GLORA, "test"), ("noah", NOAH, "val")])
def test_a_searched_run_is_interrupted_resumed_saved_and_loaded(
    method: str, settings: tuple[str, ...], protocol: str, folder: Path, tmp_path: Path
) -> None:
    config = config_of(folder, method, settings, protocol=protocol)
    whole = Training(prepare(config))
    kept, events = [], []
    for event in whole.run():
        events.append(event)
        if isinstance(event, TrainStep | SearchGeneration | Evaluation):
            save_checkpoint(tmp_path / f"after-{len(kept)}", whole.checkpoint())
            kept.append(type(event).__name__)
    end = whole.checkpoint()

    # ---- order of the stages
    assert whole.search is not None
    assert whole.evolution is not None
    epoch = whole.search.epoch(2)
    generations = [event for event in events if isinstance(event, SearchGeneration)]
    assert [(event.generation, event.candidates, event.epoch) for event in generations] == [
        (1, 4, epoch),
        (2, 8, epoch),
    ]
    first = kept.index("SearchGeneration")
    assert kept[first - 1 : first + 3] == ["TrainStep", "SearchGeneration", "SearchGeneration", "Evaluation"]
    started = next(event for event in events if isinstance(event, Started))
    assert started.parameters == config.tuning.parameters(backbone(config.backbone))
    rates = [event.learning_rate for event in events if isinstance(event, TrainStep)]
    assert max(rates) == rates[0] == 1e-3
    if method == "noah":
        assert rates[len(rates) // 2] == 1e-3  # the sub-network has its own schedule

    # ---- what it found
    best = whole.evolution.best
    assert best.accuracy == generations[-1].best >= median(scored.accuracy for scored in whole.evolution.scored)
    assert best.parameters == generations[-1].parameters <= (60_000 if method == "noah" else 10**9)
    if method == "glora":  # nothing is trained after the search, so its accuracy still holds
        whole.adapter.train(False)
        assert search_accuracy(whole.setup) == best.accuracy

    # ---- continued after each of its events
    resumed = None
    for number, name in enumerate(kept):
        if name == "TrainStep" and number not in (0, first - 1, len(kept) - 2):
            continue
        resumed = Training(prepare(config, starts_new=False), read_checkpoint(tmp_path / f"after-{number}"))
        rest = list(resumed.run())
        missing = [name for name in kept[number + 1 :] if name == "SearchGeneration"]
        assert len([event for event in rest if isinstance(event, SearchGeneration)]) == len(missing)
        same(end, resumed.checkpoint())

    # ---- saved and loaded
    assert resumed is not None
    setup = resumed.setup
    save_adapter(
        tmp_path / "adapter", setup.adapter, setup.head, config.backbone, config.task, setup.expected, method,
        config.method_settings,
    )  # fmt: skip
    loaded = load_run(config, tmp_path / "adapter", record=setup.record).setup
    assert evaluate(loaded).accuracy == [event for event in events if isinstance(event, Evaluation)][-1].accuracy
    chunk = next(iter(loaded.evaluation.chunks()))[0]
    setup.adapter.train(False)
    with torch.no_grad():
        logits = loaded.behind(chunk)
        assert torch.equal(logits, setup.behind(chunk))
        if method == "glora":
            loaded.adapter.merge()
            assert torch.allclose(loaded.behind(chunk), logits, atol=1e-4)


@pytest.fixture(scope="module")
def end(folder: Path) -> Checkpoint:
    """Of a GLoRA run that was not interrupted."""
    whole = Training(prepare(config_of(folder, "glora", GLORA)))
    list(whole.run())
    return whole.checkpoint()


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_search_is_stopped_between_two_candidates(after: int, end: Checkpoint, folder: Path, tmp_path: Path) -> None:
    """As by a person: without an evaluation, as the run is not at its end."""
    config = config_of(folder, "glora", GLORA)
    stopped = Training(prepare(config))
    last = stopped.batches * 2

    def should_stop() -> bool:
        return (stopped.position.step, stopped.position.searched) >= (last, after)

    events = list(stopped.run(should_stop))
    assert stopped.position.searched == after
    assert stopped.is_searching == (after > 0)
    assert not stopped.is_through
    assert [event.epoch for event in events if isinstance(event, Evaluation)] == [1]
    save_checkpoint(tmp_path / "checkpoint", stopped.checkpoint())
    resumed = Training(prepare(config, starts_new=False), read_checkpoint(tmp_path / "checkpoint"))
    list(resumed.run())
    same(end, resumed.checkpoint())


def test_under_test_a_fifth_of_the_training_images_is_searched_on_and_never_trained_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder, "glora", GLORA, protocol="test")
    setup = prepare(config)
    assert setup.held_out is not None
    held = set(setup.held_out.tolist())
    assert len(held) == len(setup.train) // 5
    assert not held & set(setup.trained.tolist())
    assert len(held) + len(setup.trained) == len(setup.train)
    taken: set[int] = set()
    take = setup.train.take
    monkeypatch.setattr(setup.train, "take", lambda c, mix=None: (taken.update(c.tolist()), take(c, mix))[1])
    training, at_search = Training(setup), None
    for event in training.run():
        if isinstance(event, Started):
            assert event.train_images == len(setup.trained)
        if isinstance(event, TrainStep):
            at_search = set(taken)
        if isinstance(event, SearchGeneration):
            assert event.images == len(held)
    assert at_search is not None
    assert at_search == set(setup.trained.tolist())
    assert taken - at_search == held
    assert prepare(replace(config, protocol="val")).held_out is None
    assert prepare(replace(config, method_settings=())).held_out is None


def test_held_out_images_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    chosen = stratified(labels, seed=3)
    assert len(chosen) == 32
    assert np.bincount(labels[chosen.numpy()]).tolist() == [20, 10, 2]
    assert torch.equal(chosen, stratified(labels, seed=3))
    assert not torch.equal(chosen, stratified(labels, seed=4))


def test_a_finished_search_is_dropped_when_its_super_network_is_trained_longer(folder: Path) -> None:
    """And a checkpoint from after a search's epoch without its results is refused."""
    config = config_of(folder, "glora", GLORA)
    first = Training(prepare(config))
    list(first.run())
    longer = Training(prepare(replace(config, epochs=3), starts_new=False), first.checkpoint())
    assert longer.evolution is not None
    assert longer.evolution.scored == []
    generations = [event.generation for event in longer.run() if isinstance(event, SearchGeneration)]
    assert generations == [1, 2]

    noah = config_of(folder, "noah", NOAH)
    trained = Training(prepare(replace(noah, epochs=6)))
    events = trained.run(lambda: trained.position.step == 2 * trained.batches)
    list(events)
    with pytest.raises(CheckpointError, match="holds no finished search"):
        Training(prepare(noah, starts_new=False), trained.checkpoint())


def test_a_run_that_cannot_hold_its_search_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="leave out the time limit"):
        config_of(folder, "glora", GLORA, max_seconds=5)
    with pytest.raises(ConfigError, match="train at least 2"):
        replace(config_of(folder, "noah", NOAH), epochs=1)


def test_an_accuracy_after_a_search_is_not_mistaken_for_one_without(folder: Path) -> None:
    badges = {
        protocol: [config_of(folder, "glora", settings, protocol=protocol).badge.protocol for settings in ((), GLORA)]
        for protocol in ("val", "test")
    }
    assert badges == {
        "val": ["train → val", "train, searched on val → val"],
        "test": ["train + val → test", "train + val, 1/5 of it for a search → test"],
    }
    assert config_of(folder, "glora", ()).hash == config_of(folder, "glora", ("search_generations=0",)).hash
