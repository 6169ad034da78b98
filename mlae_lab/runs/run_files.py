"""What the process of a run keeps in its folder: adapter, checkpoints and the list of its images."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlae_lab import environment
from mlae_lab.core import image_labels
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Saved
from mlae_lab.runs.event_writer import EventWriter
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import Run, RunStore

if TYPE_CHECKING:
    from mlae_lab.training.checkpoint import Checkpoint
    from mlae_lab.training.setup import Setup
    from mlae_lab.training.trainer import Training

SAVE_SECONDS = environment.SAVE.value()
KEPT = 8  # checkpoints kept per run, besides the newest


class Saver:
    """Writes adapter and checkpoint: after every evaluation, every `SAVE_SECONDS`, and at a stop."""

    def __init__(
        self, files: RunPaths, config: RunConfig, setup: Setup, training: Training, writer: EventWriter
    ) -> None:
        self.files, self.config, self.setup, self.training, self.writer = files, config, setup, training, writer
        self.last, self.saved_at, self.evaluated_step = time.monotonic(), (-1, 0), -1
        epochs = config.evaluated_epochs
        self.kept = (
            {epochs[-(-len(epochs) * i // KEPT) - 1] for i in range(1, KEPT + 1)} if len(epochs) > KEPT else set(epochs)
        )

    @property
    def is_behind(self) -> bool:
        """Whether training has advanced since it was saved."""
        position = self.training.position
        return (position.step, position.searched) > self.saved_at

    def save_if_due(self, epoch: int) -> None:
        if time.monotonic() - self.last >= SAVE_SECONDS:
            self.save(epoch, evaluated=False)

    def save(self, epoch: int, evaluated: bool = True) -> None:
        from mlae_lab.model.adapter_file import save_adapter
        from mlae_lab.training.checkpoint import save_checkpoint

        position, setup = self.training.position, self.setup
        self.writer.keep()  # a resumed run does not report events before its checkpoint again
        config = self.config
        with self.training.average.applied():
            size = save_adapter(
                self.files.adapter, setup.adapter, setup.head, config.backbone, config.task, setup.expected,
                config.method, config.method_settings,
            )  # fmt: skip
        if evaluated and config.keep_best and self.training.best.epoch == epoch:
            link(self.files.adapter, self.files.best)
        save_checkpoint(self.files.checkpoint, self.training.checkpoint())
        if evaluated and position.batch == 0 and epoch in self.kept:
            kept = self.files.checkpoint_after(epoch)
            kept.parent.mkdir(exist_ok=True)
            link(self.files.checkpoint, kept)
        self.writer.add(Saved(epoch, position.step, size))
        self.last, self.saved_at = time.monotonic(), (position.step, position.searched)
        if evaluated:
            self.evaluated_step = position.step


def link(newest: Path, kept: Path) -> None:
    """Keep a file under another name. It is replaced, never modified, so the two may share its bytes."""
    kept.unlink(missing_ok=True)
    os.link(newest, kept)


def record_images(store: RunStore, run: Run, setup: Setup, start: Checkpoint | None, is_new: bool) -> Setup:
    """Keep the list of the run's images, and record label and notes where they differ from those of the launch.

    Args:
        store: Of the run.
        run: As it was launched.
        setup: With its images.
        start: The checkpoint to continue from, None for a run from the first step.
        is_new: Whether the run had no list of its images yet.

    Raises:
        DataError: Images that earlier steps were trained on are missing.
    """
    from mlae_lab.data.bundled import DataError
    from mlae_lab.data.image_record import duplicates, write_record
    from mlae_lab.data.listing import counted, some

    before, config, record = run.config, setup.config, setup.record
    if record is None:
        return setup
    if is_new:
        if start is not None and config.data_fingerprint != before.data_fingerprint:  # of version 0.5
            config = replace(config, data_label=image_labels.mixed(before.data_label, config.data_label))
        if repeated := duplicates(record):
            note = image_labels.repeated_note(counted(len(repeated)), some(repeated))
            config = replace(config, data_notes=(*config.data_notes, note))
    elif setup.missing:
        raise DataError(f"{setup.missing}: restore them to resume, or rerun on the images that are there now")
    config = replace(config, data_notes=tuple(dict.fromkeys(config.data_notes)))
    if (config.data_label, config.data_notes, config.data_fingerprint) != (
        before.data_label, before.data_notes, before.data_fingerprint
    ):  # fmt: skip
        print(f"images: {config.data_label}. {' '.join(config.data_notes)}", flush=True)
        store.record_dataset(run.id, config)
    if is_new:  # last: with the list there, the next start does not describe the images again
        write_record(store.paths(run.id).images, record)
    return replace(setup, config=config)
