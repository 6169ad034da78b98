"""A run at another image size than its backbone's: trained, saved, loaded, moved to another store."""

from __future__ import annotations

from pathlib import Path

import torch

from mlae_lab.analysis.attention import grid_of
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Started
from mlae_lab.core.patterns import allocation
from mlae_lab.model.adapter_file import read_adapter, save_adapter
from mlae_lab.runs.archive_file import export, import_run
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.loaded_run import load_run
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.trainer import fit
from tests.lab import few_images

CONFIG = RunConfig(
    "own:few", allocation((0,) * 11 + (2,), drop_rate=0.3), data=str(few_images()), image_size=64, epochs=1,
    batch_size=100, device="cpu", precision="float32", learning_rate=5e-3,
)  # fmt: skip


@torch.no_grad()
def logits(setup: Setup) -> torch.Tensor:
    assert setup.experts is not None
    setup.adapter.train(False)
    return setup.behind(setup.evaluation.take(torch.arange(8)))


def test_a_run_at_64_pixels_is_trained_saved_loaded_and_moved(store: RunStore, tmp_path: Path) -> None:
    setup = prepare(CONFIG)
    assert setup.notes[-1] == "position embedding resampled from 6 x 6 to 8 x 8 patches"
    assert setup.evaluation.part.images.shape[1:] == (64, 64, 3)  # decoded and resized for this size
    events = list(fit(setup))
    assert next(event for event in events if isinstance(event, Started)).notes == setup.notes
    trained = logits(setup)
    assert trained.abs().max() > 0
    assert grid_of(setup.model, 65) == (8, 8)  # of attention maps

    run = store.enqueue(CONFIG, "cpu")
    store.append(run.id, events)
    store.move(run.id, Status.FINISHED)
    files = store.paths(run.id)
    files.folder.mkdir(parents=True, exist_ok=True)
    save_adapter(files.adapter, setup.experts, setup.head, CONFIG.backbone, CONFIG.task, setup.expected)
    assert read_adapter(files.adapter).input.image_size == 64
    export(store, run.id, tmp_path / "run.mlae")
    other = RunStore(tmp_path / "other")
    imported = import_run(other, tmp_path / "run.mlae")
    assert (imported.config.image_size, imported.config.hash) == (64, CONFIG.hash)
    adapter = other.paths(imported.id).adapter
    loaded = load_run(imported.config, adapter, imported.id, "cpu", record=setup.record, data=few_images())
    assert torch.equal(logits(loaded.setup), trained)
    assert loaded.setup.weights == setup.weights


def test_two_sizes_share_the_fingerprint_of_the_weights() -> None:
    at_32, own = (prepare(RunConfig("own:few", CONFIG.plan, "linear", data=CONFIG.data, image_size=size, device="cpu"))
                  for size in (32, 0))  # fmt: skip
    assert at_32.weights == own.weights
    assert at_32.evaluation.part.images.shape[1] == 32
    assert at_32.model.pos_embed.shape == (1, 17, 128)
