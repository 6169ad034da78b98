"""Methods in a real training: statistics, checkpoint, resumption, adapter file. The contract is in tests/methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlae_lab.core.catalog import backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, Started, Statistics
from mlae_lab.model.adapter_file import save_adapter
from mlae_lab.training.checkpoint import read_checkpoint, save_checkpoint
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import load_run
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import Training
from tests.data.trees import make_own


@pytest.mark.parametrize(
    ("method", "settings", "recorded"),
    [
        ("spt_lora", ("budget=20000",), True),  # looks at training images before the first step
        ("adalora", (), True),
        ("mola", (), True),
        ("glora", (), False),  # keeps integers in its adapter file
        ("bitfit", (), False),  # trains parameters of the network itself
    ],
)
def test_a_run_is_stopped_resumed_saved_and_loaded(
    method: str, settings: tuple[str, ...], recorded: bool, tmp_path: Path
) -> None:
    folder = make_own(tmp_path / "birds", {"wren": 12, "owl": 12})
    config = RunConfig(
        "own:birds", method=method, method_settings=settings, epochs=1, batch_size=4, learning_rate=1e-3, device="cpu",
        precision="float32", data=str(folder),
    )  # fmt: skip
    whole = Training(prepare(config))
    events = list(whole.run())
    assert any(isinstance(event, Statistics) for event in events) == recorded

    stopped = Training(prepare(config))
    steps = iter((False, True))
    started = next(event for event in stopped.run(lambda: next(steps, True)) if isinstance(event, Started))
    assert started.parameters == config.tuning.parameters(backbone(config.backbone))
    save_checkpoint(tmp_path / "checkpoint", stopped.checkpoint())
    resumed = Training(prepare(config, starts_new=False), read_checkpoint(tmp_path / "checkpoint"))
    accuracy = [event.accuracy for event in resumed.run() if isinstance(event, Evaluation)][-1]
    for name, value in whole.checkpoint().tensors.items():
        assert torch.equal(value, resumed.checkpoint().tensors[name]), name

    setup = resumed.setup
    save_adapter(
        tmp_path / "adapter", setup.adapter, setup.head, config.backbone, config.task, setup.expected, method,
        config.method_settings,
    )  # fmt: skip
    loaded = load_run(config, tmp_path / "adapter", record=setup.record)
    assert evaluate(loaded.setup).accuracy == accuracy
