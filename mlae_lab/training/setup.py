"""Everything that a training needs before its first step: `prepare` builds it from a config."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from mlae_lab.core import memory
from mlae_lab.core.config import RunConfig
from mlae_lab.core.progress import ProgressCallback
from mlae_lab.core.search import held_out
from mlae_lab.core.weight_fit import require_fit
from mlae_lab.data.image_record import ImageRecord
from mlae_lab.data.pixels import Three
from mlae_lab.data.splits import LabelledImages
from mlae_lab.data.tasks import load_protocol
from mlae_lab.errors import LabError
from mlae_lab.locations import data_folder
from mlae_lab.methods.adapter import Adapter, attach
from mlae_lab.model import backbones
from mlae_lab.model.adapter_file import InputDescription
from mlae_lab.model.experts import stream
from mlae_lab.model.frozen_prefix import depth, split, unvarying
from mlae_lab.model.inject import Experts
from mlae_lab.model.weight_files import classifier
from mlae_lab.training import feature_cache
from mlae_lab.training.environment import multiplies_bfloat16
from mlae_lab.training.feature_cache import FeatureCache
from mlae_lab.training.inputs import FEATURES_KEPT, Inputs


class DeviceError(LabError):
    """A device that this machine does not have; its text says which would work."""


@dataclass
class Setup:
    """A network that is ready to train.

    Attributes:
        config: The run's config, with the label of the dataset as it is now.
        model: The whole network.
        adapter: What the method put into it.
        head: The trained classifier.
        behind: The part of the network that every step computes: inputs of its first block -> logits.
        train: The training images.
        evaluation: The evaluation images.
        device: Where training runs.
        precision: float32 or bfloat16.
        seconds: Time spent on loading.
        notes: What was changed to make the weights fit, and resampled for the image size.
        weights: Fingerprint of the weights.
        classes: Names of the classes.
        record: Which images these are; None for a bundled task.
        held_out: Indices of the training images that are not trained on but searched on; None where the search is on
            the evaluation images, as under the protocol "val", and without a search.
        missing: What the run was trained or evaluated on and is not among the images, a sentence without a full stop.
        evaluated: As of `data.tasks.Loaded`.
    """

    config: RunConfig
    model: nn.Module
    adapter: Adapter
    head: nn.Linear
    behind: Callable[[torch.Tensor], torch.Tensor]
    train: Inputs
    evaluation: Inputs
    device: torch.device
    precision: torch.dtype
    seconds: float
    notes: tuple[str, ...] = ()
    weights: str = ""
    classes: tuple[str, ...] = ()
    record: ImageRecord | None = None
    missing: str = ""
    held_out: torch.Tensor | None = None
    evaluated: tuple[int, ...] = ()

    @property
    def trained(self) -> torch.Tensor:
        """Indices of the training images that are trained on, on the device."""
        every = torch.arange(len(self.train), device=self.device)
        return every if self.held_out is None else every[~torch.isin(every, self.held_out)]

    @property
    def experts(self) -> Experts | None:
        """The experts, None for a method without a mask."""
        return self.adapter.experts

    @property
    def expected(self) -> InputDescription:
        """What the network expects, for its adapter file."""
        record = self.record
        mean, deviation = self.config.mean_and_deviation
        return InputDescription(
            self.classes, self.config.network.image_size, self.config.prepared, mean, deviation,
            self.weights, (record.train.digest, record.evaluation.digest) if record else (),
            (record.depth or 0) if record else 0,
        )  # fmt: skip


def stratified(labels: np.ndarray, seed: int) -> torch.Tensor:
    """Indices of the images that a search holds out, ascending: `core.search.held_out` of them, by class in proportion.

    Args:
        labels: (n,) class numbers.
        seed: Of the run.
    """
    shuffled = torch.randperm(len(labels), generator=stream(seed, "held out")).numpy()
    places = np.empty(len(labels))
    for number in np.unique(labels):
        members = shuffled[labels[shuffled] == number]
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = shuffled[np.argsort(places[shuffled], kind="stable")]
    return torch.from_numpy(np.sort(order[: held_out(len(labels))]))


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises DeviceError for an absent GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device is 'cuda' and this machine shows no CUDA GPU: choose cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16; "auto" is bfloat16 where the hardware multiplies it faster.

    That is a GPU, or a CPU with native bfloat16 products (AMX or AVX-512; `benchmarks/step.py`
    prints both times). On other CPUs bfloat16 is emulated and slower. The choice is recorded in
    Started and is the same for every run on one machine; a run that resumes on another one keeps it.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" or multiplies_bfloat16() else torch.float32
    return getattr(torch, name)


def prepare(
    config: RunConfig,
    weights: Path | None = None,
    on_progress: ProgressCallback | None = None,
    on_chunk: Callable[[], None] = lambda: None,
    record: ImageRecord | None = None,
    trained_by_0_5: bool = False,
    precision: str = "",
    starts_new: bool = True,
) -> Setup:
    """Load data and backbone, attach the method, and compute once what stays fixed.

    Args:
        config: The run.
        weights: A weight file to use instead of the config's.
        on_progress: Called with (done, total) while images are decoded for the first time; it may raise.
        on_chunk: Called between the pieces of all other work; it may raise.
        record: As for `data.tasks.load_protocol`.
        trained_by_0_5: As for `data.tasks.load_protocol`.
        precision: That of the steps so far, for a run that resumes; "" for the config's.
        starts_new: Whether training begins with the first step, so that a method may look at training images before it
            chooses what to train; else its choice comes from a checkpoint or an adapter file.

    Raises:
        DataError: If images are missing or damaged.
        BackboneError: If the weights do not fit.
        InjectError, AttachError: If the method does not fit the network.
        DeviceError: If this machine does not have the device.
        CatalogError: If the catalog has no such backbone or task.
    """
    began = time.monotonic()
    device = choose_device(config.device)
    dtype = choose_precision(precision or config.precision, device)
    entry = config.network
    file = weights or (Path(config.weights) if config.weights else None)
    if file and entry.trained:
        require_fit(entry, file)  # before any image is decoded
    images = load_protocol(config, on_progress, record, trained_by_0_5, on_chunk)
    config = images.config
    on_chunk()
    model, notes = backbones.build_with_notes(
        config.backbone, len(images.class_names), config.seed, file, data_folder() / "weights", config.drop_path
    )
    on_chunk()
    fingerprint = backbones.fingerprint(model)  # of the weights as they are at the network's own size
    notes = (*notes, *backbones.set_image_size(model, entry.image_size))
    model = model.to(device)

    def first_pass() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        normalisation = cast("tuple[Three, Three]", config.mean_and_deviation)
        whole = Inputs(images.train, lambda x: x, device, entry.image_size, normalisation, features_kept=0)
        order = torch.randperm(len(images.train), generator=stream(config.seed, "first pass"))
        for chosen in order.to(device).split(config.batch_size):
            on_chunk()
            yield whole.take(chosen), whole.labels[chosen]

    constant = unvarying(model)  # before a method wraps or replaces the drop paths
    adapter = attach(model, config.tuning, config.seed, first_pass if starts_new else None)
    head = classifier(model).requires_grad_(True)
    assert isinstance(head, nn.Linear)  # `build_with_notes` refuses any other
    block = min(config.tuning.first_block(depth(model)), constant)
    before, behind = split(model, block)
    fused = memory.attention_is_fused(entry, device.type)
    if device.type == "cpu":
        backbones.set_fused_attention(model, fused)
    at_once = memory.images_at_once(memory.evaluation_bytes(entry, fused))
    # the stem alone and a GPU are about as fast as the disk
    folder = feature_cache.folder() if device.type == "cpu" and block > 0 else None
    frozen = (
        entry.name,
        fingerprint,
        block,
        entry.image_size,
        config.mean_and_deviation,
        config.prepared,
        at_once,
        fused,
    )

    def inputs(part: LabelledImages, generator: torch.Generator | None) -> Inputs:
        mixes = generator is not None and config.mixup > 0
        return Inputs(
            part,
            before,
            device,
            entry.image_size,
            cast("tuple[Three, Three]", config.mean_and_deviation),
            config.prepared,
            generator,
            config.augmentation if generator else "off",
            features_kept=0 if mixes else FEATURES_KEPT,
            on_chunk=on_chunk,
            at_once=at_once,
            cache=FeatureCache(folder, repr(frozen)) if folder else None,
        )

    searches_in_train = config.tuning.search is not None and config.protocol == "test"
    return Setup(
        config, model, adapter, head, behind, inputs(images.train, stream(config.seed, "augment")),
        inputs(images.evaluation, None), device, dtype, time.monotonic() - began, notes, fingerprint,
        images.class_names, images.record, images.missing,
        stratified(images.train.labels, config.seed).to(device) if searches_in_train else None, images.evaluated,
    )  # fmt: skip
